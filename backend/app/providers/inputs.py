"""Images that go in, brought below what a provider takes in one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakKeyDictionary

from app.core.blobs import Blob
from app.core.images import IMAGE_FORMATS, ImageFormat
from app.core.pool import BoundedPool
from app.providers import DrawRequest, InputImage, ProviderFailed, Size
from app.providers.intake import InputLimits, InvalidInput, TakenIn, bring_below, fit_mask


@dataclass(frozen=True, slots=True)
class CallLimits:
    """What one call may carry: bytes of one image, and bytes of all its images."""

    image_bytes_max: int
    bytes_max: int


class InputFitting:
    """Brings the images of requests below the limits of one provider's calls, one image at a time, in a thread of
    `pool`. An image that is within them already is not read. What was made of one is kept while the image is: all calls
    of a client request send the same bytes.
    """

    def __init__(self, limits: CallLimits, pool: BoundedPool, keep: Callable[[bytes], Awaitable[Blob]]) -> None:
        self._limits = limits
        self._pool = pool
        self._keep = keep
        self._turn = asyncio.Lock()
        self._fitted: WeakKeyDictionary[Blob, tuple[InputLimits | Size, InputImage]] = WeakKeyDictionary()

    async def fitted(self, request: DrawRequest) -> DrawRequest:
        """The request with images that may be sent, and a mask of the size of the first of them, which is a PNG too.

        Raises ProviderFailed, as the caller's mistake, for an image that cannot be brought below the limits.
        """
        images, mask = list[InputImage](), request.mask
        sizes = [each.blob.size for each in request.images]
        for image, bytes_max in zip(request.images, shares_of(self._limits, sizes), strict=True):
            formats: Sequence[ImageFormat] = IMAGE_FORMATS if images or mask is None else ["png"]
            limits = InputLimits(max(image.size), bytes_max, formats)
            is_within = image.blob.size <= bytes_max and image.format in formats
            images.append(image if is_within else await self._changed(image, limits))
        if mask is not None and mask.size != images[0].size:
            mask = await self._changed(mask, images[0].size)
        return replace(request, images=images, mask=mask)

    async def _changed(self, image: InputImage, goal: InputLimits | Size) -> InputImage:
        async with self._turn:
            before = self._fitted.get(image.blob)
            if before is not None and before[0] == goal:
                return before[1]
            taken = TakenIn(await image.blob.read(), image.format, image.size)
            try:
                # It is part of a call that the pool has a place for.
                made = await self._pool.go_on(
                    partial(fit_mask, taken, goal) if isinstance(goal, Size) else partial(bring_below, taken, goal)
                )
            except InvalidInput as refusal:
                sentence = str(refusal)
            else:
                changed = InputImage(await self._keep(made.content), made.format, made.size)
                self._fitted[image.blob] = goal, changed
                return changed
        raise ProviderFailed(sentence, failure="request")


def shares_of(limits: CallLimits, sizes: Sequence[int]) -> Sequence[int]:
    """How many bytes each image of these sizes may have: an equal share of what there is for all, and of what smaller
    ones leave of theirs.
    """
    shares, left = [0] * len(sizes), limits.bytes_max
    for place, number in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[number] = min(limits.image_bytes_max, left // (len(sizes) - place))
        left -= min(sizes[number], shares[number])
    return shares
