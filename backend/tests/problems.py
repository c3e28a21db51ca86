"""The shapes of errors."""

import re
from collections.abc import Iterable

import httpx2
from app.features.gemini.errors import STATUSES

REALM = 'Bearer realm="nanobanana"'
MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def check_problem(answer: httpx2.Response, status: int, code: str, *, more: Iterable[str] = ()) -> None:
    """The shape of problem documents, with what each status promises besides; on routes of OpenAI's and of Google's,
    theirs, of Google's with the status that Google has for it; in the console a page.
    """
    headers = answer.headers
    if headers["content-type"].startswith("text/html"):
        check_error_page(answer, status)
    elif headers["content-type"] == "application/problem+json":
        _check_ours(answer, status, code, more)
    elif "details" in answer.json()["error"]:
        _check_googles(answer, status, code)
    else:
        _check_openais(answer, status, code)
    assert re.fullmatch(r"req_[0-9a-z]{20}", headers["x-request-id"])
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert ("www-authenticate" in headers) == (status == 401)
    assert ("allow" in headers) == (status == 405)
    assert ("retry-after" in headers) == (status in {429, 503} and code != "budget_exceeded")
    if "retry-after" in headers:
        assert int(headers["retry-after"]) >= 1


def check_error_page(answer: httpx2.Response, status: int) -> None:
    """An error in words, in a page as safe as every other."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert f"<code>{answer.headers['x-request-id']}</code>" in answer.text
    assert re.search(r"<h1>\w.+\.</h1>", answer.text)


def _check_ours(answer: httpx2.Response, status: int, code: str, more: Iterable[str]) -> None:
    told, headers = answer.json(), answer.headers
    error = told.pop("error", None)  # which paths have it is a test's of its own
    assert error is None or (set(error), error["code"]) == ({"message", "type", "param", "code"}, code)
    assert (answer.status_code, told["status"], told["code"]) == (status, status, code), answer.text
    assert headers["content-type"] == "application/problem+json"
    assert set(told) == MEMBERS | set(more)
    assert told["type"] == "about:blank"
    assert told["title"]
    assert told["detail"]
    assert told["request_id"] == headers["x-request-id"]


def _check_openais(answer: httpx2.Response, status: int, code: str) -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


def _check_googles(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.headers["content-type"] == "application/json"
    [error] = answer.json().values()
    assert set(error) == {"code", "message", "status", "details"}
    assert (answer.status_code, error["status"]) == STATUSES[status], answer.text
    assert error["code"] == answer.status_code
    assert error["message"]
    info, *delays = error["details"]
    assert ({"cap", "ends_at"} <= info.get("metadata", {}).keys()) == (code == "budget_exceeded")
    assert (info["@type"], info["reason"]) == ("type.googleapis.com/google.rpc.ErrorInfo", code)
    wait = answer.headers.get("retry-after")
    assert [each["retryDelay"] for each in delays] == ([] if wait is None else [f"{wait}s"])
