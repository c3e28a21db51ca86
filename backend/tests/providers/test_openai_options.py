"""What an operator says of an OpenAI-compatible endpoint: headers and query of its calls, and what its model can do."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from app.providers import DrawRequest, ProviderError, ProviderUnavailable, Size
from tests.providers.remote import KEY, OpenAIWith, banana, soon
from tests.standins.gemini import image_bytes
from tests.standins.openai import MODEL, OpenAIStandIn, at, failed
from tests.standins.wire import Reply, json_reply

AZURE: dict[str, Any] = {
    "key": None,
    "path": f"/openai/deployments/{MODEL}",
    "headers": {"api-key": KEY},
    "query": {"api-version": "2026-05-01"},
}
PLAIN = {"model": MODEL, "prompt": "canary-prompt: a cute banana", "n": 1, "size": "1024x1024"}
ALL = frozenset({"quality", "background", "transparent", "compression"})


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (AZURE, f"/openai/deployments/{MODEL}/images/generations?api-version=2026-05-01"),
        (
            {**AZURE, "path": "/openai/v1/", "query": {"api-version": "preview"}},
            "/openai/v1/images/generations?api-version=preview",
        ),
        (
            {**AZURE, "path": "/openai/v1?api-version=a%2Fb", "query": None},
            "/openai/v1/images/generations?api-version=a%2Fb",
        ),
        (
            {**AZURE, "path": "/openai/v1?a=%20", "query": {"api-version": "a&b=ü"}},
            "/openai/v1/images/generations?a=%20&api-version=a%26b%3D%C3%BC",
        ),
    ],
)
async def test_azures_paths_are_called_with_its_header_and_query_and_without_authorization(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn, options: Mapping[str, Any], target: str
) -> None:
    await openai_with(**options).draw(banana(), deadline=soon())
    [seen] = endpoint.seen
    assert (seen.target, seen.headers["api-key"]) == (target, KEY)
    assert "authorization" not in seen.headers


async def test_a_check_sends_headers_and_query_too(openai_with: OpenAIWith, endpoint: OpenAIStandIn) -> None:
    assert await openai_with(**{**AZURE, "path": "/openai/v1"}).check() == "ok"
    assert [seen.headers["api-key"] for seen in endpoint.seen] == [KEY] * len(endpoint.seen)
    assert {seen.target.partition("?")[2] for seen in endpoint.seen} == {"api-version=2026-05-01"}
    with pytest.raises(ProviderUnavailable):
        await openai_with(**{**AZURE, "path": "/openai/v1", "headers": {"api-key": "another"}}).check()


async def test_headers_go_beside_a_key_and_authorization_where_there_is_none(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn
) -> None:
    await openai_with(headers={"X-Project": "a b"}).draw(banana(), deadline=soon())
    await openai_with(key=None, headers={"authorization": f"Bearer {KEY}"}).draw(banana(), deadline=soon())
    assert [seen.headers["authorization"] for seen in endpoint.seen] == [f"Bearer {KEY}"] * 2
    assert endpoint.seen[0].headers["x-project"] == "a b"


async def test_no_header_and_no_query_of_the_operator_goes_with_a_download(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn
) -> None:
    endpoint.faults.append(at("/files/1024x1024.png"))
    await openai_with(**AZURE).draw(banana(), deadline=soon())
    fetched = endpoint.seen[-1]
    assert fetched.target == "/files/1024x1024.png"
    assert KEY not in repr(fetched)


REFUSED: list[dict[str, Any]] = [
    *({"headers": {name: KEY}} for name in ("", "a b", "a:", "é", "x\r\ny", "(a)", "a" * 101)),
    *({"headers": {name: KEY}} for name in ("Host", "content-length", "Transfer-Encoding", "CONNECTION", "Expect")),
    *({"headers": {name: KEY}} for name in ("TE", "Upgrade", "Trailer", "Keep-Alive", "Proxy-Authorization")),
    *({"headers": {name: KEY}} for name in ("Content-Type", "Content-Encoding", "Accept-Encoding")),
    *({"headers": {"api-key": f"{KEY}{end}"}} for end in ("\n", "\r\nHost: x", "ü", "\x7f", " ", "  a")),
    {"headers": {"api-key": ""}},
    {"headers": {"api-key": KEY, "API-Key": KEY}},
    {"headers": {"Authorization": KEY}},
    {"path": "/v1?api-version=1", "query": {"api-version": KEY}},
]


@pytest.mark.parametrize("options", REFUSED, ids=repr)
def test_a_header_or_query_that_a_call_cannot_have_is_refused_without_quoting_it(
    openai_with: OpenAIWith, options: Mapping[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"^[A-Z][a-zA-Z ,:'-]+( 100 characters)?$") as raised:
        openai_with(**options)
    assert KEY not in str(raised.value)


def of_azure(status: int, code: str, **more: object) -> Reply:
    return json_reply({"error": {"code": code, "message": "Words of the provider", **more}}, status=status)


_POLICY = {"code": "ResponsibleAIPolicyViolation", "content_filter_results": {"violence": {"filtered": True}}}


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (of_azure(400, "content_policy_violation", inner_error=_POLICY), "refused"),
        (of_azure(400, "something", inner_error=_POLICY), "refused"),
        (of_azure(400, "something", innererror=_POLICY), "refused"),
        (of_azure(400, "contentFilter"), "refused"),
        (of_azure(404, "DeploymentNotFound"), "unusable"),
        (of_azure(200, "DeploymentNotFound"), "unusable"),
        (of_azure(401, "401"), "unusable"),
        (json_reply({"statusCode": 401, "message": "Access denied"}, status=401), "unusable"),
        (of_azure(403, "403"), "unusable"),
        (of_azure(429, "insufficient_quota"), "unusable"),
        (failed(429, "RateLimitReached", headers={"retry-after-ms": "300000"}), "busy"),
        (of_azure(400, "OperationNotSupported"), "request"),
        (of_azure(500, "InternalServerError"), "failed"),
    ],
)
async def test_azures_errors_have_the_meaning_of_openais(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn, reply: Reply, failure: str
) -> None:
    endpoint.faults.append(replace(reply, headers={**reply.headers, "apim-request-id": "a-1"}))
    with pytest.raises(ProviderError) as raised:
        await openai_with(**AZURE).draw(banana(), deadline=soon())
    assert (raised.value.failure, raised.value.provider_request_id) == (failure, "a-1")
    assert raised.value.may_have_been_paid is (failure == "failed")


WISHES: dict[str, Any] = {"quality": "high", "background": "opaque", "format": "webp", "compression": 40}


@pytest.mark.parametrize(
    ("capabilities", "wishes", "sent"),
    [
        (set(), WISHES, {}),
        (ALL, {}, {}),
        ({"quality"}, WISHES, {"quality": "high"}),
        ({"background"}, WISHES, {"background": "opaque"}),
        ({"background"}, {"background": "transparent"}, {}),
        ({"transparent"}, {"background": "transparent"}, {"background": "transparent"}),
        ({"transparent"}, WISHES, {"background": "opaque"}),
        ({"compression"}, WISHES, {"output_format": "webp", "output_compression": 40}),
        ({"compression"}, {"format": "png", "compression": 40}, {"output_format": "png"}),
        ({"compression"}, {"format": "jpeg"}, {"output_format": "jpeg"}),
        ({"compression"}, {"compression": 40}, {}),
        (
            ALL,
            WISHES,
            {"quality": "high", "background": "opaque", "output_format": "webp", "output_compression": 40},
        ),
    ],
)
async def test_what_a_request_asks_for_is_sent_where_the_model_can_do_it(
    openai_with: OpenAIWith,
    endpoint: OpenAIStandIn,
    capabilities: set[str],
    wishes: Mapping[str, Any],
    sent: Mapping[str, object],
) -> None:
    provider = openai_with(capabilities=frozenset(capabilities))
    image = await provider.draw(replace(banana(), **wishes), deadline=soon())
    assert endpoint.seen[0].json() == {**PLAIN, **sent}
    assert image.format == sent.get("output_format", "png")
    assert image.compression == sent.get("output_compression")


async def test_without_capabilities_the_body_has_the_bytes_that_it_always_had(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn
) -> None:
    await openai_with().draw(DrawRequest('A "cute" banana 🍌', Size(1024, 1024), **WISHES), deadline=soon())
    expected = '{"model":"%s","prompt":"A \\"cute\\" banana 🍌","n":1,"size":"1024x1024"}'
    assert endpoint.seen[0].body == (expected % MODEL).encode()


async def test_an_image_that_comes_in_another_format_is_not_marked_as_compressed(
    openai_with: OpenAIWith, endpoint: OpenAIStandIn
) -> None:
    endpoint.faults.append(Reply(image_bytes(1024, 1024)))
    image = await openai_with(capabilities=ALL).draw(replace(banana(), **WISHES), deadline=soon())
    assert (image.format, image.compression) == ("png", None)
