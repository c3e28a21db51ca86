"""Why a provider could not be reached: one of a few reasons, from the errors of the HTTP client."""

import socket
from collections.abc import Iterator
from ssl import SSLCertVerificationError, SSLError
from typing import Literal

import httpx2

Reason = Literal["dns", "certificate", "tls", "refused", "timed_out", "proxy", "lost"]

_SENTENCES: dict[Reason, str] = {
    "dns": "names a host that has no address",
    "certificate": "shows a certificate that is not trusted: EGRESS_CA_FILE can name the authority that signed it",
    "tls": "does not speak TLS",
    "refused": "refuses the connection",
    "timed_out": "does not answer in time",
    "proxy": "cannot be reached through EGRESS_PROXY",
    "lost": "ends the connection without an answer",
}


class Unreachable(Exception):
    """No response arrived. `sentence` is the rest of one that begins with the name of the setting."""

    def __init__(self, reason: Reason) -> None:
        super().__init__()
        self.sentence = _SENTENCES[reason]


def reason_of(error: BaseException, *, through_proxy: bool) -> Reason:
    """Why a connection failed or ended."""
    errors = list(_errors_in(error))
    found: Reason = next((reason for kind, reason in _KINDS if any(isinstance(each, kind) for each in errors)), "lost")
    # What comes before TLS with the provider is the proxy's.
    return "proxy" if through_proxy and found in {"dns", "refused", "timed_out"} else found


_KINDS: tuple[tuple[type[BaseException], Reason], ...] = (
    (httpx2.ProxyError, "proxy"),
    (SSLCertVerificationError, "certificate"),
    (SSLError, "tls"),
    (socket.gaierror, "dns"),
    (ConnectionRefusedError, "refused"),
    (httpx2.TimeoutException, "timed_out"),
    (TimeoutError, "timed_out"),
)


def _errors_in(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and the members of groups."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for member in error.exceptions:
                yield from _errors_in(member)
        error = error.__cause__ or error.__context__
