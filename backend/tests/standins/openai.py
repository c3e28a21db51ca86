"""A stand-in for an OpenAI-compatible image endpoint and the host of its images, with faults on demand."""

import base64
import json
from collections import deque
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image
from tests.standins.forms import File, read_form
from tests.standins.gemini import image_bytes
from tests.standins.wire import Reply, Seen, json_reply

MODEL = "gpt-image-2.5-sunburst"
_KNOWN = {"model", "prompt", "n", "size", "response_format", "user"}
_OPTIONS: dict[str, set[object]] = {
    "quality": {"auto", "low", "medium", "high"},
    "background": {"auto", "opaque", "transparent"},
    "output_format": {"png", "jpeg", "webp"},
    "output_compression": set(range(101)),
    "stream": {True, False},
    "partial_images": set(range(4)),
}
IMAGES_MAX, IMAGE_BYTES_MAX = 16, 50_000_000
_DEPLOYMENT = f"/deployments/{MODEL}"
_DRAWING = {"/images/generations", "/images/edits"}
_ENDINGS = {"PNG": {"png"}, "JPEG": {"jpg", "jpeg"}, "WEBP": {"webp"}}
_SIZES = {"1024x1024", "1536x1024", "1024x1536", "auto"}


class OpenAIStandIn:
    """Draws for callers with the key, and serves images at `GET /files/...` to everybody. In Azure's way too: the key
    is in `api-key`, the version in the query, and the model in the path or, where that is `/openai/v1`, in the body.

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
        is_azure = seen.path.startswith("/openai/")
        credentials = {seen.headers.get("authorization"), f"Bearer {seen.headers.get('api-key')}" if is_azure else None}
        if f"Bearer {self._api_key}" not in credentials:
            return failed(401, "invalid_api_key")
        if is_azure and "api-version=" not in seen.target:
            return failed(404, "404")
        path = seen.path.removeprefix("/openai")
        if (seen.method, path) in {("GET", path) for path in _ABOUT_MODELS}:
            return None
        if (seen.method, path) not in {("POST", f"{base}{end}") for base in ("/v1", _DEPLOYMENT) for end in _DRAWING}:
            return failed(404, "DeploymentNotFound" if is_azure else "not_found")
        return _refusal_of_body(seen, names_model=not path.startswith(_DEPLOYMENT))


def in_place(image: bytes) -> Reply:
    """A reply that holds the image."""
    return json_reply({"created": 1713833628, "data": [{"b64_json": base64.b64encode(image).decode()}]})


def at(url: str) -> Reply:
    """A reply that holds the image's URL."""
    return json_reply({"created": 1713833628, "data": [{"url": url, "revised_prompt": "Words of the provider"}]})


def event(name: str, image: bytes, **more: object) -> bytes:
    """An event of a stream, with an image in it."""
    about = {"created_at": 1713833628, "size": "1024x1024", "quality": "high", "background": "opaque"}
    held = {"type": f"image_generation.{name}", "b64_json": base64.b64encode(image).decode(), "output_format": "png"}
    return f"event: image_generation.{name}\ndata: {json.dumps({**held, **about, **more})}\n\n".encode()


def sketch(index: int, image: bytes) -> bytes:
    """The event of a sketch."""
    return event("partial_image", image, partial_image_index=index)


def completed(image: bytes) -> bytes:
    """The event that ends a stream."""
    tokens = {"image_tokens": 0, "text_tokens": 4}
    usage = {"input_tokens": 4, "output_tokens": 1, "total_tokens": 5, "input_tokens_details": tokens}
    return event("completed", image, usage=usage)


def streamed(*events: bytes, **more: Any) -> Reply:
    return Reply(b"".join(events), headers={"Content-Type": "text/event-stream; charset=utf-8"}, **more)


def failed(status: int, code: str, *, headers: dict[str, str] | None = None) -> Reply:
    error: dict[str, Any] = {"message": "Words of the provider", "type": "some_error", "param": None, "code": code}
    reply = json_reply({"error": error}, status=status)
    return Reply(reply.content, status, {**reply.headers, **(headers or {})})


def _reply(seen: Seen) -> Reply:
    return json_reply(_ABOUT_MODELS[seen.path.removeprefix("/openai")]) if seen.method == "GET" else _drawn(seen)


def _is_edit(seen: Seen) -> bool:
    return seen.path.endswith("/images/edits")


def _body(seen: Seen) -> tuple[Any, list[File]]:
    """The parameters of a call, and its files. Raises ValueError."""
    if not _is_edit(seen):
        return seen.json(), []
    texts, files = read_form(seen)
    numbers_and_truths = {"n", "output_compression", "partial_images", "stream"}
    return {name: json.loads(text) if name in numbers_and_truths else text for name, text in texts.items()}, files


def _refusal_of_body(seen: Seen, *, names_model: bool) -> Reply | None:
    try:
        body, files = _body(seen)
    except ValueError:
        return failed(400, "invalid_request")
    if names_model and body.get("model") != MODEL:
        return failed(404, "model_not_found")
    if not _is_understood(body):
        return failed(400, "invalid_value")
    return failed(400, "invalid_image_file") if _is_edit(seen) and not _are_inputs(files) else None


def _are_inputs(files: list[File]) -> bool:
    """Whether OpenAI would take them: one `image`, or up to 16 `image[]`, that are what they are called, and at most
    one mask, a PNG with alpha of the size of the first.
    """
    *fields, last = [each.field for each in files] or [""]
    images = fields if last == "mask" else [*fields, last]
    opened = [_opened(each) for each in files]
    if images not in (["image"], ["image[]"] * len(images)) or not 1 <= len(images) <= IMAGES_MAX or None in opened:
        return False
    return last != "mask" or (opened[0] is not None and opened[-1] == (opened[0][0], "PNG", "RGBA"))


def _opened(file: File) -> tuple[tuple[int, int], str, str] | None:
    """Size, format and mode of the image that a file is, whole, with its type and its ending; else None."""
    try:
        with Image.open(BytesIO(file.content)) as image:
            image.load()
            kind = str(image.format)
            is_so_called = file.media_type == Image.MIME[kind] and file.name.rpartition(".")[2] in _ENDINGS[kind]
            return (image.size, kind, image.mode) if is_so_called and len(file.content) < IMAGE_BYTES_MAX else None
    except (OSError, LookupError):
        return None


def _is_understood(body: Any) -> bool:
    """Whether OpenAI would accept the body: an unknown parameter is an error."""
    return (
        set(body) <= _KNOWN | set(_OPTIONS)
        and all(body[name] in values for name, values in _OPTIONS.items() if name in body)
        and bool(body.get("prompt"))
        and body.get("size", "auto") in _SIZES
    )


_MODEL = {"id": MODEL, "object": "model", "created": 1713833628, "owned_by": "openai"}
_ABOUT_MODELS: dict[str, object] = {
    f"/v1/models/{MODEL}": _MODEL,
    "/v1/models": {"object": "list", "data": [{**_MODEL, "id": "another"}, _MODEL]},
}


def _drawn(seen: Seen) -> Reply:
    body, _files = _body(seen)
    size = "1024x1024" if body.get("size", "auto") == "auto" else body["size"]
    if body.get("response_format") == "url":
        return at(f"http://{seen.headers['host']}/files/{size}.png")
    image = _pixels(size, body.get("output_format", "png"))
    if body.get("stream"):
        sketches = [sketch(index, image_bytes(64 + index, 64)) for index in range(body.get("partial_images", 0))]
        reply = streamed(*sketches, completed(image))
        is_edit = _is_edit(seen)
        return replace(reply, content=reply.content.replace(b"image_generation.", b"image_edit.")) if is_edit else reply
    return in_place(image)


def _file(target: str) -> Reply:
    return Reply(_pixels(target.removeprefix("/files/").removesuffix(".png")), 200, {"Content-Type": "image/png"})


def _pixels(size: str, kind: str = "png") -> bytes:
    width, _, height = size.partition("x")
    return image_bytes(int(width), int(height), kind.upper())
