"""Rate limits: what a limit is, the arithmetic that decides, and the port to where the state is kept.

The arithmetic is the generic cell rate algorithm (GCRA): a token bucket of which one number is kept, its theoretical
arrival time (TAT), the time at which it is full again. Taking a unit moves the TAT one emission interval into the
future, and is allowed if the TAT is then no further ahead of now than the burst tolerance. All times are whole
microseconds, so that memory and the Redis script decide alike.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple, Protocol, Self

from app.core.limit_format import LIMIT_PATTERN, WINDOW_SECONDS

MICROSECONDS = 1_000_000
_LIMIT = re.compile(LIMIT_PATTERN)
_PROCESS = secrets.token_hex(6)
_numbers = count()


@dataclass(frozen=True)
class Limit:
    """`count` units at once, refilled evenly over `window_seconds`."""

    count: int
    window_seconds: int
    emission_interval: int = field(init=False, compare=False)
    """Microseconds after which one unit is refilled, rounded up: never more than `count` in the window."""
    burst_tolerance: int = field(init=False, compare=False)
    """Microseconds by which a TAT may be ahead of now, which is also how long an empty bucket takes to fill."""
    policy: str = field(init=False, compare=False)
    """The limit's parameters in `RateLimit-Policy`."""

    def __post_init__(self) -> None:
        interval = -(-self.window_seconds * MICROSECONDS // self.count)
        object.__setattr__(self, "emission_interval", interval)
        object.__setattr__(self, "burst_tolerance", self.count * interval)
        object.__setattr__(self, "policy", f"q={self.count};w={self.window_seconds}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The limit that a text such as `600/minute` describes. Raises ValueError for any other text."""
        if _LIMIT.fullmatch(text) is None:
            raise ValueError("must look like 600/minute (per second, minute, hour or day)")
        count, window = text.split("/")
        return cls(int(count), WINDOW_SECONDS[window])


class Take(NamedTuple):
    """Units to be taken from the bucket that `subject`, such as a key or an address, has under the limit `name`."""

    name: str
    subject: str
    limit: Limit
    units: int = 1

    @property
    def increment(self) -> int:
        """Microseconds by which taking the units moves the bucket's TAT."""
        return self.units * self.limit.emission_interval


class Slot(NamedTuple):
    """One of the `slots` of a concurrency limit that `subject` has, or `number` of them, held under an `id` of its own.

    They are taken together, and held until they are released, and for `seconds` at most: if their process dies, they
    become free by themselves.
    """

    subject: str
    slots: int
    seconds: int
    id: str
    number: int = 1

    @property
    def ids(self) -> Sequence[str]:
        """An id for each of them."""
        return (self.id,) if self.number == 1 else [f"{self.id}/{each}" for each in range(self.number)]


def new_slot_id() -> str:
    """An id that no slot of any process has had."""
    return f"{_PROCESS}-{next(_numbers)}"


class Decision(NamedTuple):
    """A limiter's answer to one take.

    `remaining` units could be taken now; the bucket is full in `reset_seconds`; after `retry_after_seconds` (0 if it is
    allowed) the same take is allowed, provided that nothing else is taken from the bucket meanwhile.
    """

    name: str
    limit: Limit
    allowed: bool
    remaining: int
    reset_seconds: float
    retry_after_seconds: float


class TakeResult(NamedTuple):
    """What came of one call: everything that it asked for was taken if it is `allowed`, and nothing if it is not."""

    allowed: bool
    decisions: Sequence[Decision]
    """One for each take, in their order. One whose bucket had enough units is `allowed` even if another refused."""
    no_free_slot: bool
    """A slot was asked for, or several, and its subject has not as many that are free."""


class Limiter(Protocol):
    """Where buckets and slots are kept.

    Each belongs to a `group`, in which its name and subject are unique. All that one call takes is of one group.
    """

    @property
    def is_degraded(self) -> bool:
        """Whether limits that should be shared by all processes are decided by this one alone."""
        ...

    async def take(self, takes: Sequence[Take], *, group: str, slot: Slot | None = None) -> TakeResult:
        """Takes the units of every take, and the slot if there is one; or nothing, if any of them is refused."""
        ...

    async def give_back(self, takes: Sequence[Take], *, group: str) -> None:
        """Returns units that were taken and turned out not to count. A bucket never holds more than its limit."""
        ...

    def release(self, slot: Slot, *, group: str) -> None:
        """Frees a slot, or all that were taken as one. Has no effect on one that is not held."""
        ...


def decide(found: Sequence[tuple[Take, int]], *, now: int, no_free_slot: bool = False) -> TakeResult:
    """GCRA over several buckets, each take with the TAT of its bucket, clamped: all units are taken, or none.
    Microseconds.

    A take of more units than its limit counts is always refused.
    """
    allowed, moves = not no_free_slot, []
    for (name, _, limit, units), tat in found:
        increment = units * limit.emission_interval
        excess = tat - now + increment - limit.burst_tolerance  # by which the TAT would be too far ahead of now
        if excess > 0:
            allowed = False
        moves.append((name, limit, increment, excess))
    decisions = []
    for name, limit, increment, excess in moves:
        left = -excess if allowed else increment - excess
        reset_seconds = (limit.burst_tolerance - left) / MICROSECONDS
        wait_seconds = excess / MICROSECONDS if excess > 0 else 0.0
        remaining = left // limit.emission_interval
        decisions.append(Decision(name, limit, excess <= 0, remaining, reset_seconds, wait_seconds))
    return TakeResult(allowed, decisions, no_free_slot)
