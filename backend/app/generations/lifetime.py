"""How long a generation can live: the one place where its deadlines, its lease and what waits for it are computed."""

import math
from dataclasses import dataclass
from functools import cached_property

from app.core.bounds import BODY_SECONDS_MAX
from app.core.settings import Settings

_LEASE_MARGIN_SECONDS = 5
_RESPONSE_MARGIN_SECONDS = 15
_SLOT_MARGIN_SECONDS = 5


@dataclass(frozen=True)
class Lifetime:
    """In seconds."""

    drawing_seconds: float
    """In which the provider draws, its repeats included, and the store keeps."""
    recording_seconds: float
    """In which the ledger records, and again in which it settles."""
    job_drawing_seconds: float = 300
    """The same as `drawing_seconds` of an asynchronous generation, once a worker has taken it."""
    job_lease_seconds: float = 30
    """How long an asynchronous generation belongs to a worker that has not renewed its lease."""

    @property
    def lease_seconds(self) -> float:
        """How long a recorded request belongs to the worker that draws it: drawing, and time to settle."""
        return self.drawing_seconds + _LEASE_MARGIN_SECONDS

    @property
    def job_input_seconds(self) -> float:
        """How much longer than a job may wait the images that go into it are kept: it is recorded after them, and may
        be taken up in its last moment.
        """
        return self.recording_seconds + self.job_drawing_seconds + self.job_lease_seconds

    @property
    def longest_seconds(self) -> float:
        """From the head of the request to its response, where the body is small."""
        return BODY_SECONDS_MAX + self.drawing_seconds + 2 * self.recording_seconds

    @cached_property
    def response_seconds(self) -> float:
        """From the end of a request's body to its response, beyond which the server answers in place of any route:
        later than every generation ends by itself.
        """
        return self.drawing_seconds + max(_RESPONSE_MARGIN_SECONDS, 2 * self.recording_seconds + _LEASE_MARGIN_SECONDS)

    @cached_property
    def slot_seconds(self) -> int:
        """After which a slot of the concurrency limit is free again, if the process that took it has died."""
        return math.ceil(self.longest_seconds) + _SLOT_MARGIN_SECONDS


def lifetime_of(settings: Settings) -> Lifetime:
    """What the settings say."""
    return Lifetime(
        settings.generation_deadline_seconds,
        settings.record_deadline_seconds,
        settings.job_deadline_seconds,
        settings.job_lease_seconds,
    )
