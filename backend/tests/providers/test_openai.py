"""OpenAI-compatible endpoints: the requests that are sent to them, and the results of their responses."""

import pytest
from app.core.errors import Unavailable
from app.core.pool import BoundedPool
from app.providers import ContentRefused, DrawRequest, NoImageReturned, ProviderFailed, ProviderUnavailable, Size
from app.providers.openai import OPENAI_SIZES, OpenAIProvider, parse_sizes
from tests.providers.remote import KEY, OpenUpstream, banana, openai_provider, soon
from tests.standins.gemini import image_bytes
from tests.standins.openai import MODEL, OpenAIStandIn, failed, in_place
from tests.standins.wire import Reply, json_reply

IMAGE = image_bytes(1024, 1024)


async def test_a_request_holds_prompt_and_size_and_the_key_in_its_header(
    openai: OpenAIProvider, endpoint: OpenAIStandIn
) -> None:
    await openai.draw(DrawRequest("A cute banana", Size(1536, 1024)), deadline=soon())
    [seen] = endpoint.seen
    assert seen.headers.pop("authorization") == f"Bearer {KEY}"
    assert KEY not in repr(seen)
    assert (seen.method, seen.target) == ("POST", "/v1/images/generations")
    assert seen.json() == {"model": MODEL, "prompt": "A cute banana", "n": 1, "size": "1536x1024"}


async def test_without_a_key_none_is_sent(
    endpoint_url: str, endpoint: OpenAIStandIn, open_upstream: OpenUpstream, pool: BoundedPool
) -> None:
    keyless = openai_provider(open_upstream(), pool, endpoint_url, key=None)
    with pytest.raises(ProviderUnavailable):
        await keyless.draw(banana(), deadline=soon())
    assert "authorization" not in endpoint.seen[0].headers


@pytest.mark.parametrize(
    "refusal",
    [
        failed(400, "content_policy_violation"),
        failed(400, "moderation_blocked"),
        failed(400, "contentFilter"),
        failed(403, "content_filter"),
    ],
)
async def test_a_prompt_that_the_provider_refuses_is_reported_as_refused_and_not_retried(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, refusal: Reply
) -> None:
    endpoint.faults.append(refusal)
    with pytest.raises(ContentRefused):
        await openai.draw(banana(), deadline=soon())
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize("unusable", [(429, "insufficient_quota"), (400, "billing_hard_limit_reached"), (401, "x"),
                                      (402, "x"), (403, "x"), (404, "model_not_found")])  # fmt: skip
async def test_an_error_for_the_operator_is_reported_and_not_retried(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, unusable: tuple[int, str]
) -> None:
    endpoint.faults.append(failed(*unusable))
    with pytest.raises(ProviderUnavailable):
        await openai.draw(banana(), deadline=soon())
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize(
    ("name", "value", "expected"), [("Retry-After", "41.2", "42"), ("Retry-After-Ms", "50000", "50")]
)
async def test_a_providers_delay_beyond_the_deadline_becomes_retry_after_at_once(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, name: str, value: str, expected: str
) -> None:
    endpoint.faults.append(failed(429, "rate_limit_exceeded", headers={name: value}))
    with pytest.raises(Unavailable) as raised:
        await openai.draw(banana(), deadline=soon())
    assert raised.value.headers == {"Retry-After": expected}
    assert len(endpoint.seen) == 1


async def test_a_providers_delay_before_the_deadline_is_waited_for(
    openai: OpenAIProvider, endpoint: OpenAIStandIn
) -> None:
    endpoint.faults.append(failed(429, "rate_limit_exceeded", headers={"retry-after-ms": "5"}))
    assert (await openai.draw(banana(), deadline=soon())).media_type == "image/png"


@pytest.mark.parametrize("nothing", [json_reply({"data": []}), json_reply({}), json_reply({"data": [{}]})])
async def test_a_response_without_image_and_reason_is_retried_once_and_then_reported(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, nothing: Reply
) -> None:
    endpoint.faults.extend([nothing] * 5)
    with pytest.raises(NoImageReturned):
        await openai.draw(banana(), deadline=soon())
    assert len(endpoint.seen) == 2


async def test_an_image_of_another_shape_is_not_paid_for_again(openai: OpenAIProvider, endpoint: OpenAIStandIn) -> None:
    endpoint.faults.extend([in_place(image_bytes(1536, 1024))] * 3)
    with pytest.raises(ProviderFailed):
        await openai.draw(banana(), deadline=soon())
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize("text", ["", "1024", "0x0", "1024x1024;", "99999x99999", "٣٢x٣٢"])
def test_an_unreadable_list_of_sizes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="entry 2"):
        parse_sizes(f"1024x1024,{text}")


def test_the_default_sizes_can_be_read() -> None:
    assert parse_sizes(OPENAI_SIZES) == [Size(1024, 1024), Size(1536, 1024), Size(1024, 1536)]
