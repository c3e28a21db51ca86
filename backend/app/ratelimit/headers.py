"""A limiter's decisions as the values of HTTP headers."""

import math
from collections.abc import Sequence

from app.ratelimit import Decision


def rate_limit_headers(decisions: Sequence[Decision]) -> dict[bytes, bytes]:
    """Every limit in `RateLimit-Policy` and `RateLimit`, and the one with the least remaining units in the headers that
    OpenAI's clients read. Names in lower case.
    """
    tightest = decisions[0] if len(decisions) == 1 else min(decisions, key=_remaining)
    policies, left = "", ""
    for each in decisions:  # text that grows: to join lists would take longer, and nearly always there is one
        separator = ", " if left else ""
        policies += f'{separator}"{each.name}";{each.limit.policy}'
        left += f'{separator}"{each.name}";r={each.remaining};t={math.ceil(each.reset_seconds)}'
    return {
        b"ratelimit-policy": policies.encode(),
        b"ratelimit": left.encode(),
        b"x-ratelimit-limit-requests": b"%d" % tightest.limit.count,
        b"x-ratelimit-remaining-requests": b"%d" % tightest.remaining,
        b"x-ratelimit-reset-requests": b"%ds" % math.ceil(tightest.reset_seconds),
    }


def _remaining(decision: Decision) -> int:
    return decision.remaining


def retry_after_seconds(refused: Sequence[Decision]) -> int:
    """The value of `Retry-After`: after so many seconds all the limits that refused allow the call."""
    return math.ceil(max(each.retry_after_seconds for each in refused))
