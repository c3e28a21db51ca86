"""A stand-in for the Gemini API: models and `generateContent` as Google serves them, and faults on demand."""

import asyncio
import base64
import re
import zlib
from collections import deque
from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import Any

from PIL import Image
from tests.standins.wire import Reply, Seen, json_reply

MODEL = "gemini-2.5-flash-image"

_TARGET = re.compile(r"/(v1|v1beta)/models/([\w.-]+)(:generateContent)?")
_PIXELS = {
    "1:1": (1024, 1024),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "3:4": (896, 1200),
    "4:3": (1200, 896),
    "4:5": (928, 1152),
    "5:4": (1152, 928),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
}
IMAGE_BYTES_MAX, REQUEST_BYTES_MAX = 7_000_000, 20_000_000
_SCALES = {"1K": 1, "2K": 2, "4K": 4}
_KNOWN = {
    "": {"contents", "generationConfig", "safetySettings", "systemInstruction"},
    "generationConfig": {"responseModalities", "imageConfig", "candidateCount", "temperature", "seed"},
    "imageConfig": {"aspectRatio", "imageSize"},
}


@cache
def image_bytes(width: int, height: int, kind: str = "PNG") -> bytes:
    """An image of that size, whose colours differ from corner to corner."""
    encoded = BytesIO()
    gradient = Image.linear_gradient("L").resize((width, height))
    Image.merge("RGB", (gradient, gradient.transpose(Image.Transpose.ROTATE_180), gradient)).save(encoded, kind)
    return encoded.getvalue()


def with_damaged_pixels(png: bytes) -> bytes:
    """The PNG with a damaged deflate stream under a right checksum: what a wrong encoder sends, and no broken line."""
    begin = png.index(b"IDAT") + 4
    end = begin + int.from_bytes(png[begin - 8 : begin - 4])
    data = bytearray(png[begin:end])
    data[len(data) // 2 : len(data) // 2 + 64] = b"\xff" * 64
    return png[:begin] + data + zlib.crc32(b"IDAT" + data).to_bytes(4) + png[end + 4 :]


def webp_without_pixels(width: int, height: int) -> bytes:
    """A lossless WebP of that size whose structure is whole, and which no decoder reads."""
    frame = b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + b"\xff" * 99
    body = b"WEBPVP8L" + len(frame).to_bytes(4, "little") + frame
    return b"RIFF" + len(body).to_bytes(4, "little") + body


class GeminiStandIn:
    """Draws for callers with the key. Replies in `faults` are sent first, one for each call."""

    def __init__(self, *, api_key: str, model: str = MODEL) -> None:
        self.seen: list[Seen] = []
        self.faults: deque[Reply] = deque()
        self._api_key = api_key
        self._model = model

    def answer(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        return self._refusal(seen) or (self.faults.popleft() if self.faults else self._reply(seen))

    def _reply(self, seen: Seen) -> Reply:
        if seen.method == "GET":
            return json_reply({"name": f"models/{self._model}", "supportedGenerationMethods": ["generateContent"]})
        return drawn(_image(seen.json()))

    def _refusal(self, seen: Seen) -> Reply | None:
        match, key = _TARGET.fullmatch(seen.path), seen.headers.get("x-goog-api-key")
        if key is None:
            return failed(403, "PERMISSION_DENIED")
        if key != self._api_key:
            return failed(400, "INVALID_ARGUMENT", {"@type": f"{_RPC}.ErrorInfo", "reason": "API_KEY_INVALID"})
        if match is None or seen.method != ("POST" if match[3] else "GET") or match[2] != self._model:
            return failed(404, "NOT_FOUND")
        if len(seen.body) > REQUEST_BYTES_MAX:
            return failed(413, "INVALID_ARGUMENT")
        return None if seen.method == "GET" or _is_understood(seen.json()) else failed(400, "INVALID_ARGUMENT")


_RPC = "type.googleapis.com/google.rpc"


def drawn(image: bytes, *, media_type: str = "image/png", thought: bytes | None = None) -> Reply:
    """A reply with an image, after a sketch that the model made while it thought."""
    final = {"inlineData": {"mimeType": media_type, "data": base64.b64encode(image).decode()}}
    sketch = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(thought or b"").decode()}}
    parts = [{"text": "Let me think", "thought": True}, {**sketch, "thought": True}] if thought else []
    return candidate("STOP", *parts, final, {"text": "Here it is", "thoughtSignature": "c2lnbmVk"})


def candidate(finish_reason: str, *parts: dict[str, Any]) -> Reply:
    """A reply whose only candidate has these parts; without parts it has no content, as with Google."""
    content = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    usage = {"promptTokenCount": 4, "candidatesTokenCount": 1290, "totalTokenCount": 1294}
    chosen = {**content, "finishReason": finish_reason, "index": 0}
    return json_reply({"candidates": [chosen], "usageMetadata": usage, "modelVersion": MODEL, "responseId": "r"})


def blocked_prompt(reason: str) -> Reply:
    """The prompt was refused before anything was drawn: there is no candidate."""
    return json_reply({"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 4}})


def failed(status: int, word: str, *details: dict[str, Any]) -> Reply:
    error = {"code": status, "message": "Words of the provider", "status": word, "details": list(details)}
    return json_reply({"error": error}, status=status)


def throttled(*, retry_delay: str | None, quota_id: str = "GenerateRequestsPerMinutePerProjectPerModel") -> Reply:
    violation = {"quotaMetric": "generativelanguage.googleapis.com/generate_requests", "quotaId": quota_id}
    details = [{"@type": f"{_RPC}.QuotaFailure", "violations": [violation]}]
    if retry_delay is not None:
        details.append({"@type": f"{_RPC}.RetryInfo", "retryDelay": retry_delay})
    return failed(429, "RESOURCE_EXHAUSTED", *details)


def html(status: int = 200) -> Reply:
    return Reply(b"<!doctype html><title>Words of the provider</title>", status, {"Content-Type": "text/html"})


def slow(gate: asyncio.Event) -> Reply:
    """A reply with an image of the usual size, once the gate is set."""
    return replace(drawn(image_bytes(1024, 1024)), gate=gate)


def _image(body: Any) -> bytes:
    asked = body.get("generationConfig", {}).get("imageConfig", {})
    width, height = _PIXELS[asked.get("aspectRatio", "1:1")]
    scale = _SCALES[asked.get("imageSize", "1K")]
    return image_bytes(width * scale, height * scale)


def _is_image(data: dict[str, str]) -> bool:
    """Whether it is a whole image of its type within the limit for one, in base64 of either alphabet."""
    try:
        content = base64.b64decode(data["data"].translate(str.maketrans("-_", "+/")), validate=True)
        with Image.open(BytesIO(content)) as image:
            image.load()
            media_type = data.get("mimeType") or data["mime_type"]
            return len(data) == 2 and media_type == Image.MIME[str(image.format)] and len(content) <= IMAGE_BYTES_MAX
    except (OSError, LookupError, ValueError):
        return False


def _is_understood(body: Any) -> bool:
    """Whether Google would accept the body: an unknown field is an error."""
    generation = body.get("generationConfig", {})
    image = generation.get("imageConfig", {})
    parts = [part for content in body.get("contents", []) for part in content.get("parts", [])]
    fields = {"": body, "generationConfig": generation, "imageConfig": image}
    return (
        all(set(found) <= _KNOWN[name] for name, found in fields.items())
        and any(part.get("text") for part in parts)
        and all(_is_image(part["inlineData"]) for part in parts if "inlineData" in part)
        and set(generation.get("responseModalities", ["IMAGE"])) <= {"IMAGE", "TEXT"}
        and image.get("aspectRatio", "1:1") in _PIXELS
        and image.get("imageSize", "1K") in _SCALES
    )
