"""Whether a request is asynchronous, and on which terms: what its body and its caller's preference say."""

from typing import Annotated, Literal, NamedTuple, Protocol

from pydantic import Field

from app.core.errors import Invalid
from app.generations.jobs.job import EXPIRES_SECONDS_MAX, JobTerms

IsAsync = Annotated[
    bool | None,
    Field(alias="async", description="Answer 202 as soon as the request is on disk, as `Prefer: respond-async`."),
]
ExpiresIn = Annotated[
    Annotated[int, Field(ge=1, le=EXPIRES_SECONDS_MAX)] | None,
    Field(description=f"With `async`: the seconds for which it may wait for a worker, else {EXPIRES_SECONDS_MAX}."),
]
JobClass = Annotated[
    Literal["now", "batch"] | None,
    Field(alias="class", description="With `async`: what is `batch` is drawn while nothing of `now` waits."),
]


class Preference(NamedTuple):
    """A caller who prefers not to wait for the image, or no longer than so many seconds."""

    wait_seconds: int | None


class Terms(NamedTuple):
    """An asynchronous request: how it may wait for a worker, and how many seconds its caller waits for it, if any."""

    job: JobTerms
    wait_seconds: int | None


class SentTerms(Protocol):
    """The members of a body that say whether and how a generation is asynchronous."""

    @property
    def is_async(self) -> bool | None: ...

    @property
    def expires_in(self) -> int | None: ...

    @property
    def job_class(self) -> Literal["now", "batch"] | None: ...


def read_terms(sent: SentTerms, preference: Preference | None) -> Terms | None:
    """How the request may wait; None for a synchronous one. Raises Invalid for terms of one that is synchronous."""
    if preference is not None or sent.is_async:
        terms = JobTerms(sent.job_class or "now", sent.expires_in or EXPIRES_SECONDS_MAX)
        return Terms(terms, preference and preference.wait_seconds)
    if sent.expires_in is None and sent.job_class is None:
        return None
    named = {"expires_in": sent.expires_in, "class": sent.job_class}
    sentence = "Needs async, or the header Prefer: respond-async"
    raise Invalid([{"pointer": f"#/{name}", "detail": sentence} for name, value in named.items() if value is not None])
