"""What is not known is ignored, whatever it holds and wherever it stands: versions of Google's clients differ."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import httpx2
import pytest
from tests.features.gemini.asked import ask, image_in, inline, opened, png
from tests.harness import JSON, Account

VALUES: Sequence[Any] = (
    None,
    True,
    0,
    -1.5e300,
    "",
    "\0",
    "a" * 1000,
    [],
    [[{}]],
    {},
    {"unknown": {"unknown": [None]}},
)
CONTENT: JSON = {
    "contents": [
        {"role": "user", "parts": [{"text": "A cute banana"}, {"inlineData": {"data": inline(png("red", 64, 64))}}]},
        {"role": "model", "parts": [{"text": "Which one?"}]},
        {"parts": [{"text": "Both"}]},
    ],
    "systemInstruction": {"parts": [{"text": "Paint"}]},
    "generationConfig": {"imageConfig": {"aspectRatio": "1:1"}, "responseModalities": ["IMAGE"]},
}
PREDICT: JSON = {
    "instances": [{"prompt": "A cute banana"}],
    "parameters": {"sampleCount": 1, "outputOptions": {"mimeType": "image/png"}},
}


def objects(value: Any) -> Iterator[JSON]:
    """Every object in the value, from the outermost on."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(child)


def with_unknown(body: JSON) -> JSON:
    """The body with each of the values under a name that is not known, in every object of it."""
    changed = copy.deepcopy(body)
    for each in list(objects(changed)):
        each.update({f"unknown_{number}": value for number, value in enumerate(VALUES)})
        each.update({"": 1, "$schema": "a", "tools": 1})
    return changed


@pytest.mark.parametrize(("method", "body"), [("generateContent", CONTENT), ("predict", PREDICT)])
async def test_unknown_members_of_every_type_at_every_depth_change_nothing(
    client: httpx2.AsyncClient, account: Account, method: str, body: JSON
) -> None:
    key = await account.create_key(environment="test")
    plain = (await ask(client, key, body, method=method, once="once")).json()
    answer = await ask(client, key, with_unknown(body), method=method, once="once")
    assert answer.status_code == 200, answer.text
    assert answer.headers["idempotent-replayed"] == "true", "it is the same request"
    assert answer.json() == plain
    image = image_in(plain) if method == "generateContent" else plain["predictions"][0]["bytesBase64Encoded"]
    assert opened(image) == ("PNG", (1024, 1024))
    assert len(list(objects(body))) >= 3
