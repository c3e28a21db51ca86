"""The clients of OpenAI's interface, what the user of each calls, and what that user must get."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.clients.environments import LOCKED

BANANA = {"prompt": "A cute banana"}
OURS = {**BANANA, "model": "nano-banana"}
LITELLM = {**BANANA, "model": "openai/nano-banana"}
ONCE = {"Idempotency-Key": "once"}
LONG = "An elephant, then " * 2000  # 36,000 characters
UNKNOWN = "no-such-model"
WITH_MASKS = "retoucher"
"""The platform's second model, which takes masks."""


@dataclass(frozen=True)
class Images:
    """Images that open as what was asked for, each counted once."""

    count: int = 1
    width: int = 1024
    height: int = 1024
    format: str = "PNG"
    member: str = "url"


@dataclass(frozen=True)
class Refused:
    """An error that shows the sentence of the server, which counts nothing. `path` and `body` get the same sentence:
    JSON, or with an `image` a form.
    """

    status: int
    code: str
    body: dict[str, Any] | None = None
    path: str = "images/generations"
    says: str = ""
    image: bytes | None = None


@dataclass(frozen=True)
class Streamed:
    """At most `partials` partial images, then the image, counted once, as events of this kind."""

    partials: int
    kind: str = "image_generation"


@dataclass(frozen=True)
class Blocked:
    """What Google's clients show of a refusal by the provider's policy, which counts nothing."""


@dataclass(frozen=True)
class Sentence:
    """The sentence that a chat gets which asks for text, and which counts nothing."""


@dataclass(frozen=True)
class Models:
    """Ids, among them the platform's own."""


@dataclass(frozen=True)
class Call:
    """What a client's user calls: a function of the client's script, with these arguments.

    `environment` is the key's. A provider with a `fault` has it whenever it is asked; it must be asked once. The user
    calls `times` times.
    """

    name: str
    arguments: dict[str, Any]
    expected: Images | Refused | Streamed | Blocked | Sentence | Models
    function: str = "generate"
    environment: str = "test"
    has_wrong_key: bool = False
    fault: Literal["", "fails", "refuses"] = ""
    times: int = 1


@dataclass(frozen=True)
class Client:
    """A client: `script` drives the `package` that is installed in `environment`."""

    name: str
    package: str
    environment: str
    script: str
    calls: Sequence[Call] = field(repr=False)

    @property
    def version(self) -> str:
        """The one that is locked."""
        if self.script.endswith(".mjs"):
            lock = json.loads((LOCKED / self.environment / "package-lock.json").read_text())
            version: str = lock["packages"][f"node_modules/{self.package}"]["version"]
            return version
        [version] = re.findall(
            rf"^{self.package}==(\S+)", (LOCKED / f"{self.environment}.txt").read_text(), re.MULTILINE
        )
        return version


WRONG_KEY = Refused(401, "invalid_api_key", BANANA)
UNKNOWN_MODEL = Refused(404, "model_not_found", {**BANANA, "model": UNKNOWN}, says="nano-banana")
NO_SUCH_MODEL = Refused(404, "model_not_found", path=f"models/{UNKNOWN}")
UNKNOWN_PARAMETER = Refused(400, "unsupported_parameter", {**BANANA, "seed": 1})
TOO_LONG = Refused(422, "validation_error", {"prompt": LONG}, says="characters")
TRANSPARENT = Refused(400, "unsupported_parameter", {**BANANA, "background": "transparent"})
FAILED = Refused(502, "provider_failed", BANANA)
AGAINST_POLICY = Refused(400, "content_policy_violation", BANANA)
OPTIONS = {"quality": "high", "background": "opaque", "moderation": "low", "user": "ada"}
COMPRESSION = "output_compression"
LARGE = {"size": "1536x1024"}
WIDE = Images(width=1536)
BYTES = Images(member="b64_json")


def _ai_sdk(function: str) -> list[Call]:
    """Of the AI SDK, which shows its user bytes, however it got them."""
    transparent = {**OURS, "options": {"background": "transparent"}}
    options = {**OPTIONS, "outputCompression" if function == "openai" else COMPRESSION: 100}
    return [
        Call("model nano-banana", OURS, BYTES, function),
        Call("through a provider", OURS, BYTES, function, "live"),
        Call("n=2", {**OURS, "n": 2}, Images(2, member="b64_json"), function),
        Call("size 1536x1024", {**OURS, **LARGE}, Images(width=1536, member="b64_json"), function),
        Call("model gpt-image-1", {**BANANA, "model": "gpt-image-1"}, BYTES, function),
        Call("model dall-e-3", {**BANANA, "model": "dall-e-3", "options": {"style": "vivid"}}, BYTES, function),
        Call("options of gpt-image-1", {**OURS, "options": options}, BYTES, function),
        Call("Idempotency-Key, sent twice", {**OURS, "headers": ONCE}, BYTES, function, times=2),
        Call("wrong key", OURS, WRONG_KEY, function, has_wrong_key=True),
        Call("unknown model", {**BANANA, "model": UNKNOWN}, UNKNOWN_MODEL, function),
        Call("background transparent", transparent, TRANSPARENT, function),
        Call("prompt of 36,000 characters", {**OURS, "prompt": LONG}, TOO_LONG, function),
        Call("maxRetries: 0, provider that fails", {**OURS, "maxRetries": 0}, FAILED, function, "live", fault="fails"),
        Call("provider that refuses", OURS, AGAINST_POLICY, function, "live", fault="refuses"),
    ]


_OPENAI = [
    Call("nothing but a prompt", BANANA, Images()),
    Call("through a provider", BANANA, Images(), environment="live"),
    Call("n=2", {**BANANA, "n": 2}, Images(2)),
    Call("size 1536x1024", {**BANANA, **LARGE}, WIDE),
    Call("response_format b64_json", {**BANANA, "response_format": "b64_json"}, BYTES),
    Call("output_format webp", {**BANANA, "output_format": "webp"}, Images(format="WEBP")),
    Call("model nano-banana", OURS, Images()),
    Call("model gpt-image-1", {**BANANA, "model": "gpt-image-1"}, BYTES),
    Call("model gpt-image-1-mini", {**BANANA, "model": "gpt-image-1-mini", "size": "auto"}, BYTES),
    Call("model dall-e-3", {**BANANA, "model": "dall-e-3", "style": "vivid", "quality": "hd"}, Images()),
    Call(
        "options of gpt-image-1",
        {**BANANA, **OPTIONS, "output_format": "jpeg", COMPRESSION: 100},
        Images(format="JPEG"),
    ),
    Call("prompt of 5,000 characters", {"prompt": LONG[:5000]}, Images()),
    Call("stream with two partial images", {**BANANA, "partial_images": 2}, Streamed(2), "stream"),
    Call("stream", BANANA, Streamed(0), "stream"),
    Call("stream through a provider", {**BANANA, "partial_images": 2}, Streamed(2), "stream", "live"),
    Call("stream with a wrong key", BANANA, WRONG_KEY, "stream", has_wrong_key=True),
    Call("list of models", {}, Models(), "models"),
    Call("one model", {"model": "nano-banana"}, Models(), "model"),
    Call("Idempotency-Key, sent twice", {**BANANA, "extra_headers": ONCE}, Images(), times=2),
    Call("asynchronous, n=2", {**BANANA, "n": 2}, Images(2), "later"),
    Call("wrong key", BANANA, WRONG_KEY, has_wrong_key=True),
    Call("unknown model", {**BANANA, "model": UNKNOWN}, UNKNOWN_MODEL),
    Call("one unknown model", {"model": UNKNOWN}, NO_SUCH_MODEL, "model"),
    Call("background transparent", {**BANANA, "background": "transparent"}, TRANSPARENT),
    Call("unknown parameter", {**BANANA, "extra_body": {"seed": 1}}, UNKNOWN_PARAMETER),
    Call("prompt of 36,000 characters", {"prompt": LONG}, TOO_LONG),
    Call("provider that fails", BANANA, FAILED, environment="live", fault="fails"),
    Call("provider that refuses", BANANA, AGAINST_POLICY, environment="live", fault="refuses"),
]
"""Of OpenAI's SDKs, whose arguments are the same in Python and Node."""
_LANGCHAIN_PYTHON = [
    Call("model dall-e-2", BANANA, Images()),
    Call("model nano-banana", OURS, Images()),
    Call("through a provider", OURS, Images(), environment="live"),
    Call("n=2", {**OURS, "n": 2}, Images(2)),
    Call("size 1536x1024", {**OURS, **LARGE}, WIDE),
    Call("model dall-e-3", {**BANANA, "model": "dall-e-3", "quality": "hd"}, Images()),
    Call("wrong key", BANANA, WRONG_KEY, has_wrong_key=True),
    Call("unknown model", {**BANANA, "model": UNKNOWN}, UNKNOWN_MODEL),
    Call("prompt of 36,000 characters", {**OURS, "prompt": LONG}, TOO_LONG),
    Call("provider that fails", OURS, FAILED, environment="live", fault="fails"),
    Call("provider that refuses", OURS, AGAINST_POLICY, environment="live", fault="refuses"),
]
_LANGCHAIN_JS = [
    Call("nothing but a prompt", BANANA, Images()),
    Call("model nano-banana", OURS, Images()),
    Call("through a provider", OURS, Images(), environment="live"),
    Call("n=2", {**OURS, "n": 2}, Images(2)),
    Call("size 1536x1024", {**OURS, **LARGE}, WIDE),
    Call("response_format b64_json", {**BANANA, "dallEResponseFormat": "b64_json"}, BYTES),
    Call(
        "chat of two turns, the first with ratio 16:9",
        {**OURS, "first": {"image_config": {"aspect_ratio": "16:9"}}},
        Images(2, width=1280, height=720, member="b64_json"),
        "chat",
    ),
    Call("wrong key", BANANA, WRONG_KEY, has_wrong_key=True),
    Call("unknown model", {**BANANA, "model": UNKNOWN}, UNKNOWN_MODEL),
    Call("prompt of 36,000 characters", {**OURS, "prompt": LONG}, TOO_LONG),
    Call("provider that fails", OURS, FAILED, environment="live", fault="fails"),
    Call("provider that refuses", OURS, AGAINST_POLICY, environment="live", fault="refuses"),
]
_LITELLM = [
    Call("model nano-banana", LITELLM, Images()),
    Call("through a provider", LITELLM, Images(), environment="live"),
    Call("n=2", {**LITELLM, "n": 2}, Images(2)),
    Call("size 1536x1024", {**LITELLM, **LARGE}, WIDE),
    Call("model gpt-image-1", {**BANANA, "model": "openai/gpt-image-1"}, BYTES),
    Call("model dall-e-3", {**BANANA, "model": "openai/dall-e-3", "quality": "hd"}, Images()),
    Call("list of models", {}, Models(), "models"),
    Call("wrong key", LITELLM, WRONG_KEY, has_wrong_key=True),
    Call("unknown model", {**BANANA, "model": f"openai/{UNKNOWN}"}, UNKNOWN_MODEL),
    Call("prompt of 36,000 characters", {**LITELLM, "prompt": LONG}, TOO_LONG),
    Call("provider that fails", LITELLM, FAILED, environment="live", fault="fails"),
    Call("provider that refuses", LITELLM, AGAINST_POLICY, environment="live", fault="refuses"),
]

_COMPATIBLE = "@ai-sdk/openai-compatible"
CLIENTS = [
    Client("openai for Python", "openai", "python", "openai_sdk.py", _OPENAI),
    Client("openai for Python, 1.x", "openai", "python-previous", "openai_sdk.py", _OPENAI),
    Client("LangChain for Python", "langchain-community", "python", "langchain_wrapper.py", _LANGCHAIN_PYTHON),
    Client("litellm", "litellm", "python", "litellm_sdk.py", _LITELLM),
    Client("openai for Node", "openai", "node", "openai_sdk.mjs", _OPENAI),
    Client("openai for Node, 6.x", "openai", "node-previous", "openai_sdk.mjs", _OPENAI),
    Client("AI SDK, openai", "@ai-sdk/openai", "node", "ai_sdk.mjs", _ai_sdk("openai")),
    Client("AI SDK, openai, 3.x", "@ai-sdk/openai", "node-previous", "ai_sdk.mjs", _ai_sdk("openai")),
    Client("AI SDK, compatible", _COMPATIBLE, "node", "ai_sdk.mjs", _ai_sdk("compatible")),
    Client("AI SDK, compatible, 2.x", _COMPATIBLE, "node-previous", "ai_sdk.mjs", _ai_sdk("compatible")),
    Client("LangChain for JavaScript", "@langchain/openai", "node", "langchain_wrapper.mjs", _LANGCHAIN_JS),
]
