"""The one shape of every error."""

import re
from collections.abc import Iterable

import httpx2

REALM = 'Bearer realm="nanobanana"'
MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def check_problem(answer: httpx2.Response, status: int, code: str, *, more: Iterable[str] = ()) -> None:
    """The one shape, with what each status promises besides; on the one route that has another, that."""
    told, headers = answer.json(), answer.headers
    if "error" in told:
        _check_openais(answer, status, code)
    else:
        assert (answer.status_code, told["status"], told["code"]) == (status, status, code), answer.text
        assert headers["content-type"] == "application/problem+json"
        assert set(told) == MEMBERS | set(more)
        assert told["type"] == "about:blank"
        assert told["title"]
        assert told["detail"]
        assert told["request_id"] == headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-z]{20}", headers["x-request-id"])
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert ("www-authenticate" in headers) == (status == 401)
    assert ("allow" in headers) == (status == 405)
    assert ("retry-after" in headers) == (status in {429, 503})
    if "retry-after" in headers:
        assert int(headers["retry-after"]) >= 1


def _check_openais(answer: httpx2.Response, status: int, code: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
