"""What a refused request had in memory is free at once, and not when the garbage collector comes."""

from collections.abc import Mapping, Sequence

import httpx2
import pytest
from app.web.fast_response import FastResponse
from tests.harness import Account
from tests.in_memory import Seen, without_collector
from tests.raw_http import JSON_TYPE, head, send_raw

Sent = tuple[Mapping[str, str], bytes]
"""Headers and body of a request."""

REFUSED: Mapping[str, tuple[int, Sequence[Sent]]] = {
    "a field that is wrong": (422, [({}, b'{"prompt":""}')]),
    "a large body that is no JSON, by its thread": (
        400,
        [({}, b'{"images":["%b"]' % (b"a" * 2_000_000))],
    ),
    "more text than a body may have, by its thread": (
        413,
        [({}, b'{"prompt":"%b"}' % (b"a" * 2_000_000))],
    ),
    "an image that is none, by its thread": (
        422,
        [({}, b'{"prompt":"a","images":["data:image/png;base64,%b"]}' % (b"a" * 2_000_000))],
    ),
    "an idempotency key of another request, by the ledger": (
        422,
        [({"Idempotency-Key": "k"}, b'{"prompt":"a"}'), ({"Idempotency-Key": "k"}, b'{"prompt":"b"}')],
    ),
}


@pytest.mark.parametrize("refusal", REFUSED)
async def test_a_refused_request_leaves_memory_once_it_is_answered(
    client: httpx2.AsyncClient, account: Account, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    """By reference counting: until the collector comes, hundreds of requests would hold their bodies, and with these
    what their account may have in memory.
    """
    key, (status, requests) = await account.create_key(), REFUSED[refusal]
    assert [each.status_code for each in await _send(client, key.headers, requests)][-1] == status  # all is set up
    responses = Seen(monkeypatch, FastResponse, "run_asgi")
    with without_collector():
        answers = await _send(client, key.headers, requests)
        assert answers[-1].status_code == status
        assert responses.calls == len(requests)
        await responses.assert_left()


async def _send(
    client: httpx2.AsyncClient, credentials: Mapping[str, str], requests: Sequence[Sent]
) -> Sequence[httpx2.Response]:
    answers = []
    for headers, body in requests:
        named = [*credentials.items(), *headers.items(), JSON_TYPE, ("Content-Length", str(len(body)))]
        answers.append(await send_raw(client, head("POST", "/v1/generate", named), body))
    return answers
