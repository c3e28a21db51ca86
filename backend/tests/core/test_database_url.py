"""URLs of databases, as hosting services hand them out: read as libpq reads them, or refused by a parameter's name."""

import getpass
import ssl
from pathlib import Path

import pytest
from app.core.database_tls import DatabaseUrlError
from app.core.database_url import Host, parse_database_url
from app.core.libpq_parameters import LIBPQ_PARAMETERS
from app.core.settings import ConfigurationError
from app.core.settings_loading import load_settings
from asyncpg.protocol.protocol import SCRAMAuthentication
from tests.core import libpq

LATER = {"servicefile", "requiressl"}  # of libpq's other versions


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without files and variables of libpq."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGSERVICE", "PGSERVICEFILE", "PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)


def test_every_parameter_of_libpq_is_known() -> None:
    assert libpq.parameters() - {"tty"} == LIBPQ_PARAMETERS - LATER


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgres:///",
        "postgresql://host",
        "postgresql://host:5433/",
        "postgresql://user@host/name",
        "postgresql://user:@host/name",
        "postgresql://user:pa%40ss%3Ahunter2%2Fzz%25@host:5432/a%20name",
        "postgresql://us%65r:%C3%A9%F0%9F%8D%8C+@host/name",
        "postgresql://user:pa?ss#word@host/name",
        "postgresql://user:one:two@host",
        "postgresql://[::1]:6000/name",
        "postgresql://user@[2001:db8::5]/name",
        "postgresql://[::1],h2:7/name",
        "postgresql://h1:5432,h2:5433,h3/name?target_session_attrs=read-write",
        "postgresql://h1,h2/name",
        "postgresql://%2Fvar%2Frun%2Fpostgresql:6432/name",
        "postgresql:///name?host=/run/postgresql&port=6432&user=me&password=p%26w",
        "postgresql://host/name?host=other&dbname=second&port=1",
        "postgresql:///?host=h1,h2&port=5432,5433",
        "postgresql:///?host=h1,h2&port=6000",
        "postgresql://user@/name?hostaddr=127.0.0.1",
        "postgresql://host/name?connect_timeout=4&application_name=x&options=-c%20geqo%3Doff&sslmode=require",
        "postgresql://host/name?sslmode=require&sslmode=disable",
    ],
)
def test_a_url_means_what_it_means_to_libpq(url: str) -> None:
    said = libpq.parse(url)
    assert said is not None
    read = parse_database_url(url)
    assert read.user == said.get("user", getpass.getuser())
    assert [read.password or "", read.database or ""] == [said.get(name, "") for name in ("password", "dbname")]
    names = (said.get("hostaddr") or said.get("host", "")).split(",")
    ports = said.get("port", "").split(",")
    ports = ports * len(names) if len(ports) == 1 else ports
    expected = [
        Host(name or None, int(port) if port else (5432 if name else None))
        for name, port in zip(names, ports, strict=True)
    ]
    assert [*read.hosts] == expected
    assert read.startup["application_name"] == said.get("application_name", "nanobanana")
    assert read.startup.get("options") == said.get("options")


@pytest.mark.parametrize(
    ("query", "changes"),
    [
        ("", {"connect_seconds": 3, "must_write": False}),
        ("connect_timeout=1", {"connect_seconds": 1}),
        ("connect_timeout=15", {"connect_seconds": 5}),
        ("connect_timeout=0", {"connect_seconds": 3}),
        ("target_session_attrs=any", {"must_write": False}),
        ("target_session_attrs=primary", {"must_write": True}),
        ("target_session_attrs=read-write", {"must_write": True}),
        ("host=h1,h2", {"must_write": True}),
        ("host=h1,h2&target_session_attrs=any", {"must_write": False}),
        ("passfile=/secret/pgpass", {"passfile": "/secret/pgpass"}),
        ("fallback_application_name=y", {"startup": {"application_name": "y"}}),
        ("sslmode=&connect_timeout=", {"connect_seconds": 3}),
    ],
)
def test_a_parameter_is_translated(query: str, changes: dict[str, object]) -> None:
    read = parse_database_url(f"postgresql://host/name?{query}")
    assert {name: getattr(read, name) for name in changes} == changes


def test_keep_alive_is_on_with_probes_of_seconds_and_can_be_changed() -> None:
    read = parse_database_url("postgresql://h/n").keep_alive
    assert (read.is_on, read.idle_seconds, read.user_timeout_ms) == (True, 10, 8000)
    values = "keepalives=0&keepalives_idle=7&keepalives_interval=2&keepalives_count=5&tcp_user_timeout=3000"
    changed = parse_database_url(f"postgresql://h/n?{values}").keep_alive
    assert (changed.is_on, changed.idle_seconds, changed.interval_seconds) == (False, 7, 2)
    assert (changed.count, changed.user_timeout_ms) == (5, 3000)


@pytest.mark.parametrize(
    ("query", "mode", "verified", "named"),
    [
        ("", "prefer", ssl.CERT_NONE, False),
        ("sslmode=allow", "allow", ssl.CERT_NONE, False),
        ("sslmode=require", "require", ssl.CERT_NONE, False),
        ("ssl=require", "require", ssl.CERT_NONE, False),
        ("ssl=true", "require", ssl.CERT_NONE, False),
        ("sslmode=require&sslrootcert={ca}", "require", ssl.CERT_REQUIRED, False),
        ("sslmode=verify-ca&sslrootcert={ca}", "verify-ca", ssl.CERT_REQUIRED, False),
        ("sslmode=verify-full&sslrootcert={ca}", "verify-full", ssl.CERT_REQUIRED, True),
        ("sslmode=verify-full&sslrootcert=system", "verify-full", ssl.CERT_REQUIRED, True),
        ("sslrootcert=system", "verify-full", ssl.CERT_REQUIRED, True),
    ],
)
def test_tls_is_as_strict_as_libpqs(
    authorities: Path, query: str, mode: str, verified: ssl.VerifyMode, *, named: bool
) -> None:
    tls = parse_database_url(f"postgresql://h/n?{query.format(ca=authorities)}").tls
    assert tls.context is not None
    assert (tls.mode, tls.context.verify_mode, tls.context.check_hostname) == (mode, verified, named)


def test_a_host_of_the_environment_is_spoken_to_with_the_tls_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"PGHOST": "h1,h2", "PGPORT": "6000", "PGSSLMODE": "require"}.items():
        monkeypatch.setenv(name, value)
    read = parse_database_url("postgresql:///name")
    assert [*read.hosts] == [Host("h1", 6000), Host("h2", 6000)]
    assert read.tls.context is not None


def test_the_versions_of_tls_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGSSLMINPROTOCOLVERSION": "TLSv1.3", "PGSSLMAXPROTOCOLVERSION": "TLSv1.3"}.items():
        monkeypatch.setenv(name, value)
    tls = parse_database_url("postgresql://h/n?sslmode=require").tls
    assert tls.context is not None
    assert {tls.context.minimum_version, tls.context.maximum_version} == {ssl.TLSVersion.TLSv1_3}


def test_without_tls_there_is_no_context() -> None:
    for url in ("postgresql://h/n?sslmode=disable", "postgresql:///n?host=/run", "postgresql://h/n?ssl=disable"):
        assert parse_database_url(url).tls.context is None


def test_the_protocol_and_the_negotiation_of_tls_are_those_that_were_asked_for() -> None:
    query = "sslmode=require&sslnegotiation=direct&ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.3"
    tls = parse_database_url(f"postgresql://h/n?{query}").tls
    assert tls.context is not None
    versions = {tls.context.minimum_version, tls.context.maximum_version}
    assert (tls.is_direct, versions) == (True, {ssl.TLSVersion.TLSv1_3})


def test_a_service_fills_in_what_the_url_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("[db]\nhost=h1,h2\nport=6000\nuser=ada\npassword=%hunter2\nsslmode=disable\n")
    read = parse_database_url(f"postgresql://eve@/n?service=db&servicefile={file}")
    assert [*read.hosts] == [Host("h1", 6000), Host("h2", 6000)]
    assert (read.user, read.password, read.database, read.tls.mode) == ("eve", "%hunter2", "n", "disable")


HARMLESS = [
    "channel_binding=prefer",
    "channel_binding=disable",
    "client_encoding=UTF8",
    "gssdelegation=0",
    "gssencmode=prefer",
    "load_balance_hosts=disable",
    "max_protocol_version=latest",
    "min_protocol_version=3.0",
    "replication=false",
    "sslcertmode=allow",
    "sslcompression=0",
    "sslsni=1",
]


@pytest.mark.parametrize("parameter", HARMLESS)
def test_a_parameter_that_asks_for_what_happens_anyway_changes_nothing(parameter: str) -> None:
    plain = "postgresql://h/n?sslmode=disable"
    assert parse_database_url(f"{plain}&{parameter}") == parse_database_url(plain)


def test_the_driver_cannot_bind_a_login_to_its_channel() -> None:
    """Once it can, `channel_binding=require` is to be taken."""
    assert "SCRAM-SHA-256-PLUS" not in str(SCRAMAuthentication.AUTHENTICATION_METHODS)
    with pytest.raises(DatabaseUrlError, match="has channel_binding=require, which the driver cannot do"):
        parse_database_url("postgresql://h/n?channel_binding=require")


REFUSED = [
    "channel_binding=require",
    "client_encoding=LATIN1",
    "gssdelegation=1",
    "gssencmode=require",
    "load_balance_hosts=random",
    "max_protocol_version=4.0",
    "min_protocol_version=3.2",
    "replication=database",
    "sslcertmode=require",
    "sslcompression=1",
    "sslsni=0",
    "gsslib=x",
    "krbsrvname=x",
    "oauth_client_id=x",
    "oauth_client_secret=x",
    "oauth_issuer=x",
    "oauth_scope=x",
    "require_auth=x",
    "requirepeer=x",
    "requiressl=1",
    "scram_client_key=x",
    "scram_server_key=x",
    "sslcrldir=x",
    "sslkeylogfile=x",
    "target_session_attrs=standby",
    "target_session_attrs=prefer-standby",
    "target_session_attrs=read-only",
    "sslmode=hunter2",
    "connect_timeout=hunter2",
    "keepalives_idle=hunter2",
    "keepalives_idle=-1",
    "tcp_user_timeout=99999999999",
    "sslnegotiation=hunter2",
    "sslrootcert=/hunter2&sslmode=require",
    "sslcert=/hunter2",
    "sslcrl=/hunter2&sslmode=require&sslrootcert=system",
    "service=hunter2",
    "pgbouncer=true",
    "schema=public",
    "prepared_statement_cache_size=0",
    "ssl_min_protocol_version=TLSv1",
    "sslnegotiation=direct",
    "sslmode=verify-full",
]


@pytest.mark.parametrize("parameter", REFUSED)
def test_what_cannot_be_kept_is_refused_by_its_name_and_never_its_value(
    monkeypatch: pytest.MonkeyPatch, parameter: str
) -> None:
    assert parameter.partition("=")[0] in refused(monkeypatch, f"postgresql://u:hunter2@h/n?{parameter}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pa@ss:hunter2/zz@h/n",
        "postgresql://u:pa@ss/hunter2@h/n",
        "postgresql://u:hunter2/@h/n",
        "postgresql://u:%hunter2@h/n",
        "postgresql://u:%FFhunter2@h/n",
        "postgresql://u:%00hunter2@h/n",
        "postgresql://u:1234/5?hunter2=x@h/n",
        "postgresql://u:12?hunter2@h/n/n",
        "postgresql://u:12/hunter2?hunter2=zz",
        "postgresql://h/n?hunter2",
        "postgresql://h/n?hunter2=1",
        "postgresql://h/n?a=hunter2=b",
        "postgresql://h:hunter2/n",
        "postgresql://h:0/n",
        "postgresql://h:65536/n",
        "postgresql://[hunter2/n",
        "postgresql://h1,,h2/n",
        "postgresql://h1:1,h2:2/n?port=1,2,3",
        "postgresql://hunter2..zz/n",
        "mysql://u:hunter2@h/n",
        "hunter2",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_in_one_sentence_without_any_part_of_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    sentence = refused(monkeypatch, url)
    assert "zz" not in sentence


def refused(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """The sentence that refuses the settings; the same is raised by the URL alone."""
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    with pytest.raises(DatabaseUrlError, match=r"^(has|is|must) "):
        parse_database_url(url)
    sentence = str(raised.value)
    assert sentence.startswith("DATABASE_URL ")
    assert "\n" not in sentence
    assert "hunter2" not in sentence
    return sentence


@pytest.fixture(scope="session")
def authorities() -> Path:
    """A file of certificates."""
    return Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
