"""Every way to ask for an image over HTTP with an API key, as one table: for what holds in all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
from tests.features.sent_images import data_url, png
from tests.harness import JSON, Key

PROMPT = "A cute banana"
_IMAGE = data_url(png())


@dataclass(frozen=True)
class Dialect:
    """A request for an image, and what comes back. `PROMPT` stands in its body for the prompt."""

    path: str
    body: JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    is_asynchronous: bool = False

    async def ask(
        self, client: httpx2.AsyncClient, key: Key, *, prompt: str = PROMPT, model: str | None = None, once: str = ""
    ) -> httpx2.Response:
        """Asks for an image of this model, by default of the default one."""
        is_googles = ":" in self.path
        body = _with_prompt(self.body, prompt)
        if model and not is_googles:
            body["model"] = model
        credential = {"x-goog-api-key": key.raw} if is_googles else key.headers
        headers = {**credential, **self.headers, **({"Idempotency-Key": once} if once else {})}
        return await client.post(self.path.format(model=model or "gemini-2.5-flash-image"), json=body, headers=headers)


def _with_prompt(value: Any, prompt: str) -> Any:
    if isinstance(value, dict):
        return {name: _with_prompt(each, prompt) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_prompt(each, prompt) for each in value]
    return prompt if value == PROMPT else value


_ASYNC = {"Prefer": "respond-async"}
_PROMPT = {"prompt": PROMPT}
_CHAT = {"messages": [{"role": "user", "content": PROMPT}], "modalities": ["image"]}
_CONTENTS = {"contents": [{"parts": [{"text": PROMPT}]}]}
_MODEL = "/v1beta/models/{model}"

DIALECTS: Mapping[str, Dialect] = {
    "native": Dialect("/v1/generate", _PROMPT),
    "native edit": Dialect("/v1/generate", {**_PROMPT, "images": [_IMAGE]}),
    "native edit asynchronous": Dialect("/v1/generate", {**_PROMPT, "images": [_IMAGE]}, _ASYNC, is_asynchronous=True),
    "native asynchronous": Dialect("/v1/generate", _PROMPT, _ASYNC, is_asynchronous=True),
    "openai": Dialect("/v1/images/generations", _PROMPT),
    "openai bytes": Dialect("/v1/images/generations", {**_PROMPT, "response_format": "b64_json"}),
    "openai stream": Dialect("/v1/images/generations", {**_PROMPT, "stream": True}),
    "openai asynchronous": Dialect("/v1/images/generations", _PROMPT, _ASYNC, is_asynchronous=True),
    "openai edit": Dialect("/v1/images/edits", {**_PROMPT, "images": [{"image_url": _IMAGE}]}),
    "openrouter": Dialect("/v1/images", _PROMPT),
    "chat": Dialect("/v1/chat/completions", _CHAT),
    "chat stream": Dialect("/v1/chat/completions", {**_CHAT, "stream": True}),
    "google": Dialect(f"{_MODEL}:generateContent", _CONTENTS),
    "google stream": Dialect(f"{_MODEL}:streamGenerateContent?alt=sse", _CONTENTS),
    "google predict": Dialect(f"{_MODEL}:predict", {"instances": [{"prompt": PROMPT}]}),
}
