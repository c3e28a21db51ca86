"""A database that speaks TLS, and one that does not: reached as the sslmode of the URL asks for, or not at all."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop
from app.core.db import connect_for_writing, create_engine, create_engine_for_migrations
from sqlalchemy import text
from sqlalchemy.engine import make_url
from tests.conftest import Start
from tests.core.tls_ways import Login, TLSWay
from tests.harness import Account, Key, generate, until_ready
from tests.standins.authority import Authority
from tests.test_cli import nanobanana_in_here

UNTRUSTED = "shows no certificate that its sslmode trusts, or speaks no TLS that this program does."
WITHOUT_TLS = "speaks no TLS, which its sslmode asks for."
NO_LINE = (
    "does not let its user in: there is no such role, or no line for it, from here and with this sslmode, in the "
    "server's pg_hba.conf."
)
VERIFIED = "sslmode=verify-full&sslrootcert={ca}"

Value = TypeVar("Value")
NewLoop = Callable[[], asyncio.AbstractEventLoop]
WayTo = Callable[[str], TLSWay]

on_each_loop = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
"""The commands run on asyncio's own loop, the servers and workers on the other one."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without files and variables of libpq."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [each for each in os.environ if each.startswith("PGSSL")]:
        monkeypatch.delenv(name)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whose file is `{ca}` in the parameters of a URL."""
    (tmp_path / "authority").mkdir()
    return Authority(tmp_path / "authority")


@pytest.fixture
def way_to(tmp_path: Path, database_url: str, authority: Authority) -> WayTo:
    """The way to a server of this kind, which is closed yet. Its certificate is for `localhost`."""
    (tmp_path / "stranger").mkdir()
    stranger = Authority(tmp_path / "stranger")  # of the same name
    trusted = authority.server("localhost")

    def with_version_3() -> ssl.SSLContext:
        context = authority.server("localhost")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    def asking_for_a_certificate() -> ssl.SSLContext:
        context = authority.server("localhost")
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.ca_file)
        return context

    kinds: Mapping[str, Callable[[], TLSWay]] = {
        "TLS": lambda: TLSWay(database_url, trusted),
        "no TLS": lambda: TLSWay(database_url, None),
        "direct TLS": lambda: TLSWay(database_url, trusted, is_direct=True),
        "no login without TLS": lambda: TLSWay(database_url, trusted, refuses="plain"),
        "no login with TLS": lambda: TLSWay(database_url, trusted, refuses="encrypted"),
        "TLS 1.3": lambda: TLSWay(database_url, with_version_3()),
        "TLS for certificates": lambda: TLSWay(database_url, asking_for_a_certificate()),
        "a stranger's TLS": lambda: TLSWay(database_url, stranger.server("localhost")),
        "expired TLS": lambda: TLSWay(database_url, authority.server("localhost", days=(-2, -1))),
    }
    return lambda kind: kinds[kind]()


async def connect_each(url: str) -> None:
    """Makes each connection that the program makes, and sends more over it than one record of TLS takes."""
    much = "x" * 100_000
    connection = await connect_for_writing(url)
    assert await connection.fetchval("select $1::text", much) == much
    await connection.close()
    for engine in (create_engine(url, pool_size=1), create_engine_for_migrations(url)):
        async with engine.connect() as pooled:
            assert await pooled.scalar(text("select cast(:much as text)"), {"much": much}) == much
        await engine.dispose()


async def probes(url: str) -> list[int]:
    """What the kernel was told about the ledger's connection."""
    connection = await connect_for_writing(url)
    options = (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    )
    found = [vars(connection)["_socket"].getsockopt(*option) for option in options]
    await connection.close()
    return found


def own_certificate(authority: Authority) -> Path:
    """The file of a certificate to show to a server, with its key."""
    authority.server("nanobanana")
    return authority.ca_file.with_name("nanobanana.pem")


def run_on(new_loop: NewLoop, made: Coroutine[object, object, Value]) -> Value:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(made)


@on_each_loop
@pytest.mark.parametrize(
    ("kind", "host", "query", "asked", "logins"),
    [
        ("TLS", "127.0.0.1", "sslmode=require", 3, {"encrypted": 3}),
        ("TLS", "127.0.0.1", "sslmode=require&sslrootcert={ca}", 3, {"encrypted": 3}),
        ("TLS", "127.0.0.1", "sslmode=verify-ca&sslrootcert={ca}", 3, {"encrypted": 3}),
        ("TLS", "localhost", VERIFIED, 3, {"encrypted": 3}),
        ("TLS", "127.0.0.1", "", 3, {"encrypted": 3}),
        ("TLS", "127.0.0.1", "sslmode=prefer", 3, {"encrypted": 3}),
        ("TLS", "127.0.0.1", "sslmode=allow", 0, {"plain": 3}),
        ("TLS", "127.0.0.1", "sslmode=disable", 0, {"plain": 3}),
        ("no TLS", "127.0.0.1", "sslmode=prefer", 3, {"plain": 3}),
        ("no TLS", "127.0.0.1", "sslmode=allow", 0, {"plain": 3}),
        ("no TLS", "127.0.0.1", "sslmode=disable", 0, {"plain": 3}),
        ("no login without TLS", "127.0.0.1", "sslmode=prefer", 3, {"encrypted": 3}),
        ("no login without TLS", "127.0.0.1", "sslmode=allow", 3, {"encrypted": 3, "plain": 3}),
        ("no login with TLS", "127.0.0.1", "sslmode=prefer", 3, {"encrypted": 3, "plain": 3}),
        ("TLS 1.3", "127.0.0.1", "sslmode=prefer&ssl_max_protocol_version=TLSv1.2", 3, {"plain": 3}),
        ("TLS for certificates", "127.0.0.1", "sslmode=require&sslcert={own}", 3, {"encrypted": 3}),
        ("direct TLS", "127.0.0.1", "sslmode=require&sslnegotiation=direct", 0, {"encrypted": 3}),
        ("direct TLS", "localhost", f"{VERIFIED}&sslnegotiation=direct", 0, {"encrypted": 3}),
    ],
)
async def test_each_connection_is_encrypted_where_the_sslmode_and_the_server_have_it_so(
    new_loop: NewLoop,
    way_to: WayTo,
    authority: Authority,
    *,
    kind: str,
    host: str,
    query: str,
    asked: int,
    logins: dict[Login, int],
) -> None:
    way = way_to(kind)
    url = way.url_at(host, query.format(ca=authority.ca_file, own=own_certificate(authority)))
    async with way.open():
        await asyncio.to_thread(run_on, new_loop, connect_each(url))
    assert (way.asked, way.logins) == (asked, logins)


@pytest.mark.parametrize(
    ("kind", "host", "query", "sentence"),
    [
        ("TLS", "127.0.0.1", VERIFIED, UNTRUSTED),
        ("direct TLS", "127.0.0.1", f"{VERIFIED}&sslnegotiation=direct", UNTRUSTED),
        ("a stranger's TLS", "localhost", VERIFIED, UNTRUSTED),
        ("a stranger's TLS", "localhost", "sslmode=verify-ca&sslrootcert={ca}", UNTRUSTED),
        ("a stranger's TLS", "localhost", "sslmode=require&sslrootcert={ca}", UNTRUSTED),
        ("TLS", "localhost", "sslmode=verify-full&sslrootcert=system", UNTRUSTED),
        ("expired TLS", "localhost", VERIFIED, UNTRUSTED),
        ("no TLS", "localhost", "sslmode=require", WITHOUT_TLS),
        ("no TLS", "localhost", "sslmode=verify-ca&sslrootcert={ca}", WITHOUT_TLS),
        ("no TLS", "localhost", VERIFIED, WITHOUT_TLS),
    ],
)
async def test_a_server_that_is_not_as_the_sslmode_asks_for_gets_no_login_and_one_sentence_says_so(
    tmp_path: Path, way_to: WayTo, authority: Authority, *, kind: str, host: str, query: str, sentence: str
) -> None:
    way = way_to(kind)
    url = way.url_at(host, query.format(ca=authority.ca_file), password="hunter2")
    async with way.open():
        checked = await asyncio.to_thread(nanobanana_in_here, tmp_path, "check", DATABASE_URL=url)
        migrated = await asyncio.to_thread(nanobanana_in_here, tmp_path, "migrate", DATABASE_URL=url)
    whole = f"The database of DATABASE_URL {sentence}\n"
    assert f"database: {whole}" in checked.stdout
    assert (checked.returncode, checked.stderr) == (1, "")
    assert (migrated.returncode, migrated.stdout, migrated.stderr) == (1, "", f"nanobanana: {whole}")
    assert way.logins == {}
    assert "hunter2" not in checked.stdout


async def test_a_login_that_the_server_has_no_line_for_is_told_apart_from_a_wrong_password(
    tmp_path: Path, way_to: WayTo
) -> None:
    way = way_to("no login without TLS")
    async with way.open():
        url = way.url_at("localhost", "sslmode=disable", password="hunter2")
        checked = await asyncio.to_thread(nanobanana_in_here, tmp_path, "check", DATABASE_URL=url)
    assert f"database: The database of DATABASE_URL {NO_LINE}\n" in checked.stdout
    assert "hunter2" not in checked.stdout


async def test_the_whole_application_works_over_tls_and_makes_no_other_connection(
    start: Start, account: Account, key: Key, way_to: WayTo, authority: Authority
) -> None:
    way = way_to("TLS")
    async with way.open():
        client = await start(database_url=way.url_at("localhost", VERIFIED.format(ca=authority.ca_file)))
        assert (await client.get("/v1/auth/me", headers=account.headers)).status_code == 200
        assert (await generate(client, key)).status_code == 200
        await until_ready(client)
    assert set(way.logins) == {"encrypted"}


async def test_of_several_hosts_the_one_with_the_trusted_certificate_is_used(
    way_to: WayTo, authority: Authority
) -> None:
    ways = [way_to(kind) for kind in ("a stranger's TLS", "no TLS", "TLS")]
    untrusted, plain, trusted = ways
    ports = [make_url(way.url).port for way in ways]
    several = ",".join(f"localhost:{port}" for port in ports)
    url = trusted.url_at("localhost", VERIFIED.format(ca=authority.ca_file)).replace(f"localhost:{ports[-1]}", several)
    async with untrusted.open(), plain.open(), trusted.open():
        await connect_each(url)
    assert [untrusted.logins, plain.logins, trusted.logins] == [{}, {}, {"encrypted": 3}]


@on_each_loop
@pytest.mark.parametrize(
    ("kind", "query"), [("TLS", "sslmode=require"), ("direct TLS", "sslmode=require&sslnegotiation=direct")]
)
async def test_the_kernel_probes_connections_with_tls_too(
    new_loop: NewLoop, way_to: WayTo, kind: str, query: str
) -> None:
    way = way_to(kind)
    url = way.url_at("127.0.0.1", f"{query}&keepalives_idle=7&keepalives_interval=2&keepalives_count=5")
    async with way.open():
        assert await asyncio.to_thread(run_on, new_loop, probes(f"{url}&tcp_user_timeout=4000")) == [1, 7, 2, 5, 4000]
    assert way.logins == {"encrypted": 1}
