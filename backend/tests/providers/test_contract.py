"""What every provider promises, whichever it is."""

import asyncio
from collections.abc import Iterator
from io import BytesIO

import pytest
from app.core.errors import Unavailable
from app.core.pool import BoundedPool
from app.providers import Order, Provider, Size
from app.providers.stub import StubProvider
from PIL import Image


@pytest.fixture(params=[StubProvider])
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    pool = BoundedPool(threads=1, queue_max=8, name="draw")
    yield request.param(pool)
    pool.close()


@pytest.mark.parametrize("size", [Size(64, 64), Size(65, 301), Size(512, 256)])
async def test_a_picture_has_exactly_the_ordered_size_and_is_what_it_says(provider: Provider, size: Size) -> None:
    assert provider.refusal(size) is None
    picture = await provider.draw(Order("A cute banana", size))
    with Image.open(BytesIO(picture.content)) as opened:
        assert opened.size == (size.width, size.height)
        assert Image.MIME[opened.format or ""] == picture.media_type


async def test_the_same_order_gives_the_same_bytes(provider: Provider) -> None:
    order = Order("A cute banana", Size(128, 96))
    first, second = await asyncio.gather(provider.draw(order), provider.draw(order))
    assert first == second


@pytest.mark.parametrize("size", [Size(1, 1), Size(99_999, 99_999), Size(64, 99_999), Size(99_999, 64)])
def test_a_size_that_cannot_be_drawn_is_refused_with_what_can(provider: Provider, size: Size) -> None:
    assert any(character.isdigit() for character in provider.refusal(size) or "")


async def test_more_orders_than_may_wait_are_refused_at_once() -> None:
    pool = BoundedPool(threads=1, queue_max=1, name="draw")
    orders = [StubProvider(pool).draw(Order("A cute banana", Size(64, 64))) for _ in range(5)]
    outcomes = await asyncio.gather(*orders, return_exceptions=True)
    assert [isinstance(outcome, Unavailable) for outcome in outcomes] == [False, False, True, True, True]
    pool.close()
