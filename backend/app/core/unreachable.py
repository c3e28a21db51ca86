"""Why a connection could not be made, in words for operators."""

import socket
from collections.abc import Iterator

_REASONS = (
    (socket.gaierror, "its host name has no address"),
    (ConnectionRefusedError, "nobody listens on its host and port"),
    (FileNotFoundError, "its socket is not there"),
)


def reason_unreachable(error: BaseException) -> str:
    """The reason, from the error or from those that it was raised from; the name of its class where it is another."""
    causes = list(_causes(error))
    reasons = (reason for kind, reason in _REASONS if any(isinstance(each, kind) for each in causes))
    return next(reasons, type(error).__name__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
