"""The one shape of every error."""

import re
from collections.abc import Iterable

import httpx2

REALM = 'Bearer realm="nanobanana"'
MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def check_problem(answer: httpx2.Response, status: int, code: str, *, more: Iterable[str] = ()) -> None:
    """The one shape, with what each status promises besides."""
    problem, headers = answer.json(), answer.headers
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), answer.text
    assert headers["content-type"] == "application/problem+json"
    assert set(problem) == MEMBERS | set(more)
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-z]{20}", headers["x-request-id"])
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert ("www-authenticate" in headers) == (status == 401)
    assert ("allow" in headers) == (status == 405)
    assert ("retry-after" in headers) == (status in {429, 503})
    if "retry-after" in headers:
        assert int(headers["retry-after"]) >= 1
