"""Downloads from the URL that an OpenAI-compatible endpoint names: allowed hosts, and no credentials."""

import asyncio
from collections.abc import Sequence

import httpx2
import pytest
from app.core.pool import BoundedPool
from app.providers import ProviderFailed, ProviderTimeout
from app.providers.openai import OpenAIProvider
from app.providers.transport import DirectTransport
from tests.providers.remote import KEY, OpenAIResolving, OpenUpstream, Serve, banana, openai_provider, soon
from tests.standins.gemini import html, image_bytes
from tests.standins.openai import OpenAIStandIn, at
from tests.standins.wire import Reply, Seen

IMAGE = image_bytes(1024, 1024)
PUBLIC = ["93.184.216.34"]


@pytest.mark.parametrize("path", ["/files/1024x1024.png", "/files/1024x1024.png?signature=a%2Fb%20c"])
async def test_an_image_at_the_endpoint_itself_is_fetched_without_the_key(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, endpoint_url: str, path: str
) -> None:
    endpoint.faults.append(at(f"{endpoint_url}{path}"))
    endpoint.file_faults.append(Reply(IMAGE))
    assert (await openai.draw(banana(), deadline=soon())).content == IMAGE
    fetched = endpoint.seen[-1]
    assert fetched.target == path
    assert KEY not in repr(fetched)


@pytest.mark.parametrize(
    "fault", [html(500), html(), Reply(is_reset=True), Reply(IMAGE, cut_after=99), Reply(IMAGE[:-50])]
)
async def test_only_the_download_is_repeated_and_never_the_drawing(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, endpoint_url: str, fault: Reply
) -> None:
    endpoint.faults.append(at(f"{endpoint_url}/files/1024x1024.png"))
    endpoint.file_faults.extend([fault] * 5)
    request = banana()
    with pytest.raises(ProviderFailed) as raised:
        await openai.draw(request, deadline=soon())
    assert [seen.method for seen in endpoint.seen] == ["POST", "GET", "GET", "GET"]
    assert (request.tally.calls, request.tally.paid_calls) == (1, 1)
    assert raised.value.failure in {"failed", "unreadable"}


async def test_a_download_that_is_refused_is_no_fault_of_the_request(
    openai: OpenAIProvider, endpoint: OpenAIStandIn
) -> None:
    endpoint.faults.append(at("/files/1024x1024.png"))
    endpoint.file_faults.append(html(404))
    with pytest.raises(ProviderFailed) as raised:
        await openai.draw(banana(), deadline=soon())
    assert (raised.value.failure, raised.value.may_have_been_paid) == ("failed", True)


async def test_a_download_is_limited_in_bytes(
    endpoint: OpenAIStandIn, endpoint_url: str, open_upstream: OpenUpstream, pool: BoundedPool
) -> None:
    openai = openai_provider(open_upstream(bytes_max=100_000, attempts_max=1), pool, endpoint_url)
    endpoint.faults.append(at(f"{endpoint_url}/files/1024x1024.png"))
    endpoint.file_faults.append(Reply(b" " * 10_000, is_endless=True))
    with pytest.raises(ProviderFailed):
        await openai.draw(banana(), deadline=soon())


async def test_a_download_has_the_deadline_of_its_drawing(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, endpoint_url: str
) -> None:
    endpoint.faults.append(at(f"{endpoint_url}/files/1024x1024.png"))
    endpoint.file_faults.append(Reply(gate=asyncio.Event()))
    with pytest.raises(ProviderTimeout):
        await openai.draw(banana(), deadline=asyncio.get_running_loop().time() + 0.2)


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:1/1.png",
        "http://localhost/1.png",
        "//pictures.test/1.png",
        "https://pictures.test/1.png",
        "https://user@pictures.test/1.png",
        "file:///etc/passwd",
        "http://[",
        "data:image/png;base64,AAAA",
    ],
)
async def test_a_redirect_to_another_origin_is_not_followed(
    openai_resolving: OpenAIResolving,
    endpoint: OpenAIStandIn,
    endpoint_url: str,
    internet: list[httpx2.Request],
    target: str,
) -> None:
    endpoint.faults.append(at(f"{endpoint_url}/files/1024x1024.png"))
    endpoint.file_faults.append(Reply(b"", 302, {"Location": target}))
    with pytest.raises(ProviderFailed):
        await openai_resolving(resolve_in_public).draw(banana(), deadline=soon())
    assert (len(endpoint.seen), internet) == (2, [])


async def test_redirects_end_after_the_third(openai: OpenAIProvider, endpoint: OpenAIStandIn) -> None:
    endpoint.faults.append(at("/files/1024x1024.png"))
    endpoint.file_faults.extend([Reply(b"", 307, {"Location": "/files/1024x1024.png"})] * 9)
    with pytest.raises(ProviderFailed):
        await openai.draw(banana(), deadline=soon())
    assert [seen.method for seen in endpoint.seen] == ["POST", *["GET"] * 4]


async def test_each_redirect_is_resolved_and_checked_anew(
    openai_resolving: OpenAIResolving, endpoint: OpenAIStandIn, internet: list[httpx2.Request]
) -> None:
    """A host that resolves to a private address once it has redirected is not requested again."""
    found = iter([PUBLIC, ["127.0.0.1"]])

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return next(found)

    endpoint.faults.append(at("https://pictures.test/redirect"))
    with pytest.raises(ProviderFailed):
        await openai_resolving(resolve).draw(banana(), deadline=soon())
    assert [request.url.host for request in internet] == PUBLIC


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch, endpoint_url: str) -> list[httpx2.Request]:
    """The requests to hosts other than the endpoint. They are not sent, and answered with an image."""
    sent: list[httpx2.Request] = []
    send = DirectTransport.handle_async_request

    async def watch(transport: DirectTransport, request: httpx2.Request) -> httpx2.Response:
        if str(request.url).startswith(f"{endpoint_url}/"):
            return await send(transport, request)
        sent.append(request)
        if request.url.path == "/redirect":
            return httpx2.Response(302, headers={"Location": "/1.png"}, stream=httpx2.ByteStream(b""))
        return httpx2.Response(200, stream=httpx2.ByteStream(IMAGE))

    monkeypatch.setattr(DirectTransport, "handle_async_request", watch)
    return sent


async def resolve_in_public(_host: str, _port: int) -> Sequence[str]:
    return PUBLIC


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.1.2.3",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fd00::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "ff02::1",
    "not an address",
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_host_name_that_resolves_to_a_private_address_is_refused(
    openai_resolving: OpenAIResolving, endpoint: OpenAIStandIn, internet: list[httpx2.Request], address: str
) -> None:
    for addresses in ([address], [*PUBLIC, address], [address, *PUBLIC]):

        async def resolve(_host: str, _port: int, found: Sequence[str] = addresses) -> Sequence[str]:
            return found

        endpoint.faults.append(at("https://pictures.test/1.png"))
        with pytest.raises(ProviderFailed):
            await openai_resolving(resolve).draw(banana(), deadline=soon())
    assert internet == []


@pytest.mark.parametrize(
    "url",
    [
        "http://pictures.test/1.png",
        "https://user@pictures.test/1.png",
        "https://user:password@pictures.test/1.png",
        "https://pictures.test:0/1.png",
        "https://pictures.test:99999/1.png",
        "ftp://pictures.test/1.png",
    ],
)
async def test_a_public_host_is_requested_only_by_https_and_without_credentials(
    openai_resolving: OpenAIResolving, endpoint: OpenAIStandIn, internet: list[httpx2.Request], url: str
) -> None:
    endpoint.faults.append(at(url))
    with pytest.raises(ProviderFailed):
        await openai_resolving(resolve_in_public).draw(banana(), deadline=soon())
    assert internet == []


async def test_a_host_name_without_an_address_is_refused(
    openai_resolving: OpenAIResolving, endpoint: OpenAIStandIn, internet: list[httpx2.Request]
) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return []

    endpoint.faults.append(at("https://pictures.test/1.png"))
    with pytest.raises(ProviderFailed):
        await openai_resolving(resolve).draw(banana(), deadline=soon())
    assert internet == []


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700:4700::1111"])
async def test_any_public_address_may_serve_an_image(
    openai_resolving: OpenAIResolving, endpoint: OpenAIStandIn, internet: list[httpx2.Request], address: str
) -> None:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return [address]

    endpoint.faults.append(at("https://pictures.test/1.png"))
    assert (await openai_resolving(resolve).draw(banana(), deadline=soon())).content == IMAGE
    assert [request.url.host for request in internet] == [address]


async def test_no_spelling_of_a_loopback_address_reaches_it(
    openai: OpenAIProvider, endpoint: OpenAIStandIn, serve: Serve
) -> None:
    visits: list[Seen] = []

    def trap(seen: Seen) -> Reply:
        visits.append(seen)
        return Reply(IMAGE)

    trap_url = await serve(trap)
    port = httpx2.URL(trap_url).port
    hosts = [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
        "user@127.1",
    ]
    urls = [f"{scheme}://{host}:{port}/1.png" for scheme in ("http", "https") for host in hosts]
    odd = [
        "file:///etc/passwd",
        "gopher://127.0.0.1:1/",
        "//127.0.0.1/",
        f"//127.0.0.1:{port}/1.png",
        f" {trap_url}/1.png",
        "https://",
        "https://\x00/",
    ]
    for url in [*urls, *odd, "https://127.0.0.1:99999/", "https://pictures.test:0/"]:
        endpoint.faults.append(at(url))
        with pytest.raises(ProviderFailed):
            await openai.draw(banana(), deadline=soon())
    assert visits == []
    assert all(seen.method == "POST" for seen in endpoint.seen)


async def test_another_port_of_the_endpoints_host_is_refused(
    endpoint: OpenAIStandIn, openai: OpenAIProvider, serve: Serve
) -> None:
    neighbour = OpenAIStandIn(api_key=KEY)
    endpoint.faults.append(at(f"{await serve(neighbour.answer)}/files/1024x1024.png"))
    with pytest.raises(ProviderFailed):
        await openai.draw(banana(), deadline=soon())
    assert neighbour.seen == []


async def test_the_connection_goes_to_the_address_that_was_checked(
    openai_resolving: OpenAIResolving, endpoint: OpenAIStandIn, internet: list[httpx2.Request]
) -> None:
    """A host name that resolves to a private address at a second lookup is looked up once."""
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return PUBLIC

    endpoint.faults.append(at("https://pictures.test:8443/1.png?signature=x"))
    await openai_resolving(resolve).draw(banana(), deadline=soon())
    assert asked == [("pictures.test", 8443)]
    [request] = internet
    assert str(request.url) == "https://93.184.216.34:8443/1.png?signature=x"
    assert request.headers["host"] == "pictures.test:8443"
    assert request.extensions["sni_hostname"] == "pictures.test"
    assert request.headers["connection"] == "close"
    assert "authorization" not in request.headers
