"""Images that go in, each with its place in the request of its dialect, which errors name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.core.blobs import Blob
from app.core.long_text import ImageText
from app.features.input_images import read_sent_image
from app.generations.collaborators import Generations
from app.generations.spec import SentImage


class NamedInput(NamedTuple):
    """An image as it was sent, and the JSON Pointer to it."""

    pointer: str
    sent: ImageText | Blob


async def read_input(generations: Generations, named: NamedInput) -> SentImage:
    """The image. Raises what `read_sent_image` raises."""
    if isinstance(named.sent, Blob):
        return named.sent
    return await read_sent_image(generations, named.sent, pointer=named.pointer)


def pointers_to(inputs: Sequence[NamedInput], *, whole: str) -> Mapping[str, str]:
    """For `Admission.pointers`: the place of each image, and `whole`, the place of all of them."""
    return {"#/images": whole, **{f"#/images/{index}": each.pointer for index, each in enumerate(inputs)}}
