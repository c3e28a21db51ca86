"""When and whom faults meet: by chance, but the seed repeats it."""

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

Choice = TypeVar("Choice")


IS_LONG = os.environ.get("CHAOS") == "long"


def times(*, short: int, long: int) -> int:
    """How often something is done: with CHAOS=long, `long` times."""
    return long if IS_LONG else short


class Schedule:
    """A sequence of choices that follows from its seed alone, on every machine and Python."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._drawn = 0

    def _fraction(self) -> float:
        self._drawn += 1
        return int.from_bytes(sha256(f"{self._seed}/{self._drawn}".encode()).digest()[:6], "big") / 2**48

    def between(self, low: float, high: float) -> float:
        return low + self._fraction() * (high - low)

    def pick(self, among: Sequence[Choice]) -> Choice:
        return among[int(self._fraction() * len(among))]
