"""However a provider fails: what may have been paid is not bought again, and the error says that it may have been."""

import asyncio
import json
from collections.abc import Mapping
from io import StringIO

import pytest
from app.core.errors import ApiError
from app.providers import ProviderFailed
from tests.providers.drawing import Behind, banana, soon
from tests.providers.ways import BY_NAME, WAYS, Way, reached
from tests.standins.wire import Reply


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
async def test_it_costs_so_many_calls_and_its_error_says_whether_they_may_have_been_paid(
    behind: Behind, way: Way
) -> None:
    behind.stand_in.faults.extend([way.reply(behind.dialect)] * 9)
    order, deadline = banana(), soon()
    if way.place == "full":
        deadline = asyncio.get_running_loop().time() + 0.1  # no connection is made before it, however slow we are
    async with reached(way.place) as url:
        provider = behind.open(url, first_byte_seconds=0.05) if way.is_silent else behind.open(url)
        with pytest.raises(ApiError) as raised:
            await provider.draw(order, deadline=deadline)
    told = (raised.value.code, len(behind.stand_in.seen), raised.value.may_have_been_paid)
    assert told == (way.code, way.calls, way.may_have_been_paid)
    assert order.budget.may_have_been_paid is way.may_have_been_paid


CAME: Mapping[str, Mapping[str, object]] = {
    "200, HTML": {"status": 200, "media_type": "text/html", "kind": "html"},
    "200, empty": {"status": 200, "media_type": "none", "kind": "empty", "bytes": 0},
    "200, a byte order mark": {"kind": "byte order mark"},
    "200, JSON that is cut off": {"kind": "json"},
    "200, more than an answer may have": {"status": 200, "kind": "other"},
    "GIF": {"media_type": "application/json", "kind": "json", "image_kind": "gif"},
    "APNG": {"image_kind": "png"},
    "animated WebP": {"image_kind": "webp"},
    "no image": {"image_kind": "other", "image_bytes": len(b"words")},
    "an image of another shape": {"image_kind": "png"},
    "502 of a gateway": {"status": 502, "media_type": "text/html", "kind": "html"},
    "500": {"status": 500, "media_type": "application/json", "kind": "json"},
    "connection reset": {"failure": "ReadError"},
    "connection refused": {"failure": "ConnectError"},
}


@pytest.mark.parametrize("name", CAME)
async def test_the_log_says_what_came(behind: Behind, log: StringIO, name: str) -> None:
    way = BY_NAME[name]
    behind.fail(name)
    async with reached(way.place) as url:
        with pytest.raises(ApiError):
            await behind.open(url, tries_max=1).draw(banana(), deadline=soon())
    [line] = [json.loads(line) for line in log.getvalue().splitlines() if '"provider_' in line]
    assert line.items() >= CAME[name].items()


async def test_a_media_type_that_nobody_knows_is_words_and_not_logged(behind: Behind, log: StringIO) -> None:
    behind.stand_in.faults.append(Reply(b"<canary>", 200, {"Content-Type": "text/canary; canary=canary"}))
    with pytest.raises(ProviderFailed):
        await behind.open().draw(banana(), deadline=soon())
    assert '"media_type": "other"' in log.getvalue()
    assert "canary" not in log.getvalue()
