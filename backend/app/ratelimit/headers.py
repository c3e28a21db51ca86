"""Decisions as the headers that callers read, and a refusal as the error they get."""

import math
from collections.abc import Sequence

from fastapi import Request

from app.core.errors import RateLimited
from app.core.web.middleware import add_answer_headers
from app.ratelimit import Decision


def tell(request: Request, decisions: Sequence[Decision]) -> None:
    """Puts the limits on the answer: every one in `RateLimit`, the tightest in the headers that OpenAI clients read."""
    tightest = decisions[0] if len(decisions) == 1 else min(decisions, key=lambda decision: decision.remaining)
    add_answer_headers(
        request,
        {
            "RateLimit-Policy": ", ".join(
                f'"{decision.name}";q={decision.limit.count};w={decision.limit.window_seconds}'
                for decision in decisions
            ),
            "RateLimit": ", ".join(
                f'"{decision.name}";r={decision.remaining};t={math.ceil(decision.reset_seconds)}'
                for decision in decisions
            ),
            "x-ratelimit-limit-requests": str(tightest.limit.count),
            "x-ratelimit-remaining-requests": str(tightest.remaining),
            "x-ratelimit-reset-requests": f"{math.ceil(tightest.reset_seconds)}s",
        },
    )


def enforce(decisions: Sequence[Decision]) -> None:
    """Raises RateLimited where one of the limits refuses, with the wait after which all of them allow."""
    if not all(decision.allowed for decision in decisions):
        raise RateLimited(retry_after_seconds=math.ceil(max(each.retry_after_seconds for each in decisions)))
