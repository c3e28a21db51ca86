"""Providers as configured in production, except for their URLs and the pauses between attempts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import cycle
from typing import Any

from app.core.blobs import Blob
from app.core.images import IMAGE_FORMATS
from app.core.pinning import Resolve
from app.core.pool import BoundedPool
from app.providers import DrawRequest, InputImage, Provider, Size
from app.providers.gemini import GEMINI_SIZES, GeminiProvider, parse_frames
from app.providers.openai import OPENAI_SIZES, OpenAIProvider, parse_sizes
from app.providers.upstream import Bounds, Upstream
from PIL import Image
from pydantic import SecretStr
from tests.providers.failures import BY_NAME, Dialect
from tests.standins import gemini, openai
from tests.standins.gemini import GeminiStandIn, image_bytes
from tests.standins.openai import OpenAIStandIn
from tests.standins.wire import Reply, Seen

KEY = "canary-key-of-the-operator-0123456789"
BOUNDS = Bounds(pause_seconds=0.001, connect_seconds=20, first_byte_seconds=20)

Serve = Callable[[Callable[[Seen], Reply]], Awaitable[str]]
OpenUpstream = Callable[..., Upstream]
GeminiWithin = Callable[..., GeminiProvider]
OpenAIResolving = Callable[[Resolve | None], OpenAIProvider]
OpenAIWith = Callable[..., OpenAIProvider]


def _red_png() -> bytes:
    encoded = BytesIO()
    Image.new("RGB", (1024, 1024), "red").save(encoded, "PNG")
    return encoded.getvalue()


RED_PNG = _red_png()


def banana() -> DrawRequest:
    """A request on a budget of its own."""
    return DrawRequest("canary-prompt: a cute banana", Size(1024, 1024))


def edit(number: int, *, has_mask: bool = False, **more: Any) -> DrawRequest:
    """A request with so many images of different formats and contents, on a budget of its own."""
    sizes = [Size(96 + n, 64) for n in range(number)]
    images = [
        InputImage(Blob(image_bytes(*size, image_format.upper())), image_format, size)
        for size, image_format in zip(sizes, cycle(IMAGE_FORMATS), strict=False)
    ]
    return replace(banana(), images=images, mask=mask_of(sizes[0]) if has_mask else None, **more)


def mask_of(size: Size) -> InputImage:
    """The left half may change."""
    mask = Image.new("RGBA", size, "black")
    mask.paste((0, 0, 0, 0), (0, 0, size.width // 2, size.height))
    encoded = BytesIO()
    mask.save(encoded, "PNG")
    return InputImage(Blob(encoded.getvalue()), "png", size)


def soon() -> float:
    """A deadline that passes only if something is broken."""
    return asyncio.get_running_loop().time() + 30


@dataclass(frozen=True)
class RemoteSetup:
    """One dialect: its stand-in, and a function that opens providers on it: `open(url, attempts_max=1)`."""

    dialect: Dialect
    stand_in: GeminiStandIn | OpenAIStandIn
    open: Callable[..., Provider]

    def fail(self, *names: str) -> None:
        """Answers the next calls with these failures, one after another."""
        self.stand_in.faults.extend(BY_NAME[name].reply(self.dialect) for name in names)


def gemini_provider(
    upstream: Upstream, pool: BoundedPool, base_url: str, *, key: str = KEY, model: str = gemini.MODEL
) -> GeminiProvider:
    return GeminiProvider(
        upstream,
        pool,
        api_key=SecretStr(key),
        base_url=base_url,
        api_version="v1beta",
        model=model,
        frames=parse_frames(GEMINI_SIZES),
    )


def openai_provider(
    upstream: Upstream,
    pool: BoundedPool,
    base_url: str,
    *,
    key: str | None = KEY,
    path: str = "/v1",
    headers: Mapping[str, str] | None = None,
    resolve: Resolve | None = None,
    **options: Any,
) -> OpenAIProvider:
    return OpenAIProvider(
        upstream,
        pool,
        api_key=None if key is None else SecretStr(key),
        base_url=f"{base_url}{path}",
        model=openai.MODEL,
        sizes=parse_sizes(OPENAI_SIZES),
        headers={name: SecretStr(value) for name, value in (headers or {}).items()},
        resolve=resolve,
        **options,
    )
