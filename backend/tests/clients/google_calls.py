"""The clients of Google's interface, and what the user of each calls."""

import base64
from io import BytesIO
from typing import Any

from PIL import Image
from tests.clients.calls import BYTES, LONG, UNKNOWN, Blocked, Call, Client, Images, Models, Refused

GOOGLES = "gemini-2.5-flash-image"
ASKED = {"model": GOOGLES, "prompt": "A cute banana"}


def _photograph() -> str:
    encoded = BytesIO()
    Image.new("RGB", (96, 64), "red").save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


EDIT = {**ASKED, "images": [_photograph()]}
EDITED = Images(width=1536, member="b64_json")
OURS = {**ASKED, "model": "nano-banana"}
UNKNOWN_MODEL = {**ASKED, "model": UNKNOWN}
TOO_LONG = {**ASKED, "prompt": LONG}
WIDE = Images(width=1280, height=720, member="b64_json")


def _refused(status: int, code: str, *, prompt: str = "A cute banana", model: str = GOOGLES, says: str = "") -> Refused:
    body = {"contents": [{"parts": [{"text": prompt}]}]}
    return Refused(status, code, body, f"models/{model}:generateContent", says)


WRONG_KEY = _refused(401, "invalid_api_key")
NO_MODEL = _refused(404, "model_not_found", model=UNKNOWN, says="nano-banana")
TOO_LONG_PROMPT = _refused(400, "validation_error", prompt=LONG, says="characters")
FAILED = _refused(502, "provider_failed")


def _google_genai(*more: Call, config: dict[str, Any]) -> list[Call]:
    """Of Google's SDKs. A configuration's names are written as in the language of each."""
    return [
        Call("model gemini-2.5-flash-image", ASKED, BYTES),
        Call("model nano-banana", OURS, BYTES),
        Call("through a provider", ASKED, BYTES, environment="live"),
        Call("ratio 16:9", {**ASKED, "config": config}, WIDE),
        Call("an image to change", EDIT, EDITED),
        Call("an image to change through a provider", EDIT, EDITED, environment="live"),
        Call("chat of two turns", ASKED, Images(2, member="b64_json"), "chat"),
        Call("stream", ASKED, BYTES, "stream"),
        Call("stream through a provider", ASKED, BYTES, "stream", "live"),
        *more,
        Call("list of models", {}, Models(), "models"),
        Call("one model", {"model": "nano-banana"}, Models(), "model"),
        Call("wrong key", ASKED, WRONG_KEY, has_wrong_key=True),
        Call("stream with a wrong key", ASKED, WRONG_KEY, "stream", has_wrong_key=True),
        Call("unknown model", UNKNOWN_MODEL, NO_MODEL),
        Call("prompt of 36,000 characters", TOO_LONG, TOO_LONG_PROMPT),
        Call("provider that fails", ASKED, FAILED, environment="live", fault="fails"),
        Call("provider that refuses", ASKED, Blocked(), environment="live", fault="refuses"),
    ]


_PYTHON_CONFIG = {"response_modalities": ["TEXT", "IMAGE"], "image_config": {"aspect_ratio": "16:9"}}
_JS_CONFIG = {"responseModalities": ["TEXT", "IMAGE"], "imageConfig": {"aspectRatio": "16:9"}}
_IMAGEN = {"model": "imagen-4.0-generate-001", "prompt": "A cute banana"}
_TWO_JPEGS = {"number_of_images": 2, "output_mime_type": "image/jpeg", "include_rai_reason": True}
_IMAGEN_CALLS = [
    Call("generate_images", _IMAGEN, BYTES, "imagen"),
    Call(
        "generate_images, two JPEGs",
        {**_IMAGEN, "config": _TWO_JPEGS},
        Images(2, format="JPEG", member="b64_json"),
        "imagen",
    ),
    Call("generate_images through a provider", _IMAGEN, BYTES, "imagen", "live"),
]
_ONCE = {"headers": {"Idempotency-Key": "once"}}
_AI_SDK = [
    Call("generateImage", ASKED, BYTES, "image"),
    Call("generateImage through a provider", ASKED, BYTES, "image", "live"),
    Call("generateImage, ratio 16:9", {**ASKED, "aspectRatio": "16:9"}, WIDE, "image"),
    Call("generateImage with an image to change", EDIT, EDITED, "image"),
    Call("generateText", ASKED, BYTES, "text"),
    Call("generateText with an image to change", EDIT, EDITED, "text"),
    Call("streamText", ASKED, BYTES, "stream"),
    Call("streamText through a provider", ASKED, BYTES, "stream", "live"),
    Call("Idempotency-Key, sent twice", {**ASKED, **_ONCE}, BYTES, "text", times=2),
    Call("wrong key", ASKED, WRONG_KEY, "image", has_wrong_key=True),
    Call("streamText with a wrong key", ASKED, WRONG_KEY, "stream", has_wrong_key=True),
    Call("unknown model", UNKNOWN_MODEL, NO_MODEL, "text"),
    Call("prompt of 36,000 characters", TOO_LONG, TOO_LONG_PROMPT, "text"),
    Call("maxRetries: 0, provider that fails", {**ASKED, "maxRetries": 0}, FAILED, "image", "live", fault="fails"),
]
_LITELLM = [
    Call("image_generation", {**ASKED, "model": f"gemini/{GOOGLES}"}, BYTES, "gemini"),
    Call("image_generation through a provider", {**ASKED, "model": f"gemini/{GOOGLES}"}, BYTES, "gemini", "live"),
    Call(
        "image_generation of Imagen, n=2",
        {**ASKED, "model": "gemini/imagen-4.0-generate-001", "n": 2},
        Images(2, member="b64_json"),
        "gemini",
    ),
    Call("image_edit", {**EDIT, "model": f"gemini/{GOOGLES}"}, EDITED, "gemini_edit"),
    Call("completion", {**ASKED, "model": f"gemini/{GOOGLES}"}, BYTES, "gemini_chat"),
    Call("completion with an image to change", {**EDIT, "model": f"gemini/{GOOGLES}"}, EDITED, "gemini_chat"),
    Call("wrong key", {**ASKED, "model": f"gemini/{GOOGLES}"}, WRONG_KEY, "gemini", has_wrong_key=True),
    Call("provider that fails", {**ASKED, "model": f"gemini/{GOOGLES}"}, FAILED, "gemini", "live", fault="fails"),
]

_PYTHON = _google_genai(config=_PYTHON_CONFIG)
CLIENTS = [
    Client("Google Gen AI for Python", "google-genai", "python", "google_genai.py", _PYTHON),
    Client(
        "Google Gen AI for Python, 1.x",
        "google-genai",
        "python-previous",
        "google_genai.py",
        _google_genai(*_IMAGEN_CALLS, config=_PYTHON_CONFIG),
    ),
    Client(
        "Google Gen AI for JavaScript", "@google/genai", "node", "google_genai.mjs", _google_genai(config=_JS_CONFIG)
    ),
    Client("AI SDK, google", "@ai-sdk/google", "node", "ai_sdk_google.mjs", _AI_SDK),
    Client("AI SDK, google, 3.x", "@ai-sdk/google", "node-previous", "ai_sdk_google.mjs", _AI_SDK),
    Client("litellm, gemini", "litellm", "python", "litellm_sdk.py", _LITELLM),
]
