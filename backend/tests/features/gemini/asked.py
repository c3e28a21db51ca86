"""Requests of Google's interface as bytes on the wire, and what their answers hold."""

import base64
import os
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import httpx2
from PIL import Image
from tests.harness import JSON, Key

MODEL = "gemini-2.5-flash-image"
BANANA: JSON = {"contents": [{"role": "user", "parts": [{"text": "A cute banana"}]}]}


def google_key(key: Key) -> dict[str, str]:
    """The key, in the header that Google's clients send it in."""
    return {"x-goog-api-key": key.raw}


async def ask(
    client: httpx2.AsyncClient,
    key: Key,
    body: Any = BANANA,
    *,
    method: str = "generateContent",
    version: str = "v1beta",
    model: str = MODEL,
    once: str | None = None,
) -> httpx2.Response:
    """Asks a model by one of its methods."""
    headers = {**google_key(key), **({"Idempotency-Key": once} if once else {})}
    return await client.post(f"/{version}/models/{model}:{method}", json=body, headers=headers)


def png(colour: str, width: int = 96, height: int = 64) -> bytes:
    encoded = BytesIO()
    Image.new("RGB", (width, height), colour).save(encoded, "PNG")
    return encoded.getvalue()


def noise(width: int, height: int) -> bytes:
    """A PNG that cannot be compressed: three bytes a pixel."""
    encoded = BytesIO()
    Image.frombytes("RGB", (width, height), os.urandom(width * height * 3)).save(encoded, "PNG")
    return encoded.getvalue()


def inline(content: bytes) -> str:
    return base64.b64encode(content).decode()


def opened(encoded: str) -> tuple[str | None, tuple[int, int]]:
    """The format and the size of an image, all of which can be read."""
    with Image.open(BytesIO(base64.b64decode(encoded, validate=True))) as image:
        image.load()
        return image.format, image.size


def image_in(answer: JSON) -> str:
    """The one image of a `generateContent` answer, whose required members are where Google's clients read them."""
    [candidate] = answer["candidates"]
    assert (candidate["finishReason"], candidate["index"], candidate["content"]["role"]) == ("STOP", 0, "model")
    [part] = candidate["content"]["parts"]
    data: str = part["inlineData"]["data"]
    assert part["inlineData"]["mimeType"] == f"image/{str(opened(data)[0]).lower()}"
    assert answer["usageMetadata"] == {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}
    return data


def sent_on(body: JSON) -> tuple[str, Sequence[tuple[int, int]], tuple[str, str]]:
    """What a provider was asked for: a prompt, images that went in, by their sizes, a ratio and a size class."""
    [content] = body["contents"]
    [prompt] = [part["text"] for part in content["parts"] if "text" in part]
    images = [opened(part["inlineData"]["data"])[1] for part in content["parts"] if "inlineData" in part]
    frame = body["generationConfig"]["imageConfig"]
    return prompt, images, (frame["aspectRatio"], frame["imageSize"])
