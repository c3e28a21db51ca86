"""The URL of a PostgreSQL, as hosting services hand it out: every parameter of libpq is translated, or refused by name.

    postgresql://user:password@host:5432,host:5433/database?sslmode=verify-full&target_session_attrs=read-write

What a URL says wins over the file of its `service`, and that over the environment (`PGSSLMODE` for example).
"""

import configparser
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from app.core.database_tls import TLS, DatabaseUrlError, tls_of

SCHEMES = {"postgres", "postgresql", "postgresql+asyncpg"}
PORT, _PORT_MAX = 5432, 65535
CONNECT_SECONDS, CONNECT_SECONDS_MAX = 3, 5

_TRANSLATED = frozenset(
    {
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "passfile",
        "service",
        "servicefile",
        "sslmode",
        "ssl",
        "sslrootcert",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslcrl",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "connect_timeout",
        "application_name",
        "fallback_application_name",
        "options",
        "target_session_attrs",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
    }
)
# Parameters that ask for what happens anyway: these values of them are taken, and change nothing.
_HARMLESS: Mapping[str, frozenset[str]] = {
    "channel_binding": frozenset({"disable", "prefer"}),
    "client_encoding": frozenset({"utf8", "utf-8", "auto"}),
    "gssdelegation": frozenset({"0"}),
    "gssencmode": frozenset({"disable", "prefer"}),
    "load_balance_hosts": frozenset({"disable"}),
    "max_protocol_version": frozenset({"3.0", "3.2", "latest"}),
    "min_protocol_version": frozenset({"3.0"}),
    "replication": frozenset({"0", "false", "off", "no"}),
    "sslcertmode": frozenset({"allow"}),
    "sslcompression": frozenset({"0"}),
    "sslsni": frozenset({"1"}),
}
_REFUSED = frozenset(
    {
        "gsslib",
        "krbsrvname",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "require_auth",
        "requirepeer",
        "requiressl",
        "scram_client_key",
        "scram_server_key",
        "sslcrldir",
        "sslkeylogfile",
    }
)
LIBPQ_PARAMETERS = (_TRANSLATED - {"ssl"}) | _HARMLESS.keys() | _REFUSED
_OF_OTHER_CLIENTS = frozenset(
    {
        "command_timeout",
        "connection_limit",
        "pgbouncer",
        "pool_timeout",
        "prepared_statement_cache_size",
        "schema",
        "sslaccept",
        "statement_cache_size",
    }
)
_ENVIRONMENT = ("service", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslnegotiation")
_FOR_WRITING = ("any", "read-write", "primary")
_AUTHORITY = re.compile(r"(?:([^@/]*)@)?([^/?]*)(?:/([^?]*))?(?:\?(.*))?", re.DOTALL)
_HOST = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]*)(?::([^:]*))?")


class Host(NamedTuple):
    """A host name, address or socket folder. None is where the driver looks by itself: `PGHOST`, the usual folders."""

    name: str | None
    port: int | None


@dataclass(frozen=True, kw_only=True)
class KeepAlive:
    """TCP's probes of an idle connection, in seconds, and how long sent bytes may stay without an acknowledgement."""

    is_on: bool = True
    idle_seconds: int = 10
    interval_seconds: int = 3
    count: int = 3
    user_timeout_ms: int = 8000


@dataclass(frozen=True, kw_only=True)
class DatabaseParameters:
    """What a URL says, for the driver. `connect_seconds` is for each host alone; `must_write` leaves out standbys."""

    hosts: Sequence[Host]
    user: str | None
    password: str | None = field(repr=False)
    passfile: str | None
    database: str | None
    tls: TLS
    connect_seconds: int
    startup: Mapping[str, str]
    must_write: bool
    keep_alive: KeepAlive


def checked_database_url(url: str) -> str:
    """The URL with the scheme of the one driver. Raises DatabaseUrlError as `parse_database_url` does."""
    parse_database_url(url)
    return f"postgresql+asyncpg://{url.partition('://')[2]}"


def parse_database_url(url: str) -> DatabaseParameters:
    """Raises DatabaseUrlError with the end of a sentence, which names a parameter and holds no value of the URL."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise DatabaseUrlError("must begin with postgresql+asyncpg://")
    credentials, hosts, database, query = _split(rest)
    user, colon, password = credentials.partition(":")
    authority = {
        "user": _decoded(user),
        "password": _decoded(password) if colon else "",
        "dbname": _decoded(database),
        **_host_and_port(hosts),
    }
    given = _parameters(_query_pairs(query))
    merged = {**{name: value for name, value in authority.items() if value}, **given}
    return _translated(_with_defaults(merged))


def _split(rest: str) -> tuple[str, str, str, str]:
    match = _AUTHORITY.fullmatch(rest)
    if match is None:
        raise DatabaseUrlError("is not a URL")
    credentials, hosts, database, query = (part or "" for part in match.groups())
    if "/" in database or "@" in database:
        raise DatabaseUrlError("has @ or / in its user, password or database: write them as %40 and %2F")
    return credentials, hosts, database, query


def _host_and_port(hosts: str) -> dict[str, str]:
    matches = [_HOST.fullmatch(each) for each in hosts.split(",")]
    names, ports = [], []
    for match in matches:
        if match is None:
            raise DatabaseUrlError("has a host that cannot be read; an IPv6 address stands in [ ]")
        names.append(_decoded(match[1].strip("[]")))
        ports.append(_decoded(match[2] or ""))
    return {"host": ",".join(names).strip(","), "port": ",".join(ports) if any(ports) else ""}


def _query_pairs(query: str) -> Sequence[tuple[str, str]]:
    parts = [part for part in query.split("&") if part]
    if any(part.count("=") != 1 for part in parts):
        raise DatabaseUrlError("has a query that is not name=value, joined by &; write & as %26 and = as %3D")
    pairs = (part.split("=") for part in parts)
    return [(_decoded(name), _decoded(value)) for name, value in pairs]


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded or re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise DatabaseUrlError("has a % that no two hexadecimal digits of UTF-8 follow; write % itself as %25")
    return decoded


def _parameters(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The parameters by name, less those that are empty or change nothing. Raises DatabaseUrlError for the others that
    cannot be translated. A name that nobody knows may be part of a password: it is not named.
    """
    given = {}
    for position, (name, value) in enumerate(pairs, start=1):
        if name in _REFUSED or (name in _HARMLESS and value and value.lower() not in _HARMLESS[name]):
            kept = f"; without it, or as {' or '.join(sorted(_HARMLESS[name]))}, it" if name in _HARMLESS else ", which"
            raise DatabaseUrlError(f"has the parameter {name}{kept} {_KEPT[name in _HARMLESS]}")
        if name in _OF_OTHER_CLIENTS:
            raise DatabaseUrlError(f"has the parameter {name}, which is none of PostgreSQL's: remove it")
        if name not in _TRANSLATED and name not in _HARMLESS:
            raise DatabaseUrlError(f"has a parameter that is none of PostgreSQL's, number {position} of its query")
        if value and name in _TRANSLATED:
            given[name] = value
    if "ssl" in given:  # the driver's name for it, and JDBC's
        mode = given.pop("ssl")
        given.setdefault("sslmode", "require" if mode == "true" else mode)
    return given


_KEPT = {False: "the driver cannot do: remove it", True: "can be used; the driver cannot do what it asks for"}


def _with_defaults(given: Mapping[str, str]) -> Mapping[str, str]:
    """Adds what the environment and the file of the service say, where the URL says nothing."""
    environment = {name: value for name in _ENVIRONMENT if (value := os.environ.get(f"PG{name.upper()}"))}
    service = given.get("service") or environment.get("service")
    return {**environment, **(_service_parameters(service, given.get("servicefile")) if service else {}), **given}


def _service_parameters(service: str, file: str | None) -> dict[str, str]:
    path = Path(file or os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.expanduser().read_text(encoding="utf-8"))
        return _parameters([*parser[service].items()])
    except (OSError, RuntimeError, UnicodeDecodeError, configparser.Error, KeyError):
        raise DatabaseUrlError("has a service that stands in no file of services that can be read") from None


def _translated(given: Mapping[str, str]) -> DatabaseParameters:
    hosts = _hosts(given)
    attributes = given.get("target_session_attrs", "read-write" if len(hosts) > 1 else "any")
    if attributes not in _FOR_WRITING:
        raise DatabaseUrlError(f"has a target_session_attrs that is none of {', '.join(_FOR_WRITING)}: it must write")
    name = given.get("application_name") or given.get("fallback_application_name") or "nanobanana"
    startup = {"application_name": name, **({"options": given["options"]} if "options" in given else {})}
    seconds = _number(given, "connect_timeout", 0)
    return DatabaseParameters(
        hosts=hosts,
        user=given.get("user"),
        password=given.get("password"),
        passfile=given.get("passfile"),
        database=given.get("dbname"),
        tls=tls_of(given, over_sockets=all((host.name or "/").startswith("/") for host in hosts)),
        connect_seconds=min(seconds, CONNECT_SECONDS_MAX) if seconds > 0 else CONNECT_SECONDS,
        startup=startup,
        must_write=attributes != "any",
        keep_alive=KeepAlive(
            is_on=_number(given, "keepalives", 1) != 0,
            idle_seconds=_number(given, "keepalives_idle", 0) or KeepAlive.idle_seconds,
            interval_seconds=_number(given, "keepalives_interval", 0) or KeepAlive.interval_seconds,
            count=_number(given, "keepalives_count", 0) or KeepAlive.count,
            user_timeout_ms=_number(given, "tcp_user_timeout", 0) or KeepAlive.user_timeout_ms,
        ),
    )


def _hosts(given: Mapping[str, str]) -> Sequence[Host]:
    names, addresses = given.get("host", ""), given.get("hostaddr", "")
    if addresses and names and given.get("sslmode") == "verify-full":
        raise DatabaseUrlError("has the parameter hostaddr, which cannot be used with sslmode=verify-full: remove it")
    hosts = (addresses or names).split(",")
    ports = given.get("port", "").split(",")
    if len(ports) not in {1, len(hosts)}:
        raise DatabaseUrlError("has a port for some of its hosts: write one for all of them, or one for each")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if any(port and not (port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX) for port in ports):
        raise DatabaseUrlError("has a port that is no number; write @ : / ? # in a password as %40 %3A %2F %3F %23")
    if len(hosts) > 1 and not all(hosts):
        raise DatabaseUrlError("has an empty host among several")
    _refuse_unreadable(hosts)
    return [
        Host(host or None, int(port) if port else (PORT if host else None))
        for host, port in zip(hosts, ports, strict=True)
    ]


def _refuse_unreadable(hosts: Sequence[str]) -> None:
    for host in hosts:
        try:
            host.encode("ascii" if host.startswith("/") else "idna")
        except UnicodeError:
            raise DatabaseUrlError("has a host that is no name, address or folder") from None


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(given.get(name, default))
    except ValueError:
        raise DatabaseUrlError(f"has a {name} that is no whole number") from None
