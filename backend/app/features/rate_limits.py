"""A limiter's result in HTTP: the headers of the answer, and the error where the call is refused."""

from collections.abc import Sequence

from fastapi import Request

from app.core.errors import ConcurrencyLimited, RateLimited
from app.core.limit_settings import LimitMode
from app.features.dependencies import services_of
from app.ratelimit import Decision, TakeResult
from app.ratelimit.headers import rate_limit_headers, retry_after_seconds
from app.web.headers import add_response_headers
from app.web.state import request_state


def set_rate_limit_headers(request: Request, decisions: Sequence[Decision]) -> None:
    """Puts these limits on the answer to the request, whether it becomes a success or an error."""
    add_response_headers(request, rate_limit_headers(decisions))


def raise_if_refused(request: Request, result: TakeResult, *, mode: LimitMode = "enforce") -> None:
    """Counts each limit that refused the call, and raises the refusal unless the mode is to observe.

    Raises RateLimited if a rate limit refused, and ConcurrencyLimited if only a free slot is missing.
    """
    if result.allowed:
        return
    refused = [decision for decision in result.decisions if not decision.allowed]
    names = [decision.name for decision in refused]
    if result.no_free_slot:
        names.append("concurrency")
    for name in names:
        services_of(request).metrics.limits.refusals.add(name, mode)
    if mode == "observe":
        return
    request_state(request.scope)["limit"] = ",".join(names)
    if not refused:
        raise ConcurrencyLimited(retry_after_seconds=1)
    raise RateLimited(retry_after_seconds=retry_after_seconds(refused))
