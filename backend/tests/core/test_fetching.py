"""The guard of URLs that clients send: what may be fetched is, and nothing else is connected to.

Every connection but those to the stand-in leads to a trap on this machine, whatever address it was for: it counts them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from ssl import SSLContext
from typing import Any

import httpx2
import pytest
from app.core import fetching
from app.core.egress import Egress
from app.core.fetching import Fetcher, FetchFailed, FetchRefused, open_fetcher
from app.core.settings import Settings
from tests.standins.authority import Authority
from tests.standins.gemini import image_bytes
from tests.standins.listening import listening
from tests.standins.wire import Reply, Seen, serving

IMAGE = image_bytes(64, 64)
PUBLIC = "93.184.216.34"
HERE = "127.0.0.0/8,::1/128"


@dataclass
class World:
    """A stand-in `https://localhost:...` with a trusted certificate, and the connections that went to the trap."""

    url: str
    certificates: Path
    replies: list[Reply] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    trapped: list[str] = field(default_factory=list)
    forgotten: int = 0

    def forget(self) -> None:
        """Has the trap looked at as if nothing had been led there."""
        self.forgotten += len(self.trapped)
        self.trapped.clear()

    def fetcher(self, resolve: Callable[..., Any] | None = None, **options: Any) -> Fetcher:
        return Fetcher(self.context, resolve=resolve, **options)

    @cached_property
    def context(self) -> SSLContext:
        return Egress(certificates=self.certificates.read_text()).ssl_context()

    @asynccontextmanager
    async def opened(self, **settings: Any) -> AsyncIterator[Fetcher]:
        given = {"allow_networks": HERE, "egress_ca_file": self.certificates}
        async with open_fetcher(Settings(**{**given, **settings})) as fetcher:
            assert fetcher is not None
            yield fetcher

    def answer(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        return self.replies.pop(0) if self.replies else Reply(IMAGE)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    authority = Authority(tmp_path)
    made = World("", authority.ca_file)
    connections: list[str] = []

    async def count(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        connections.append("one")

    send = httpx2.AsyncHTTPTransport.handle_async_request

    async def lead_astray(transport: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        is_stand_in = request.url.host == "127.0.0.1" and request.url.port == httpx2.URL(made.url).port
        if not is_stand_in:
            made.trapped.append(request.url.host)
            request.url = request.url.copy_with(host="127.0.0.2", port=trap_port)
        return await send(transport, request)

    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", lead_astray)
    async with (
        listening(count, host="127.0.0.2") as trap_port,
        serving(made.answer, tls=authority.server("localhost")) as url,
    ):
        made.url = url.replace("127.0.0.1", "localhost")
        yield made
    assert len(connections) == len(made.trapped) + made.forgotten


def always(*addresses: str) -> Callable[[str, int], Any]:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return resolve


def soon() -> float:
    return asyncio.get_running_loop().time() + 30


NOT_PUBLIC = [
    # IPv4: this network, private, shared, loopback, link-local, protocols, documentation, relays, benchmarks, multicast
    *(str(IPv4Address(0)), "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.1", "192.0.0.170", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1"),
    *("192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.255", "168.63.129.16"),
    # IPv6: unspecified, loopback, discard, unique local, link-local, site-local, multicast, documentation, segments
    *("::", "::1", "100::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1"),
    *("5f00::1", "2001:2::1", "2001:10::1", "2001:20::1", "2620:4f:8000::1", "3ffe::1", "4000::1"),
    # what leads to an IPv4 address within: compatible, mapped, translated, 6to4, Teredo, ISATAP
    *("::127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
    *("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::127.0.0.1"),
    *("2002:7f00:1::", "2002:a00:1::1", "2002:5db8:d822::1", "2001:0:7f00:1::", "2001:0:5db8:d822::80ff:fffe"),
    *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1"),
]

ODD = [
    # one address, spelled in other ways
    *("127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0x7f.0x0.0x0.0x1", "0177.0.0.1", "017700000001"),
    *("127.0.0.01", "127.000.000.001", "127.0.0.1.", "0", "00", "127.0.0.256", "[::1%25lo]", "[::1", "[127.0.0.1]"),
    *(
        "\uff11\uff12\uff17.0.0.1",
        "\u2460\u2461\u2466.0.0.1",
        "127\u30020.0.1",
        "\uff4cocalhost",
        "l%6fcalhost",
        "127%2e0.0.1",
        "loc\tal",
    ),
    *("localhost.", "localhost..", ".localhost", "-a.test", "a_.-b", "a..b", "", "a b", "a\\b", "a^b", "*"),
    # users and passwords, and what one reader takes for a user and another for a host
    *("user@pictures.test", "user:password@pictures.test", "@pictures.test", "127.0.0.1#@pictures.test"),
    *("pictures.test@127.0.0.1", "127.0.0.1\\@pictures.test", "127.0.0.1?@pictures.test", "127.0.0.1:443@x.test"),
    # other ports
    *("pictures.test:80", "pictures.test:22", "pictures.test:8443", "pictures.test:0", "pictures.test:65536"),
    *(
        "pictures.test:",
        "pictures.test:0443",
        "pictures.test:+443",
        "pictures.test:\uff14\uff14\uff13",
        "pictures.test:443:443",
    ),
]

OTHERS = [
    *("http://pictures.test/1.png", "ftp://pictures.test/1.png", "file:///etc/passwd", "data:image/png;base64,AAAA"),
    *("gopher://127.0.0.1:1/", "//pictures.test/1.png", "pictures.test/1.png", "/1.png", "", "https:", "https://"),
    *("https:/pictures.test/", "https:pictures.test", "https:\\\\pictures.test\\", "HTTPS ://pictures.test/"),
    *(" https://pictures.test/1.png", "https://pictures.test/1.png\n", "https://pictures.test/\r\nHost: x/"),
    *("https://pictures.test/é.png", "https://pictures.test/\x00", "blob:https://pictures.test/1", "javascript:1"),
    f"https://pictures.test/{'a' * 5000}",
]


def _literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@pytest.mark.parametrize("reaches_public", [True, False])
async def test_nothing_that_is_not_on_the_internet_is_connected_to(world: World, *, reaches_public: bool) -> None:
    found: list[str] = []

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return found

    fetcher = world.fetcher(resolve, reaches_public=reaches_public)
    for address in [*NOT_PUBLIC, "not an address", "2606:4700::1%lo"]:
        for found[:] in ([address], [PUBLIC, address], [address, PUBLIC]):
            with pytest.raises(FetchRefused, match="Its host has no address"):
                await fetcher.fetch("https://pictures.test/1.png", bytes_max=1000, deadline=soon())
    found[:] = [PUBLIC]
    for address in NOT_PUBLIC:
        with pytest.raises(FetchRefused, match="Its host has no address"):
            await fetcher.fetch(f"https://{_literal(address)}/1.png", bytes_max=1000, deadline=soon())
    assert len(NOT_PUBLIC) >= 60
    assert world.trapped == []


@pytest.mark.parametrize("resolve", [always(PUBLIC), None], ids=["a resolver that finds all", "the system's resolver"])
async def test_what_two_readers_could_read_differently_is_refused(
    world: World, resolve: Callable[[str, int], Any] | None
) -> None:
    fetcher = world.fetcher(resolve)
    named = [host for host in ODD if resolve is not None or not host.startswith("pictures.test")]
    for url in [*(f"https://{host}/1.png" for host in named), *(OTHERS if resolve is not None else ())]:
        with pytest.raises(FetchRefused):
            await fetcher.fetch(url, bytes_max=1000, deadline=soon())
    assert world.trapped == []
    await fetcher.close()


PUBLIC_ONES = [
    *(PUBLIC, "1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700:4700::1111", "2001:200::1"),
    *("::ffff:1.1.1.1", "64:ff9b::101:101"),
]


async def test_a_public_address_is_connected_to_itself_and_looked_up_once(world: World) -> None:
    """The name has this machine's address from its second look-up on."""
    answers: list[str] = []

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return [answers.pop(0)]

    fetcher = world.fetcher(resolve)
    for address in PUBLIC_ONES:
        answers[:] = [address, "127.0.0.1"]
        for host in ("localhost", _literal(address)):
            with pytest.raises(FetchFailed):  # the trap hangs up
                await fetcher.fetch(f"https://{host}/1.png", bytes_max=1000, deadline=soon())
        assert ([*map(ip_address, world.trapped)], answers) == ([ip_address(address)] * 2, ["127.0.0.1"])
        world.forget()


TARGETS = [
    *("https://127.0.0.2/1.png", "https://127.0.0.2:8443/1.png", "https://10.0.0.1/", "https://[::1]:8443/"),
    *("https://[::ffff:127.0.0.2]/", "http://localhost/1.png", "//127.0.0.2/", "https://user@localhost/1.png"),
    *("file:///etc/passwd", "data:image/png;base64,AAAA", "https://127.1/", "ftp://localhost/", "https://[/"),
    *("https://trap.test/", "https://trap.test:8443/", "\\\\127.0.0.2\\", "https://\u00e9/"),
]


async def test_a_redirect_is_checked_like_the_first_url(world: World) -> None:
    async def resolve(host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"] if host == "localhost" else ["127.0.0.2"]

    fetcher = world.fetcher(resolve, networks=Settings(allow_networks="127.0.0.1/32").allow_networks)
    for target in TARGETS:
        world.seen.clear()
        world.replies.append(Reply(b"", 302, {"Location": target.encode().decode("latin-1")}))
        with pytest.raises(FetchFailed, match="Could not be fetched"):
            await fetcher.fetch(world.url, bytes_max=1000, deadline=soon())
        assert (len(world.seen), world.trapped) == (1, []), target


async def test_an_image_is_fetched_from_a_network_that_the_operator_names(world: World) -> None:
    found = "/2.png?signature=a%2Fb%20c"
    world.replies += [Reply(b"", 307, {"Location": "/1.png"}), Reply(b"", 301, {"Location": f"{world.url}{found}"})]
    async with world.opened() as fetcher:
        image = await fetcher.fetch(f"{world.url}/0.png#part", bytes_max=len(IMAGE), deadline=soon())
    assert image == IMAGE
    assert [seen.target for seen in world.seen] == ["/0.png", "/1.png", found]
    assert {seen.headers["host"] for seen in world.seen} == {world.url.removeprefix("https://")}
    assert {name for seen in world.seen for name in seen.headers} <= {
        *("host", "accept", "accept-encoding", "connection", "user-agent")
    }


NO_IMAGE = {
    "another status": [Reply(IMAGE, 404)],
    "part of it": [Reply(IMAGE, 206)],
    "no image": [Reply(b"<html>canary</html>")],
    "no image, without end": [Reply(b"canary" * 1000, is_endless=True)],
    "nothing": [Reply(b"")],
    "compressed": [Reply(IMAGE, 200, {"Content-Encoding": "gzip"})],
    "cut off": [Reply(IMAGE, cut_after=99)],
    "no HTTP": [Reply(b"", 99)],
    "a connection that ends": [Reply(is_closed=True)],
    "a connection that is reset": [Reply(is_reset=True)],
    "no end of redirects": [Reply(b"", 302, {"Location": "/1.png"})] * 9,
    "a redirect without a target": [Reply(b"", 302)] * 9,
    "silence": [Reply(gate=asyncio.Event())],
    "silence after its beginning": [Reply(IMAGE[:50], is_stuck=True)],
}


async def test_whatever_keeps_an_image_from_coming_is_said_in_one_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = set[str]()
    async with world.opened() as fetcher:
        for name, replies in NO_IMAGE.items():
            monkeypatch.setattr(fetching, "_SECONDS", 0.3 if "silence" in name else 30)
            world.replies[:] = replies
            with pytest.raises(FetchFailed) as failed:
                await fetcher.fetch(f"{world.url}/1.png", bytes_max=len(IMAGE), deadline=soon())
            sentences.add(failed.value.sentence)
        elsewhere = ["https://localhost:1/", world.url.replace("localhost", "127.0.0.1")]  # refused; another name's
        for url in elsewhere:
            with pytest.raises(FetchFailed) as failed:
                await fetcher.fetch(url, bytes_max=len(IMAGE), deadline=soon())
            sentences.add(failed.value.sentence)
        with pytest.raises(FetchFailed) as failed:
            await fetcher.fetch(world.url, bytes_max=len(IMAGE), deadline=asyncio.get_running_loop().time() - 1)
    assert sentences == {failed.value.sentence}


async def test_a_large_image_is_read_no_further_than_its_bound(world: World) -> None:
    world.replies.append(Reply(IMAGE, is_endless=True))
    async with world.opened() as fetcher:
        with pytest.raises(FetchFailed, match="is larger than 64 KiB"):
            await fetcher.fetch(world.url, bytes_max=65_536, deadline=soon())


async def test_settings_say_whether_and_from_where_images_are_fetched(world: World) -> None:
    for off in ({"fetch_images": "off"}, {"egress_proxy": "http://127.0.0.1:1"}):
        async with open_fetcher(Settings(**off)) as fetcher:
            assert fetcher is None
    async with world.opened(egress_proxy="http://127.0.0.1:1") as fetcher:
        assert await fetcher.fetch(world.url, bytes_max=len(IMAGE), deadline=soon()) == IMAGE
        with pytest.raises(FetchRefused):
            await fetcher.fetch(f"https://{PUBLIC}/1.png", bytes_max=len(IMAGE), deadline=soon())
    async with world.opened(egress_ca_file=None) as fetcher:
        with pytest.raises(FetchFailed):
            await fetcher.fetch(world.url, bytes_max=len(IMAGE), deadline=soon())
    for wrong in ("10.0.0.1/8", "example.com", "10.0.0.0/8;", "::/200"):
        with pytest.raises(ValueError, match="must be networks such as"):
            Settings(allow_networks=wrong)
