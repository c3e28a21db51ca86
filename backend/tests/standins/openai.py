"""A stand-in for an OpenAI-compatible image endpoint and the host of its images, with faults on demand."""

import base64
from collections import deque
from typing import Any

from tests.standins.gemini import image_bytes
from tests.standins.wire import Reply, Seen, json_reply

MODEL = "gpt-image-2.5-sunburst"
_KNOWN = {"model", "prompt", "n", "size", "quality", "response_format", "output_format", "user", "background"}
_SIZES = {"1024x1024", "1536x1024", "1024x1536", "auto"}


class OpenAIStandIn:
    """Draws for callers with the key, and serves images at `GET /files/...` to everybody.

    Replies in `faults` are sent first, one for each call; those in `file_faults` likewise for the files.
    """

    def __init__(self, *, api_key: str) -> None:
        self.seen: list[Seen] = []
        self.faults: deque[Reply] = deque()
        self.file_faults: deque[Reply] = deque()
        self._api_key = api_key

    def answer(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        if seen.method == "GET" and seen.target.startswith("/files/"):
            return self.file_faults.popleft() if self.file_faults else _file(seen.target)
        return self._refusal(seen) or (self.faults.popleft() if self.faults else _reply(seen))

    def _refusal(self, seen: Seen) -> Reply | None:
        if seen.headers.get("authorization") != f"Bearer {self._api_key}":
            return failed(401, "invalid_api_key")
        if (seen.method, seen.path) in {("GET", path) for path in _ABOUT_MODELS}:
            return None
        if (seen.method, seen.path) != ("POST", "/v1/images/generations"):
            return failed(404, "not_found")
        body = seen.json()
        if body.get("model") != MODEL:
            return failed(404, "model_not_found")
        understood = set(body) <= _KNOWN and body.get("prompt") and body.get("size", "auto") in _SIZES
        return None if understood else failed(400, "invalid_value")


def in_place(image: bytes) -> Reply:
    """A reply that holds the image."""
    return json_reply({"created": 1713833628, "data": [{"b64_json": base64.b64encode(image).decode()}]})


def at(url: str) -> Reply:
    """A reply that holds the image's URL."""
    return json_reply({"created": 1713833628, "data": [{"url": url, "revised_prompt": "Words of the provider"}]})


def failed(status: int, code: str, *, headers: dict[str, str] | None = None) -> Reply:
    error: dict[str, Any] = {"message": "Words of the provider", "type": "some_error", "param": None, "code": code}
    reply = json_reply({"error": error}, status=status)
    return Reply(reply.content, status, {**reply.headers, **(headers or {})})


def _reply(seen: Seen) -> Reply:
    return json_reply(_ABOUT_MODELS[seen.path]) if seen.method == "GET" else _drawn(seen)


_MODEL = {"id": MODEL, "object": "model", "created": 1713833628, "owned_by": "openai"}
_ABOUT_MODELS: dict[str, object] = {
    f"/v1/models/{MODEL}": _MODEL,
    "/v1/models": {"object": "list", "data": [{**_MODEL, "id": "another"}, _MODEL]},
}


def _drawn(seen: Seen) -> Reply:
    body = seen.json()
    size = "1024x1024" if body.get("size", "auto") == "auto" else body["size"]
    if body.get("response_format") == "url":
        return at(f"http://{seen.headers['host']}/files/{size}.png")
    return in_place(_pixels(size))


def _file(target: str) -> Reply:
    return Reply(_pixels(target.removeprefix("/files/").removesuffix(".png")), 200, {"Content-Type": "image/png"})


def _pixels(size: str) -> bytes:
    width, _, height = size.partition("x")
    return image_bytes(int(width), int(height))
