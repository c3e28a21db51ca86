"""The official OpenAI SDK repeats what fails by itself, twice by default: no image is drawn again for that."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import openai
import pytest
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted, painted_by_openai
from tests.features.openai.test_sdk import sdk_of
from tests.features.usage.recorded import locked, total
from tests.providers.failures import BY_NAME, Dialect
from tests.standins import gemini

DEADLINE_SECONDS = 2


async def ask(there: Painted) -> tuple[str | None, list[int]]:
    """The code of the error that one call by default raises, and every status that its client was told meanwhile."""
    told: list[int] = []
    async with sdk_of(there.client, there.key, max_retries=openai.DEFAULT_MAX_RETRIES, told=told) as sdk:
        with pytest.raises(openai.InternalServerError) as raised:
            await sdk.images.generate(prompt="A cute banana")
    return raised.value.code, told


@pytest.mark.parametrize("dialect", ["gemini", "openai"])
@pytest.mark.parametrize(
    "name",
    [
        "silence until the deadline",
        "500",
        "502 of a gateway",
        "504 of a gateway",
        "connection reset",
        "half an image",
        "GIF",
        "200, HTML",
    ],
)
async def test_one_call_is_one_drawing_where_that_may_have_been_paid(
    start: Start, database: asyncpg.Connection, dialect: Dialect, name: str
) -> None:
    failure, behind = BY_NAME[name], painted if dialect == "gemini" else painted_by_openai
    deadline = {"generation_deadline_seconds": DEADLINE_SECONDS} if failure.is_silent else {}
    async with behind(start, **deadline) as there:
        there.provider.faults.extend([failure.reply(dialect)] * 9)
        code, told = await ask(there)
        assert (code, len(there.provider.seen), len(told)) == (failure.code, 1, 1)
        assert await total(database, there.key) == 0


async def test_one_call_is_one_drawing_where_the_store_fails_after_it(start: Start, tmp_path: Path) -> None:
    async with painted(start, data_dir=tmp_path) as there:
        shutil.rmtree(tmp_path / "pictures")
        assert await ask(there) == ("unavailable", [503])
        assert len(there.provider.seen) == 1


async def test_one_call_is_one_drawing_where_nobody_can_tell_whether_it_was_delivered(
    start: Start, database: asyncpg.Connection
) -> None:
    async with painted(start, record_deadline_seconds=1) as there:
        gate = asyncio.Event()
        there.provider.faults.append(gemini.slow(gate))
        asked = asyncio.create_task(ask(there))
        await there.asked()
        async with locked(database, there.key):
            gate.set()
            assert await asked == ("outcome_unknown", [503])
        assert len(there.provider.seen) == 1


async def test_what_cost_nothing_is_repeated_and_then_drawn_once(start: Start, database: asyncpg.Connection) -> None:
    told: list[int] = []
    async with painted(start) as there:
        there.provider.faults.append(BY_NAME["400"].gemini)
        async with sdk_of(there.client, there.key, max_retries=openai.DEFAULT_MAX_RETRIES, told=told) as sdk:
            await sdk.images.generate(prompt="A cute banana")
        assert (told, len(there.provider.seen)) == ([502, 200], 2)
        assert await total(database, there.key) == 1
