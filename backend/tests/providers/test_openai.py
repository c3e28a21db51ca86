"""OpenAI-compatible endpoints: what is sent to them, and what they can answer."""

import pytest
from app.core.errors import Unavailable
from app.core.pool import BoundedPool
from app.providers import (
    ContentRefused,
    NoImageReturned,
    Order,
    ProviderFailed,
    ProviderUnavailable,
    Size,
)
from app.providers.openai import OPENAI_SIZES, OpenAIProvider, parse_sizes
from tests.providers.drawing import KEY, OpenUpstream, banana, openai_provider, soon
from tests.standins.gemini import picture_bytes
from tests.standins.openai import MODEL, OpenAIStandIn, failed, in_place
from tests.standins.wire import Reply, json_reply

PICTURE = picture_bytes(1024, 1024)


async def test_a_request_holds_the_order_and_the_key_in_its_header(
    openai: OpenAIProvider, endpoint: OpenAIStandIn
) -> None:
    await openai.draw(Order("A cute banana", Size(1536, 1024)), deadline=soon())
    [seen] = endpoint.seen
    assert seen.headers.pop("authorization") == f"Bearer {KEY}"
    assert KEY not in repr(seen)
    assert (seen.method, seen.target) == ("POST", "/v1/images/generations")
    assert seen.json() == {"model": MODEL, "prompt": "A cute banana", "n": 1, "size": "1536x1024"}


async def test_an_endpoint_without_a_key_is_sent_none(
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
async def test_what_the_provider_refuses_is_told_as_a_refusal_and_not_tried_again(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, refusal: Reply
) -> None:
    endpoint.faults.append(refusal)
    with pytest.raises(ContentRefused):
        await openai.draw(banana(), deadline=soon())
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize("unusable", [(429, "insufficient_quota"), (400, "billing_hard_limit_reached"), (401, "x"),
                                      (402, "x"), (403, "x"), (404, "model_not_found")])  # fmt: skip
async def test_what_only_the_operator_can_mend_is_told_and_not_tried_again(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, unusable: tuple[int, str]
) -> None:
    endpoint.faults.append(failed(*unusable))
    with pytest.raises(ProviderUnavailable):
        await openai.draw(banana(), deadline=soon())
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize(("name", "value", "told"), [("Retry-After", "41.2", "42"), ("Retry-After-Ms", "50000", "50")])
async def test_a_wait_beyond_the_deadline_is_told_to_the_caller_at_once(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, name: str, value: str, told: str
) -> None:
    endpoint.faults.append(failed(429, "rate_limit_exceeded", headers={name: value}))
    with pytest.raises(Unavailable) as raised:
        await openai.draw(banana(), deadline=soon())
    assert raised.value.headers == {"Retry-After": told}
    assert len(endpoint.seen) == 1


async def test_a_wait_that_is_told_and_short_enough_is_waited(openai: OpenAIProvider, endpoint: OpenAIStandIn) -> None:
    endpoint.faults.append(failed(429, "rate_limit_exceeded", headers={"retry-after-ms": "5"}))
    assert (await openai.draw(banana(), deadline=soon())).media_type == "image/png"


@pytest.mark.parametrize("nothing", [json_reply({"data": []}), json_reply({}), json_reply({"data": [{}]})])
async def test_no_picture_and_no_reason_is_tried_once_more_and_then_told(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, nothing: Reply
) -> None:
    endpoint.faults.extend([nothing] * 5)
    with pytest.raises(NoImageReturned):
        await openai.draw(banana(), deadline=soon())
    assert len(endpoint.seen) == 2


async def test_a_picture_of_another_shape_is_not_paid_for_again(
    openai: OpenAIProvider, endpoint: OpenAIStandIn
) -> None:
    endpoint.faults.extend([in_place(picture_bytes(1536, 1024))] * 3)
    with pytest.raises(ProviderFailed):
        await openai.draw(banana(), deadline=soon())
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize("text", ["", "1024", "0x0", "1024x1024;", "99999x99999", "٣٢x٣٢"])
def test_a_list_of_sizes_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="entry 2"):
        parse_sizes(f"1024x1024,{text}")


def test_the_sizes_that_come_with_the_program_can_be_read() -> None:
    assert parse_sizes(OPENAI_SIZES) == [Size(1024, 1024), Size(1536, 1024), Size(1024, 1536)]
