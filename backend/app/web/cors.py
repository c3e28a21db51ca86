"""CORS: lets pages of other origins call the API from a browser and read its responses, refusals included.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.state import request_state

_PATHS = re.compile(r"/+v1(?:beta)?(?!/+auth(?:/|$))(?:/.*)?", re.DOTALL)
"""Without the routes that take passwords: pages could have their visitors' browsers guess, from many addresses."""

_METHODS = b"GET, HEAD, POST, PUT, DELETE"
_REQUEST_HEADER = re.compile(
    r"authorization|api-key|content-type|idempotency-key|last-event-id|prefer|user-agent|x-goog-api-(?:key|client)"
    r"|http-referer|x-(?:openrouter-)?title|x-server-timeout|openai-[a-z0-9-]+|x-stainless-[a-z0-9-]+"
)
_PREFLIGHT_SECONDS = b"7200"  # browsers keep it no longer
_EXPOSED = (
    b"x-request-id, retry-after, x-should-retry, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
    b"x-ratelimit-reset-requests, ratelimit, ratelimit-policy, idempotent-replayed, link, etag, content-range, x-model"
    b", location, preference-applied, x-credit-remaining, x-budget-remaining"
)


class CorsPolicy:
    """The origins whose pages may call the API, without cookies: `Access-Control-Allow-Credentials` is never sent."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(each.encode() for each in origins)
        self._allows_all = b"*" in self._origins

    @classmethod
    def of(cls, origins: Sequence[str]) -> Self | None:
        """The policy of CORS_ORIGINS; None where no other origin may call."""
        return cls(origins) if origins else None

    def headers_for(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
        """The headers of every response to a request with this path and these headers.

        They do not depend on the request where all origins are allowed; else `Vary` has caches keep one response for
        each origin, also of requests without one: an image in a page would be cached without the headers.
        """
        if not _PATHS.fullmatch(path):
            return {}
        if self._allows_all:
            return _allowing(b"*")
        origin = dict(headers).get(b"origin")
        allowed = _allowing(origin) if origin is not None and origin in self._origins else {}
        return {b"vary": b"Origin", **allowed}


def _allowing(origin: bytes) -> Mapping[bytes, bytes]:
    return {b"access-control-allow-origin": origin, b"access-control-expose-headers": _EXPOSED}


class CorsMiddleware:
    """Puts the policy's headers on every response, and answers preflights of the origins that it allows."""

    def __init__(self, app: ASGIApp, policy: CorsPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        allowed = self._policy.headers_for(scope["path"], scope["headers"])
        response_headers = request_state(scope)["response_headers"]
        response_headers.update(allowed)
        asked = dict(scope["headers"])
        is_preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in asked
        if not is_preflight or b"access-control-allow-origin" not in allowed:
            await self._app(scope, receive, send)
            return
        response_headers.update(_preflight_headers(asked.get(b"access-control-request-headers", b"")))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


def _preflight_headers(asked: bytes) -> Mapping[bytes, bytes]:
    """Allows those of the headers that were asked for that the API's clients send."""
    names = [name.strip() for name in asked.decode("latin-1").lower().split(",")]
    return {
        b"access-control-allow-methods": _METHODS,
        b"access-control-allow-headers": ", ".join(filter(_REQUEST_HEADER.fullmatch, names)).encode(),
        b"access-control-max-age": _PREFLIGHT_SECONDS,
        b"vary": b"Origin, Access-Control-Request-Headers",
    }
