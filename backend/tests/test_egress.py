"""EGRESS_PROXY and EGRESS_CA_FILE: providers, downloads and the S3 are reached through them, and by nothing else."""

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from app.catalogue.configured import catalogue_of
from app.catalogue.opened import open_catalogue
from app.core.egress import Egress, shared_ssl_context
from app.core.fair_queue import FairPool
from app.core.metrics import Metrics
from app.core.settings import ConfigurationError, Settings
from app.payments.opened import open_stripe
from app.providers import DrawRequest, Provider, ProviderFailed, ProviderUnavailable, Size
from app.storage import StoreUnavailable
from app.storage.configured import opened_store
from pydantic import SecretStr
from tests.standins.authority import Authority
from tests.standins.gemini import GeminiStandIn
from tests.standins.openai import OpenAIStandIn, at
from tests.standins.s3 import s3_server
from tests.standins.stripe import StripeStandIn
from tests.standins.tunnel import Tunnel, tunnel, with_tls
from tests.standins.wire import serving

HOST, PUBLIC = "provider.test", "93.184.216.34"
KEY, PASSWORD = "canary-key-of-the-provider-0123456789", "canary-password"
CREDENTIAL = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
BANANA = DrawRequest("A cute banana", Size(1024, 1024))
FAR = float("inf")


@dataclass(frozen=True)
class World:
    """A provider that only the proxy can find, and whose certificate only the authority's file makes trusted."""

    stand_in: GeminiStandIn | OpenAIStandIn
    proxy: Tunnel
    settings: Settings

    def with_(self, **changes: object) -> Settings:
        return Settings(**{**self.settings.model_dump(), **changes})


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=["gemini", "openai"])
async def world(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[World]:
    """Each provider in turn."""
    stand_in = (GeminiStandIn if request.param == "gemini" else OpenAIStandIn)(api_key=KEY)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(stand_in.answer, tls=authority.server(HOST, "pictures.test")))
        proxy = await stack.enter_async_context(tunnel(url, credential=CREDENTIAL))
        path = "/v1/?api-version=X" if request.param == "openai" else "/?api-version=X"
        named = {"image_provider": request.param, f"{request.param}_api_key": KEY}
        base_url = {f"{request.param}_base_url": f"https://{HOST}:4433{path}"}
        through = {"egress_proxy": proxy.url.replace("//", f"//user:{PASSWORD}@"), "egress_ca_file": authority.ca_file}
        yield World(stand_in, proxy, Settings(**named, **base_url, **through))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that is not reached is called again at once."""
    monkeypatch.setattr("app.providers.upstream._PAUSE_SECONDS_MAX", 0.001)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Provider]:
    pool = FairPool(threads=1, queue_max=10, name="decode")
    try:
        async with open_catalogue(
            catalogue_of(settings), settings, drawing=pool, decoding=pool, metrics=Metrics()
        ) as catalogue:
            yield catalogue.routes["nano-banana"][0].provider
    finally:
        pool.close()


async def test_a_provider_is_reached_through_the_proxy_which_resolves_its_name(world: World, log: StringIO) -> None:
    async with opened(world.settings) as provider:
        assert (await provider.draw(BANANA, deadline=FAR)).media_type == "image/png"
        assert world.proxy.connected == [f"{HOST}:4433"]
        assert PASSWORD not in repr(world.stand_in.seen)
    assert PASSWORD not in log.getvalue()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"egress_ca_file": None}, "shows a certificate that is not trusted"),
        ({"egress_proxy": None}, "names a host that has no address"),
        ({"egress_proxy": "http://127.0.0.1:1"}, "cannot be reached through EGRESS_PROXY"),
        ({"egress_proxy": f"http://{PASSWORD}@nobody.invalid:1"}, "cannot be reached through EGRESS_PROXY"),
        ("without its password", "cannot be reached through EGRESS_PROXY"),
    ],
)
async def test_what_keeps_a_provider_from_being_reached_is_named_and_costs_nothing(
    world: World, log: StringIO, changes: dict[str, object] | str, reason: str
) -> None:
    wrong = {"egress_proxy": world.proxy.url} if isinstance(changes, str) else changes
    async with opened(world.with_(**wrong)) as provider:
        with pytest.raises(ProviderUnavailable, match=reason):
            await provider.check()
        with pytest.raises(ProviderFailed) as raised:
            await provider.draw(BANANA, deadline=FAR)
    assert not raised.value.may_have_been_paid
    assert world.stand_in.seen == []
    assert PASSWORD not in log.getvalue()


async def test_the_environments_proxy_and_certificates_are_not_followed(
    world: World, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, world.proxy.url)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    shared_ssl_context.cache_clear()
    async with opened(world.with_(egress_proxy=None)) as provider:
        with pytest.raises(ProviderUnavailable, match="names a host that has no address"):
            await provider.check()
    async with opened(world.with_(egress_ca_file=None)) as provider:
        with pytest.raises(ProviderUnavailable, match="certificate"):
            await provider.check()
    assert set(world.proxy.connected) == {f"{HOST}:4433"}


async def test_a_base_urls_query_is_sent_with_every_call_and_its_slash_is_cut(world: World) -> None:
    async with opened(world.settings) as provider:
        assert await provider.check() == "ok"
        await provider.draw(BANANA, deadline=FAR)
    assert {seen.target.partition("?")[2] for seen in world.stand_in.seen} == {"api-version=X"}


async def test_a_download_goes_through_the_proxy_to_the_address_that_was_checked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return [PUBLIC]

    if not isinstance(world.stand_in, OpenAIStandIn):
        return
    async with opened(world.settings) as provider:
        monkeypatch.setattr(provider, "_resolve", resolve)
        world.stand_in.faults.append(at("https://pictures.test/files/1024x1024.png"))
        await provider.draw(BANANA, deadline=FAR)
    assert world.proxy.connected == [f"{HOST}:4433", f"{PUBLIC}:443"]


@pytest.fixture
async def bucket(authority: Authority, tmp_path: Path) -> AsyncIterator[tuple[Tunnel, Settings]]:
    """A bucket behind TLS and a proxy, and the settings for it."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(s3_server("pictures"))
        url = await stack.enter_async_context(with_tls(server.url, authority.server("store.test")))
        proxy = await stack.enter_async_context(tunnel(url, credential=CREDENTIAL))
        account = {"s3_access_key_id": SecretStr(server.key_id), "s3_secret_access_key": SecretStr(server.secret)}
        where = {"image_store": "s3", "s3_bucket": "pictures", "s3_endpoint": "https://store.test:4433"}
        through = {"egress_proxy": proxy.url.replace("//", f"//user:{PASSWORD}@"), "egress_ca_file": authority.ca_file}
        yield proxy, Settings(**account, **where, **through, data_dir=tmp_path)


async def checked(settings: Settings) -> None:
    async with opened_store(settings, settings.image_store) as store:
        await store.check(size=1000)


async def test_the_s3_is_reached_through_the_same_proxy_and_certificates_and_no_others(
    bucket: tuple[Tunnel, Settings], authority: Authority, monkeypatch: pytest.MonkeyPatch, log: StringIO
) -> None:
    proxy, settings = bucket
    await checked(settings)
    assert set(proxy.connected) == {"store.test:4433"}
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    proxies = [proxy.url, "http://127.0.0.1:1", f"http://{PASSWORD}@nobody.invalid:1"]
    wrong: list[tuple[str, Mapping[str, object]]] = [
        ("certificate", {"egress_ca_file": None}),
        ("no address", {"egress_proxy": None}),
    ]
    wrong += [("cannot be reached through EGRESS_PROXY", {"egress_proxy": SecretStr(url)}) for url in proxies]
    for reason, changes in wrong:
        with pytest.raises(StoreUnavailable, match=reason):
            await checked(Settings(**{**settings.model_dump(), **changes}))
    assert PASSWORD not in log.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file"), ("", "it is empty"), ("words", "it holds no certificates in PEM")]
)
def test_a_file_of_certificates_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=f"EGRESS_CA_FILE cannot be used: {reason}"):
        Egress.of(Settings(egress_ca_file=path))


async def test_stripe_is_reached_through_the_proxy_and_by_the_certificates_of_the_operator(
    authority: Authority,
) -> None:
    stand_in = StripeStandIn()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        proxy = await enter(tunnel(await enter(serving(stand_in.answer, tls=authority.server(HOST)))))
        named = {"stripe_secret_key": stand_in.key, "stripe_api_url": f"https://{HOST}:4433"}
        stripe = await enter(open_stripe(Settings(**named, egress_proxy=proxy.url, egress_ca_file=authority.ca_file)))
        assert stripe is not None
        assert await stripe.find_or_create_customer("acc_1", "a@example.com")
        assert proxy.connected == [f"{HOST}:4433"]
