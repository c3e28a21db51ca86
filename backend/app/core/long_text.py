"""A string of a request that is too long to be held as text, such as an image in base64."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import PlainValidator
from pydantic_core import PydanticKnownError

from app.core.blobs import Blob
from app.core.schemas import storable


@dataclass(frozen=True, slots=True)
class LongText:
    """A string of a JSON body, as it stands there between its quotation marks, with its escapes."""

    body: Blob
    start: int
    end: int

    def head(self, size: int) -> bytes:
        """At most so many bytes of its beginning."""
        return self.body.part(self.start, min(self.start + size, self.end))

    def in_memory(self, start: int) -> memoryview | None:
        """Its bytes from `start` on, without a copy; None where the body lies in a file."""
        content = self.body.in_memory
        return None if content is None else memoryview(content)[self.start + start : self.end]

    def pieces(self, start: int) -> Iterator[bytes]:
        """Its bytes from `start` on, in pieces. May read a file: for threads."""
        return self.body.pieces(self.start + start, self.end)


def _image_text(value: object) -> str | LongText:
    if isinstance(value, LongText):
        return value
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    return storable(value)


ImageText = Annotated[str | LongText, PlainValidator(_image_text, json_schema_input_type=str)]
"""A field that takes an image: `features.input_images` reads it. Any other field refuses a LongText."""
