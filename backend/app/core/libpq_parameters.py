"""The parameters of libpq: those that are translated for the driver, and those that are refused."""

from collections.abc import Mapping, Sequence

from app.core.database_tls import DatabaseUrlError

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


def known_parameters(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The parameters by name, less those that are empty or change nothing. Raises DatabaseUrlError for the others that
    cannot be translated.
    """
    for position, (name, value) in enumerate(pairs, start=1):
        if refusal := _refusal(name, value, position):
            raise DatabaseUrlError(refusal)
    given = {name: value for name, value in pairs if value and name in _TRANSLATED}
    if "ssl" in given:  # the driver's name for it, and JDBC's
        mode = given.pop("ssl")
        given.setdefault("sslmode", "require" if mode == "true" else mode)
    return given


def _refusal(name: str, value: str, position: int) -> str | None:
    """A name that nobody knows may be part of a password: it is not named."""
    if name in _REFUSED:
        return f"has the parameter {name}, which the driver cannot do: remove it"
    if name in _OF_OTHER_CLIENTS:
        return f"has the parameter {name}, which is none of PostgreSQL's: remove it"
    if (name, value) == ("channel_binding", "require"):
        return f"has {name}={value}, which the driver cannot do: remove it, and use sslmode=verify-full"
    if name in _HARMLESS:
        done = " or ".join(sorted(_HARMLESS[name]))
        return None if value.lower() in {*_HARMLESS[name], ""} else f"has a {name} that is not {done}: remove it"
    return None if name in _TRANSLATED else f"has a parameter that PostgreSQL has not, number {position} of its query"
