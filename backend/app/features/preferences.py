"""What a caller says about waiting: the header `Prefer` (RFC 7240), and the members of a body that belong to it."""

import re
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from fastapi import Request
from pydantic import Field

from app.core.errors import Invalid, InvalidRequest
from app.generations.jobs.job import EXPIRES_SECONDS_MAX, JobTerms
from app.web.state import request_state

WAIT_SECONDS_MAX = 60

PREFER: dict[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": (
        "`respond-async`: the answer is a 202 as soon as the request is on disk, and the image is made later. "
        f"`wait=20`: the answer waits so many seconds for it, 1 to {WAIT_SECONDS_MAX}. Others have no effect."
    ),
    "schema": {"type": "string", "examples": ["respond-async", "respond-async, wait=20"]},
}
"""The header as OpenAPI describes it."""

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

_SECONDS = re.compile(r'"?0*([1-9][0-9]?)"?', re.ASCII)


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


def read_preference(request: Request) -> Preference | None:
    """The request's preference; None for one that has none that is known here. Raises InvalidRequest for a `wait` that
    is out of bounds.
    """
    sent = request_state(request.scope).get("prefer")
    if sent is None:
        return None
    found: dict[str, str] = {}
    for each in ",".join(sent).split(","):
        name, _, value = each.partition(";")[0].partition("=")
        found.setdefault(name.strip(" \t").lower(), value.strip(" \t"))  # of two, the first counts
    if "wait" not in found:
        return Preference(None) if "respond-async" in found else None
    match = _SECONDS.fullmatch(found["wait"])
    if match is None or int(match[1]) > WAIT_SECONDS_MAX:
        raise InvalidRequest(f"Prefer: wait must be a number of seconds from 1 to {WAIT_SECONDS_MAX}")
    return Preference(int(match[1]))


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
