"""The guarantees of every provider."""

import asyncio
from io import BytesIO

import pytest
from app.core.fair_queue import FairPool
from app.providers import DrawRequest, NoFreeSlot, Provider, ProviderTimeout, Size
from app.providers.stub import StubProvider
from app.providers.stub.editing import EditingProvider
from PIL import Image
from tests.providers.remote import banana, edit, soon

SIZES = {
    "stub": [Size(64, 64), Size(65, 301), Size(1024, 512)],
    "gemini": [Size(256, 256), Size(1536, 1024), Size(768, 1024), Size(720, 1280), Size(1280, 1024)],
    "editing": [Size(65, 301)],
    "openai": [Size(1024, 1024), Size(1536, 1024), Size(1024, 1536)],
}


@pytest.fixture
def stub(pool: FairPool) -> StubProvider:
    return StubProvider(pool)


@pytest.fixture
def editing(stub: StubProvider, pool: FairPool) -> EditingProvider:
    return EditingProvider(stub, pool)


@pytest.fixture(params=list(SIZES))
def provider(request: pytest.FixtureRequest) -> Provider:
    provider: Provider = request.getfixturevalue(request.param)
    return provider


def test_a_provider_has_a_name_and_only_the_stub_is_deterministic(provider: Provider) -> None:
    assert provider.name in SIZES
    assert provider.is_deterministic is (provider.name == "stub")


async def test_an_image_has_exactly_the_requested_size_and_its_stated_media_type(provider: Provider) -> None:
    for size in SIZES[provider.name]:
        assert provider.refusal(size) is None
        image = await provider.draw(DrawRequest("A cute banana", size), deadline=soon())
        with Image.open(BytesIO(image.content)) as opened:
            assert opened.size == (size.width, size.height)
            assert Image.MIME[opened.format or ""] == image.media_type


@pytest.mark.parametrize("provider", sorted(SIZES.keys() - {"stub"}), indirect=True)
async def test_images_and_a_mask_go_into_an_image_of_the_requested_size(provider: Provider) -> None:
    size = SIZES[provider.name][0]
    drawn = set()
    for number, has_mask in ((0, False), (1, False), (1, True), (3, False), (16, False)):
        image = await provider.draw(edit(number, has_mask=has_mask, size=size), deadline=soon())
        with Image.open(BytesIO(image.content)) as opened:
            assert opened.size == (size.width, size.height)
        drawn.add(image.content)
    assert len(drawn) == (5 if provider.name == "editing" else 1)  # the stand-ins draw always the same


async def test_check_is_ok_when_the_provider_answers(provider: Provider) -> None:
    assert await provider.check() == "ok"


@pytest.mark.parametrize("size", [Size(0, 0), Size(1, 1), Size(99_999, 99_999), Size(64, 99_999), Size(99_999, 64)])
def test_an_unsupported_size_is_refused_with_the_supported_ones(provider: Provider, size: Size) -> None:
    assert any(character.isdigit() for character in provider.refusal(size) or "")


async def test_a_passed_deadline_is_a_timeout(provider: Provider) -> None:
    with pytest.raises(ProviderTimeout) as raised:
        await provider.draw(banana(), deadline=asyncio.get_running_loop().time() - 1)
    assert raised.value.sentence == "The provider took too long"


async def test_the_stub_draws_the_same_bytes_for_the_same_request(stub: StubProvider) -> None:
    request = DrawRequest("A cute banana", Size(128, 96))
    first, second = await asyncio.gather(stub.draw(request, deadline=soon()), stub.draw(request, deadline=soon()))
    assert first == second


async def test_requests_beyond_the_queue_are_refused_at_once() -> None:
    pool = FairPool(threads=1, queue_max=1, name="draw")
    request = DrawRequest("A cute banana", Size(64, 64))
    requests = [StubProvider(pool).draw(request, deadline=soon()) for _ in range(5)]
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    assert [isinstance(outcome, NoFreeSlot) for outcome in outcomes] == [False, False, True, True, True]
    pool.close()
