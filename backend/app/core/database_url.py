"""The URL of a PostgreSQL, as hosting services hand it out: every parameter of libpq is translated, or refused by name.

    postgresql://user:password@host:5432,host:5433/database?sslmode=verify-full&target_session_attrs=read-write

What a URL says wins over the file of its `service`, and that over the environment (`PGSSLMODE` for example).
"""

import configparser
import getpass
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from app.core.database_tls import TLS, DatabaseUrlError, tls_of
from app.core.libpq_parameters import known_parameters

SCHEMES = {"postgres", "postgresql", "postgresql+asyncpg"}
PORT, _PORT_MAX = 5432, 65535
CONNECT_SECONDS, CONNECT_SECONDS_MAX = 3, 5

_ENVIRONMENT = {
    name: f"PG{name.upper().replace('_', '')}"
    for name in (
        *("host", "port", "service", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
    )
}
"""The variable of each parameter that the environment may give."""
_FOR_WRITING = ("any", "read-write", "primary")
_AUTHORITY = re.compile(r"(?:([^@/]*)@)?([^/?]*)(?:/([^?]*))?(?:\?(.*))?", re.DOTALL)
_COLON, _PASSFILE_COLONS = re.compile(r"(?<!\\):"), 4
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
    user: str
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
        raise DatabaseUrlError("must begin with postgresql://, such as postgresql://user:password@host:5432/nanobanana")
    credentials, hosts, database, query = _split(rest)
    user, colon, password = credentials.partition(":")
    authority = {
        "user": _decoded(user),
        "password": _decoded(password) if colon else "",
        "dbname": _decoded(database),
        **_host_and_port(hosts),
    }
    given = known_parameters(_query_pairs(query))
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


def _with_defaults(given: Mapping[str, str]) -> Mapping[str, str]:
    """Adds what the environment and the file of the service say, where the URL says nothing."""
    environment = {name: value for name, variable in _ENVIRONMENT.items() if (value := os.environ.get(variable))}
    service = given.get("service") or environment.get("service")
    return {**environment, **(_service_parameters(service, given.get("servicefile")) if service else {}), **given}


def _service_parameters(service: str, file: str | None) -> dict[str, str]:
    path = Path(file or os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.expanduser().read_text(encoding="utf-8"))
        return known_parameters([*parser[service].items()])
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
        user=given.get("user") or os.environ.get("PGUSER") or _own_user(),
        password=given.get("password"),
        passfile=_passfile(given),
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


def _passfile(given: Mapping[str, str]) -> str | None:
    """The file of passwords that the URL names. Raises DatabaseUrlError where the driver would read one, this or its
    default, that has a line of another form: libpq skips such a line, and the driver raises any error.
    """
    named = given.get("passfile")
    if given.get("password") or os.environ.get("PGPASSWORD"):
        return named
    try:
        path = Path(named or os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    except UnicodeDecodeError:
        lines = ["not UTF-8"]
    except (OSError, RuntimeError):  # the driver does without it
        return named
    entries = [line.strip().replace(r"\\", "") for line in lines]  # a backslash that is escaped escapes no colon
    if any(each and each[0] != "#" and len(_COLON.findall(each)) < _PASSFILE_COLONS for each in entries):
        raise DatabaseUrlError("has no password, and a line in the passfile is not host:port:database:user:password")
    return named


def _own_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise DatabaseUrlError("names no user, and the user of this process has no name") from None


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
    text = given.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text):
        raise DatabaseUrlError(f"has a {name} that is no whole number")
    return int(text)
