"""What the users of unmodified clients get from the platform."""

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pytest
from app.features.chat.schemas import SENTENCE
from PIL import Image
from tests.clients.calls import Blocked, Call, Client, Images, Models, Refused, Sentence, Streamed
from tests.clients.cases import CASES
from tests.clients.conftest import Ask, Platform
from tests.clients.report import Results
from tests.harness import Account, Key
from tests.standins import gemini

Answer = dict[str, Any]

WRONG = "nb_test_wrong"

_FAULTS = {"": [], "fails": [gemini.failed(500, "INTERNAL")], "refuses": [gemini.blocked_prompt("SAFETY")]}


@pytest.mark.parametrize(
    ("client", "call"),
    [pytest.param(client, call, id=f"{client.name}: {call.name}") for client, call in CASES],
)
async def test_the_user_of_a_client_gets(
    platform: Platform, ask: Ask, results: Results, client: Client, call: Call
) -> None:
    account = await platform.account_of(client)
    key = await account.create_key(environment=call.environment)
    platform.provider.seen.clear()
    platform.provider.faults.clear()
    platform.provider.faults.extend(_FAULTS[call.fault] * 9)
    sent = {"function": call.function, "base_url": f"{platform.url}/v1", "arguments": call.arguments}
    answers = [await ask(client, **sent, key=WRONG if call.has_wrong_key else key.raw) for _ in range(call.times)]
    assert len(platform.provider.seen) == (call.environment == "live")
    assert all(each == answers[0] for each in answers)
    images, result = await _checked(platform, call, answers[0], key)
    assert await _counted(account, key) == images
    results[client.name, call.name] = result + f"; {images} counted" * (call.times > 1 or images > 0)


async def _checked(platform: Platform, call: Call, answer: Answer, key: Key) -> tuple[int, str]:
    """Checks that the answer is what is expected. Returns how many images it is, and the answer in words."""
    if isinstance(call.expected, Refused):
        sent_key = Key(key.id, WRONG) if call.has_wrong_key else key
        sentence = await _sentence(platform, call.expected, sent_key.headers)
        assert sentence in answer["error"]
        return 0, f"{call.expected.status}: {sentence}"
    assert "error" not in answer, answer
    match call.expected:
        case Images(count, width, height, kind, member):
            assert [{*each} for each in answer["images"]] == [{member}] * count
            for each in answer["images"]:
                assert await _opened(platform, each) == (kind, (width, height))
            return count, f"{count} {kind} of {width}x{height} as `{member}`"
        case Streamed():
            *partials, last = answer["events"]
            assert len(partials) <= call.expected.partials
            assert {each["type"] for each in partials} <= {f"{call.expected.kind}.partial_image"}
            assert last["type"] == f"{call.expected.kind}.completed"
            opened = [await _opened(platform, each) for each in answer["events"]]
            assert opened[-1] == ("PNG", (1024, 1024))
            return 1, f"{len(partials)} partial images, then the image"
        case Blocked():
            assert answer["blocked"] == ["PROHIBITED_CONTENT"]
            return 0, "`PROHIBITED_CONTENT` as the reason for which the prompt was blocked"
        case Sentence():
            assert answer == {"sentence": SENTENCE}
            return 0, SENTENCE
        case Models():
            assert "nano-banana" in answer["models"]
            return 0, ", ".join(answer["models"])


async def _opened(platform: Platform, image: Mapping[str, str]) -> tuple[str | None, tuple[int, int]]:
    """The format and the size of an image, all of which can be read."""
    content = base64.b64decode(image.get("b64_json", ""))
    if "url" in image:
        content = (await platform.client.get(image["url"])).content
    with Image.open(BytesIO(content)) as opened:
        opened.load()
        return opened.format, opened.size


async def _sentence(platform: Platform, refused: Refused, headers: Mapping[str, str]) -> str:
    """The sentence of the server to the same request, sent by hand."""
    method = "POST" if refused.body else "GET"
    sent: dict[str, Any] = {"json": refused.body}
    if refused.image is not None:
        sent = {"data": refused.body, "files": {"image": refused.image}}
    answer = await platform.client.request(method, f"/v1/{refused.path}", headers=headers, **sent)
    error = answer.json()["error"]
    code = error["details"][0]["reason"] if "details" in error else error["code"]
    assert (answer.status_code, code) == (refused.status, refused.code)
    sentence: str = error["message"]
    assert refused.says in sentence
    return sentence


async def _counted(account: Account, key: Key) -> int:
    """The images that the platform says it counted for this key."""
    answer = await account.client.get(f"/v1/usage?key_id={key.id}", headers=account.headers)
    return sum(row["images"] for row in answer.json())
