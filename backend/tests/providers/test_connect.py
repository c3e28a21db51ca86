"""Connections to a provider: only to one whose certificate proves its name, by whichever of its addresses answers."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx2
import pytest
from app.core.egress import Egress
from app.providers.connect import Resolver, connected_socket
from app.providers.reachability import Unreachable
from app.providers.upstream import SharedUpstream, Upstream
from pydantic import SecretStr
from tests.providers.failures import Place, provider_url
from tests.providers.remote import BOUNDS
from tests.standins.authority import Authority
from tests.standins.tunnel import tunnel
from tests.standins.wire import Reply, Seen, serving

HOST, LOCAL = "provider.test", "localhost"
"""Names of the provider: in front of a proxy, which finds it, and without one."""


class Certificate(NamedTuple):
    """What the provider shows, what EGRESS_CA_FILE holds, and the name that is asked for beside the URL's."""

    hosts: Sequence[str] = (HOST, LOCAL)
    days: tuple[int, int] = (-1, 1)
    trusted: str | None = "its authority"
    checked_name: str | None = None


TRUSTED: Mapping[str, Certificate] = {
    "its name": Certificate(),
    "one of its names": Certificate(hosts=("other.test", HOST, LOCAL)),
    "the name that was asked for": Certificate(hosts=("pictures.test",), checked_name="pictures.test"),
}
NOT_TRUSTED: Mapping[str, Certificate] = {
    "an authority that nobody knows": Certificate(trusted=None),
    "another authority": Certificate(trusted="another"),
    "another name": Certificate(hosts=("other.test",)),
    "a longer name": Certificate(hosts=(f"{HOST}.other.test", f"{LOCAL}.other.test")),
    "another name than was asked for": Certificate(checked_name="pictures.test"),
    "a validity that is over": Certificate(days=(-3, -2)),
    "a validity that has not begun": Certificate(days=(2, 3)),
}
WAYS = ["direct", "proxy"]


@asynccontextmanager
async def asked(
    folder: Path, certificate: Certificate, way: str
) -> AsyncIterator[tuple[Upstream, httpx2.Request, list[Seen]]]:
    """A client that trusts what it should, a request to the provider, and what the provider has been asked."""
    seen = list[Seen]()

    def answer(request: Seen) -> Reply:
        seen.append(request)
        return Reply(b"answer")

    (folder / "another").mkdir()
    authorities = {"its authority": Authority(folder), "another": Authority(folder / "another")}
    trusted = authorities[certificate.trusted].ca_file.read_text() if certificate.trusted else None
    server = authorities["its authority"].server(*certificate.hosts, days=certificate.days)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(answer, tls=server))
        host, proxy = LOCAL, None
        if way == "proxy":
            host, proxy = HOST, SecretStr((await stack.enter_async_context(tunnel(url))).url)
        upstream = Upstream(BOUNDS, SharedUpstream(Egress(proxy, trusted)))
        stack.push_async_callback(upstream.close)
        name = {"sni_hostname": certificate.checked_name} if certificate.checked_name else {}
        yield upstream, httpx2.Request("GET", url.replace("127.0.0.1", host), extensions=name), seen


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shown", TRUSTED)
async def test_a_provider_that_proves_its_name_is_asked(tmp_path: Path, shown: str, way: str) -> None:
    async with asked(tmp_path, TRUSTED[shown], way) as (upstream, request, seen):
        assert (await upstream.probe(request)).content == b"answer"
        assert len(seen) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shown", NOT_TRUSTED)
async def test_a_provider_that_does_not_prove_its_name_is_sent_nothing(tmp_path: Path, shown: str, way: str) -> None:
    async with asked(tmp_path, NOT_TRUSTED[shown], way) as (upstream, request, seen):
        with pytest.raises(Unreachable) as raised:
            await upstream.probe(request)
        assert raised.value.sentence.startswith("shows a certificate that is not trusted")
        assert seen == []


async def test_a_connection_that_proved_one_name_is_not_used_for_another(tmp_path: Path) -> None:
    certificate = Certificate(hosts=("pictures.test",), checked_name="pictures.test")
    async with asked(tmp_path, certificate, "direct") as (upstream, request, seen):
        await upstream.probe(request)
        request.extensions["sni_hostname"] = "other.test"
        with pytest.raises(Unreachable):
            await upstream.probe(request)
        assert len(seen) == 1


class Names:
    """Answers the system's `getaddrinfo` with addresses of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[tuple[Any, ...]] = []
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def add(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.addresses.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)))

    def _answer(self, *_: object, **__: object) -> list[tuple[Any, ...]]:
        return self.addresses


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@asynccontextmanager
async def listening(names: Names, *places: str) -> AsyncIterator[None]:
    """Adds addresses, of ports of 127.0.0.1: one that is `live`, `refused`, or `full` and says nothing."""
    async with AsyncExitStack() as stack:
        for place in places:
            opened = serving(lambda _: Reply()) if place == "live" else provider_url(cast("Place", place))
            names.add("127.0.0.1", int(str(await stack.enter_async_context(opened)).rpartition(":")[2]))
        yield


@pytest.mark.parametrize(
    "places",
    [("live",), ("refused", "live"), ("full", "live"), ("full", "refused", "live"), ("live", "refused")],
    ids=" ".join,
)
async def test_the_address_that_answers_is_used_whatever_the_others_do(names: Names, places: Sequence[str]) -> None:
    async with listening(names, *places):
        with await connected_socket(HOST, 443, Resolver()) as connected:
            assert connected.getpeername() == names.addresses[places.index("live")][-1]


async def test_where_no_address_answers_the_error_is_that_of_the_first(names: Names) -> None:
    async with listening(names, "refused", "refused"):
        first = names.addresses[0][-1]
        with pytest.raises(ConnectionRefusedError, match=str(first[1])):
            await connected_socket(HOST, 443, Resolver())


async def test_the_families_of_addresses_take_turns_and_the_resolvers_first_begins(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[str]()

    async def refuse(_socket: socket.socket, address: tuple[str, int]) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refuse)
    for host in ("::1", "::2", "127.0.0.1", "127.0.0.2"):
        names.add(host, 443)
    with pytest.raises(ConnectionRefusedError):
        await connected_socket(HOST, 443, Resolver())
    assert tried == ["::1", "127.0.0.1", "::2", "127.0.0.2"]


async def test_of_two_addresses_that_answer_at_once_one_is_used_and_the_other_is_closed(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, opened, both = asyncio.get_running_loop(), list[socket.socket](), asyncio.Event()
    connect = loop.sock_connect

    async def connect_together(connecting: socket.socket, address: tuple[str, int]) -> None:
        await connect(connecting, address)
        opened.append(connecting)
        if len(opened) > 1:
            both.set()
        await both.wait()

    monkeypatch.setattr(loop, "sock_connect", connect_together)
    async with listening(names, "live", "live"):
        with await connected_socket(HOST, 443, Resolver()) as used:
            await asyncio.sleep(0)  # the other one is closed by a callback
            assert [each for each in opened if each.fileno() != -1] == [used]


async def test_a_provider_whose_name_servers_are_silent_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, system = threading.Event(), socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **named: Any) -> list[tuple[Any, ...]]:
        if host == HOST:
            answered.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no server answers")
        return system(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    silent, sound = Upstream(BOUNDS), Upstream(BOUNDS)
    async with serving(lambda _: Reply(b"{}")) as url:
        waiting = [asyncio.create_task(silent.probe(httpx2.Request("GET", f"https://{HOST}/"))) for _ in range(40)]
        try:
            await asyncio.sleep(0)
            answer = await sound.probe(httpx2.Request("GET", url.replace("127.0.0.1", LOCAL)))
            assert answer.status == 200
            assert not any(each.done() for each in waiting)
        finally:
            answered.set()
    for each in waiting:
        with pytest.raises(Unreachable):
            await each
    await silent.close()
    await sound.close()
