"""The port to whatever draws pictures, and the values that cross it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Size:
    """Pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be drawn."""

    prompt: str
    size: Size


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes of a picture of exactly the ordered size, and what they are."""

    content: bytes
    media_type: str


class Provider(Protocol):
    """Draws pictures."""

    name: str

    def refusal(self, size: Size) -> str | None:
        """Why this size cannot be drawn, as a sentence that lists what can; None where it can."""
        ...

    async def draw(self, order: Order) -> Picture:
        """The picture. The same order gives the same bytes, every time.

        Raises Unavailable when too much waits already.
        """
        ...
