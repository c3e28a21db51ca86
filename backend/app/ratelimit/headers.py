"""Decisions as the headers that callers read, and a refusal as the error they get."""

import math
from collections.abc import Sequence
from typing import Literal

from fastapi import Request

from app.core.errors import ConcurrencyLimited, RateLimited
from app.core.metrics import Metrics
from app.ratelimit import Decision, Taken
from app.web.headers import add_response_headers

Mode = Literal["observe", "enforce"]


def tell(request: Request, decisions: Sequence[Decision]) -> None:
    """Puts the limits on the answer: every one in `RateLimit`, the tightest in the headers that OpenAI clients read."""
    tightest = decisions[0] if len(decisions) == 1 else min(decisions, key=lambda decision: decision.remaining)
    left = [f'"{each.name}";r={each.remaining};t={math.ceil(each.reset_seconds)}' for each in decisions]
    headers = {
        b"ratelimit-policy": ", ".join([f'"{each.name}";{each.limit.policy}' for each in decisions]).encode(),
        b"ratelimit": ", ".join(left).encode(),
        b"x-ratelimit-limit-requests": b"%d" % tightest.limit.count,
        b"x-ratelimit-remaining-requests": b"%d" % tightest.remaining,
        b"x-ratelimit-reset-requests": b"%ds" % math.ceil(tightest.reset_seconds),
    }
    add_response_headers(request, headers)


def enforce(request: Request, taken: Taken, *, mode: Mode = "enforce") -> None:
    """Counts what a limit refused, and raises it unless the mode is to observe.

    Raises RateLimited, with the wait after which all limits allow, or ConcurrencyLimited where only too much runs.
    """
    if taken.allowed:
        return
    refusals = [decision for decision in taken.decisions if not decision.allowed]
    metrics: Metrics = request.app.state.metrics
    for name in [decision.name for decision in refusals] + ["concurrency"] * taken.crowded:
        metrics.limit_refusals.labels(name, mode).inc()
    if mode == "observe":
        return
    if not refusals:
        raise ConcurrencyLimited(retry_after_seconds=1)
    raise RateLimited(retry_after_seconds=math.ceil(max(each.retry_after_seconds for each in refusals)))
