"""TLS to PostgreSQL, as libpq's `sslmode` and the parameters beside it ask for it."""

import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

TLSMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
_MODES: tuple[TLSMode, ...] = get_args(TLSMode)
_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_SYSTEM = "system"


class DatabaseUrlError(ValueError):
    """The URL cannot be used. The text is the end of a sentence, which names a parameter and holds no value."""


class TLS(NamedTuple):
    """How to speak TLS: `context` is None without it. `is_direct` begins with TLS, without asking the server first."""

    mode: TLSMode
    context: ssl.SSLContext | None
    is_direct: bool = False


def tls_of(given: Mapping[str, str], *, over_sockets: bool) -> TLS:
    """TLS as these parameters ask for it, with libpq's defaults. Raises DatabaseUrlError."""
    root = given.get("sslrootcert")
    default = "disable" if over_sockets else "verify-full" if root == _SYSTEM else "prefer"
    mode = next((each for each in _MODES if each == given.get("sslmode", default)), None)
    if mode is None:
        raise DatabaseUrlError(f"has an sslmode that is none of {', '.join(_MODES)}")
    negotiation = given.get("sslnegotiation", "postgres")
    if negotiation not in {"postgres", "direct"}:
        raise DatabaseUrlError("has an sslnegotiation that is none of postgres, direct")
    is_direct = negotiation == "direct"
    if (is_direct or root == _SYSTEM) and mode in {"disable", "allow", "prefer"} and not over_sockets:
        name = "sslnegotiation=direct" if is_direct else "sslrootcert=system"
        raise DatabaseUrlError(f"has {name}, which needs sslmode=verify-full")
    return TLS(mode, None if mode == "disable" or over_sockets else _context(given, mode), is_direct)


def _context(given: Mapping[str, str], mode: TLSMode) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    context.minimum_version = _version(given, "ssl_min_protocol_version", ssl.TLSVersion.TLSv1_2)
    context.maximum_version = _version(given, "ssl_max_protocol_version", ssl.TLSVersion.MAXIMUM_SUPPORTED)
    if mode in {"require", "verify-ca", "verify-full"}:
        _verify(context, given, mode)
    _show_certificate(context, given)
    return context


def _verify(context: ssl.SSLContext, given: Mapping[str, str], mode: TLSMode) -> None:
    """Checks the server's certificate. As with libpq, `require` does too where there is a file of authorities."""
    root, revoked = given.get("sslrootcert"), _file(given, "sslcrl", "root.crl")
    if root == _SYSTEM:
        context.load_default_certs()
    elif file := _file(given, "sslrootcert", "root.crt"):
        _load(lambda: context.load_verify_locations(cafile=file), "sslrootcert")
    elif mode == "require":
        return
    else:
        raise DatabaseUrlError(f"has sslmode={mode}, which needs sslrootcert: a file of authorities, or system")
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = mode == "verify-full"
    if revoked:
        _load(lambda: context.load_verify_locations(cafile=revoked), "sslcrl")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _show_certificate(context: ssl.SSLContext, given: Mapping[str, str]) -> None:
    certificate, key = _file(given, "sslcert", "postgresql.crt"), _file(given, "sslkey", "postgresql.key")
    if certificate:
        password = given.get("sslpassword", "")
        _load(lambda: context.load_cert_chain(certificate, key, password=lambda: password), "sslcert or sslkey")


def _file(given: Mapping[str, str], name: str, default: str) -> str | None:
    """The path of the parameter, or of libpq's own file where there is one that can be read."""
    if path := given.get(name):
        if not os.access(path, os.R_OK):
            raise DatabaseUrlError(f"has an {name} that names no file that can be read")
        return path
    try:
        own = Path.home() / ".postgresql" / default
    except RuntimeError:
        return None
    return str(own) if os.access(own, os.R_OK) else None


def _load(load: Callable[[], None], name: str) -> None:
    try:
        load()
    except (OSError, ValueError):  # OpenSSL's errors are OSErrors
        raise DatabaseUrlError(f"has an {name} that names a file that OpenSSL cannot use") from None


def _version(given: Mapping[str, str], name: str, default: ssl.TLSVersion) -> ssl.TLSVersion:
    if name not in given:
        return default
    if given[name] not in _VERSIONS:
        raise DatabaseUrlError(f"has an {name} that is none of {', '.join(_VERSIONS)}")
    return _VERSIONS[given[name]]
