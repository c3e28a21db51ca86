"""An image that a provider sends in an unusual form is delivered as it is, and bought once."""

import httpx2
import pytest
from tests.conftest import Start
from tests.features.generate.painted import Painted, painted, painted_by_openai
from tests.harness import generate
from tests.providers.failures import Dialect
from tests.providers.taken import IMAGE, TAKEN, Taken
from tests.standins.openai import OpenAIStandIn
from tests.standins.wire import Reply


async def outcome(there: Painted, taken: Taken, reply: Reply) -> str:
    """`delivered`, or what became of it instead."""
    there.provider.seen.clear()
    there.provider.faults.append(reply)
    if isinstance(there.provider, OpenAIStandIn):
        there.provider.file_faults.clear()
        there.provider.file_faults.extend(taken.files)
    answer = await generate(there.client, there.key)
    there.provider.faults.clear()
    calls = len([seen for seen in there.provider.seen if seen.method == "POST"])
    if (answer.status_code, calls) != (200, 1):
        return f"{answer.status_code} {answer.json().get('code')} after {calls} calls"
    stored = await there.client.get(httpx2.URL(answer.json()["url"]).path)
    return "delivered" if stored.content == IMAGE else "other bytes"


@pytest.mark.parametrize("dialect", ["gemini", "openai"])
@pytest.mark.usefixtures("short_pauses")
async def test_every_form_in_which_a_provider_sends_an_image_is_delivered_for_one_call(
    start: Start, dialect: Dialect
) -> None:
    forms = [(taken, reply) for taken in TAKEN if (reply := taken.reply(dialect)) is not None]
    async with (painted if dialect == "gemini" else painted_by_openai)(start) as there:
        found = {taken.name: await outcome(there, taken, reply) for taken, reply in forms}
    assert found == dict.fromkeys(found, "delivered")
