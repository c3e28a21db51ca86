"""Edits by clients of OpenAI's interface, and the clients of OpenRouter's; and what the user of each calls."""

from base64 import b64encode
from io import BytesIO
from typing import Any

from PIL import Image
from tests.clients.calls import (
    BANANA,
    BYTES,
    COMPRESSION,
    LARGE,
    ONCE,
    UNKNOWN,
    WIDE,
    WITH_MASKS,
    Call,
    Client,
    Images,
    Refused,
    Sentence,
    Streamed,
)


def _png(colour: str, *, alpha: int | None = None) -> str:
    """A PNG of 96x64 in base64, with a mask's alpha if it is to have any."""
    encoded, image = BytesIO(), Image.new("RGB", (96, 64), colour)
    if alpha is not None:
        image.putalpha(alpha)
    image.save(encoded, "PNG")
    return b64encode(encoded.getvalue()).decode()


YELLOW, BLUE, MASK = _png("yellow"), _png("blue"), _png("black", alpha=0)
_NO_IMAGE = b"no image"
NO_IMAGE = b64encode(_NO_IMAGE).decode()
LIKE_THE_IMAGE = Images(width=1536, member="b64_json")
SQUARE = {"size": "1024x1024"}
ONE = {**BANANA, **SQUARE, "images": [YELLOW]}
TWO = {**BANANA, **SQUARE, "images": [YELLOW, BLUE]}
MASKED = {**TWO, "mask": MASK, "model": WITH_MASKS}


def _refused(status: int, code: str, *, says: str = "", **more: Any) -> Refused:
    image = {"image_url": f"data:image/png;base64,{YELLOW}"}
    return Refused(status, code, {**BANANA, "images": [image], **more}, "images/edits", says)


WRONG_KEY = _refused(401, "invalid_api_key")
NOT_AN_IMAGE = Refused(422, "validation_error", BANANA, "images/edits", image=_NO_IMAGE)
NO_MASK = _refused(422, "validation_error", mask={"image_url": f"data:image/png;base64,{MASK}"}, says="mask")
UNKNOWN_MODEL = _refused(404, "model_not_found", model=UNKNOWN, says="nano-banana")
FAILED = _refused(502, "provider_failed")
_OPTIONS = {"model": "gpt-image-1", "quality": "high", "background": "opaque", "input_fidelity": "high"}

_OPENAI = [
    Call("edit of a file", {**BANANA, "images": [YELLOW]}, LIKE_THE_IMAGE, "edit"),
    Call("edit of a file stream", {**ONE, "as_stream": True}, BYTES, "edit"),
    Call("edit of two files with a mask, n=2", {**MASKED, "n": 2}, Images(2, member="b64_json"), "edit"),
    Call("edit with a mask that the model does not take", {**TWO, "mask": MASK}, NO_MASK, "edit"),
    Call(
        "edit with the options of gpt-image-1",
        {**ONE, **_OPTIONS, "output_format": "webp", COMPRESSION: 100},
        Images(format="WEBP", member="b64_json"),
        "edit",
    ),
    Call("edit with response_format url", {**ONE, "response_format": "url"}, Images(), "edit"),
    Call("edit through a provider", TWO, BYTES, "edit", "live"),
    Call("edit as a stream", {**ONE, "partial_images": 2}, Streamed(2, "image_edit"), "edit_stream"),
    Call("edit with an Idempotency-Key, sent twice", {**ONE, "extra_headers": ONCE}, BYTES, "edit", times=2),
    Call("edit of what is no image", {**BANANA, "images": [NO_IMAGE]}, NOT_AN_IMAGE, "edit"),
    Call("edit with a wrong key", ONE, WRONG_KEY, "edit", has_wrong_key=True),
    Call("edit by an unknown model", {**ONE, "model": UNKNOWN}, UNKNOWN_MODEL, "edit"),
    Call("edit by a provider that fails", ONE, FAILED, "edit", "live", fault="fails"),
]
_LITELLM = [
    Call("edit of a file", {**ONE, "model": "openai/nano-banana"}, BYTES, "edit"),
    Call("edit of two files with a mask", {**MASKED, "model": f"openai/{WITH_MASKS}"}, BYTES, "edit"),
    Call("edit, gpt-image-1", {**TWO, "model": "openai/gpt-image-1"}, BYTES, "edit"),
    Call("edit through a provider", {**ONE, "model": "openai/nano-banana"}, BYTES, "edit", "live"),
    Call(
        "edit of what is no image", {**ONE, "model": "openai/nano-banana", "images": [NO_IMAGE]}, NOT_AN_IMAGE, "edit"
    ),
    Call("edit, openrouter/", {**TWO, "model": "openrouter/nano-banana"}, BYTES, "edit"),
]
_OURS = {"model": "nano-banana"}


def _ai_sdk(function: str) -> list[Call]:
    return [
        Call("edit of an image", {**ONE, **_OURS}, BYTES, function),
        Call("edit of two images with a mask", MASKED, BYTES, function),
        Call("edit through a provider", {**TWO, **_OURS}, BYTES, function, "live"),
        Call("edit of what is no image", {**ONE, **_OURS, "images": [NO_IMAGE]}, NOT_AN_IMAGE, function),
    ]


_ASKED = {**BANANA, **_OURS}
_BODY = {**_ASKED, "n": 1}
_MODALITIES = {"modalities": ["image", "text"]}
_OPENROUTER = [
    Call("generateImage", _ASKED, BYTES, "image"),
    Call("generateImage through a provider", _ASKED, BYTES, "image", "live"),
    Call("generateImage, n=2", {**_ASKED, "n": 2}, Images(2, member="b64_json"), "image"),
    Call("generateImage, size 1536x1024", {**_ASKED, **LARGE}, Images(width=WIDE.width, member="b64_json"), "image"),
    Call(
        "generateImage, ratio 16:9",
        {**_ASKED, "aspectRatio": "16:9"},
        Images(width=1280, height=720, member="b64_json"),
        "image",
    ),
    Call("generateImage from an image", {**_ASKED, "images": [YELLOW]}, LIKE_THE_IMAGE, "image"),
    Call("generateText with modalities", {**_ASKED, "options": _MODALITIES}, BYTES, "text"),
    Call("generateText through a provider", {**_ASKED, "options": _MODALITIES}, BYTES, "text", "live"),
    Call("generateText from an image", {**_ASKED, "images": [YELLOW], "options": _MODALITIES}, LIKE_THE_IMAGE, "text"),
    Call("streamText with modalities", {**_ASKED, "options": _MODALITIES}, BYTES, "stream"),
    Call("generateText without modalities", _ASKED, Sentence(), "text"),
    Call("wrong key", _ASKED, Refused(401, "invalid_api_key", _BODY, "images"), "image", has_wrong_key=True),
    Call(
        "unknown model",
        {**_ASKED, "model": UNKNOWN},
        Refused(404, "model_not_found", {**_BODY, "model": UNKNOWN}, "images", says="nano-banana"),
        "text",
    ),
    Call(
        "maxRetries: 0, provider that fails",
        {**_ASKED, "maxRetries": 0},
        Refused(502, "provider_failed", _BODY, "images"),
        "image",
        "live",
        fault="fails",
    ),
]

_COMPATIBLE, _OPENROUTER_SDK = "@ai-sdk/openai-compatible", "@openrouter/ai-sdk-provider"
CLIENTS = [
    Client("openai for Python", "openai", "python", "openai_sdk.py", _OPENAI),
    Client("openai for Python, 1.x", "openai", "python-previous", "openai_sdk.py", _OPENAI),
    Client("litellm", "litellm", "python", "litellm_sdk.py", _LITELLM),
    Client("openai for Node", "openai", "node", "openai_sdk.mjs", _OPENAI),
    Client("openai for Node, 6.x", "openai", "node-previous", "openai_sdk.mjs", _OPENAI),
    Client("AI SDK, openai", "@ai-sdk/openai", "node", "ai_sdk.mjs", _ai_sdk("openai")),
    Client("AI SDK, openai, 3.x", "@ai-sdk/openai", "node-previous", "ai_sdk.mjs", _ai_sdk("openai")),
    Client("AI SDK, compatible", _COMPATIBLE, "node", "ai_sdk.mjs", _ai_sdk("compatible")),
    Client("AI SDK, compatible, 2.x", _COMPATIBLE, "node-previous", "ai_sdk.mjs", _ai_sdk("compatible")),
    Client("AI SDK, openrouter", _OPENROUTER_SDK, "node", "ai_sdk_openrouter.mjs", _OPENROUTER),
]
