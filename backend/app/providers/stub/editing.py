"""What the stub makes of images that go in."""

from io import BytesIO

from PIL import Image as Pillow
from PIL import ImageOps

from app.core.fair_queue import FairPool
from app.providers import DrawRequest, Image, Provider, Size

ART = 1
"""The version of this drawing: it goes up with every change of its pixels."""


class EditingProvider:
    """Draws what images go into, and what none goes into as `stub` does."""

    name = "editing"
    is_deterministic = False

    def __init__(self, stub: Provider, pool: FairPool) -> None:
        self._stub = stub
        self._pool = pool

    def refusal(self, size: Size | None) -> str | None:
        return self._stub.refusal(size)

    async def check(self) -> str:
        return "ok"

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        if not request.images:
            return await self._stub.draw(request, deadline=deadline)
        content = await request.images[0].blob.read()
        return Image(await self._pool.run(lambda: _fitted(content, request.size)), "png")


def _fitted(content: bytes, size: Size) -> bytes:
    encoded = BytesIO()
    with Pillow.open(BytesIO(content)) as image:
        ImageOps.invert(ImageOps.fit(image.convert("RGB"), size)).save(encoded, "PNG")
    return encoded.getvalue()
