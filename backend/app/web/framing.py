"""The checks of a request's head: that every HTTP parser reads it in the same way, and that it is not too large.

Behind a proxy, two parsers that disagree about where a request ends let one client's bytes be read as another client's
request. llhttp refuses most requests that could be read in two ways; the rules here are for the others. Source: RFC
9112, sections 2.3, 3.2, 6.1.
"""

import re
from collections.abc import Mapping, Sequence

from app.core.errors import ApiError, HeadersTooLarge, UriTooLong

Header = tuple[bytes, bytes]

REQUEST_LINE_BYTES_MAX = 8 * 1024
HEADER_BYTES_MAX = 16 * 1024
HEADERS_BYTES_MAX = 64 * 1024
HEADERS_MAX = 100

_AROUND_TARGET = len("  HTTP/1.1")
_AROUND_HEADER = len(": \r\n")
_VERSIONS = {"1.0", "1.1"}
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]+)(:[0-9]*)?")
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]+)", re.IGNORECASE)


class AmbiguousRequestError(Exception):
    """The head can be read in more than one way. The text names the rule that it breaks, and quotes nothing of it."""


def check_framing(*, version: str, method: bytes, target: bytes, headers: Sequence[Header]) -> Mapping[bytes, bytes]:
    """The headers by name; of one that was sent more than once, the last value. Names are in lower case.

    Raises AmbiguousRequestError unless this is a head of HTTP/1.0 or 1.1 with one Host (HTTP/1.0: at most one), no
    transfer coding except `chunked`, and a target that is a path, or a URL of the host that Host names.
    """
    if version not in _VERSIONS:
        raise AmbiguousRequestError("The version must be HTTP/1.0 or HTTP/1.1")
    found = dict(headers)
    if len(found) < len(headers):
        _check_sent_once(headers)
    host, coding = found.get(b"host"), found.get(b"transfer-encoding")
    if host is not None and not _HOST.fullmatch(host):
        raise AmbiguousRequestError("There must be one Host header that names one host")
    if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
        raise AmbiguousRequestError("The only transfer coding is chunked, once, in HTTP/1.1")
    if host is None and version != "1.0":
        raise AmbiguousRequestError("There must be one Host header")
    if not target.startswith(b"/"):
        _check_absolute_form(target, host)
    if method == b"CONNECT" or b"#" in target:
        raise AmbiguousRequestError("The target must be a path")
    return found


def _check_sent_once(headers: Sequence[Header]) -> None:
    names = [name for name, _ in headers]
    if names.count(b"host") > 1:
        raise AmbiguousRequestError("There must be one Host header that names one host")
    if names.count(b"transfer-encoding") > 1:
        raise AmbiguousRequestError("The only transfer coding is chunked, once, in HTTP/1.1")


def _check_absolute_form(target: bytes, host: bytes | None) -> None:
    absolute = _ABSOLUTE_FORM.match(target)
    if absolute is None or host is None or absolute[1].lower() != host.lower():
        raise AmbiguousRequestError("The target must be a path, or a URL of the host that Host names")


def oversize(*, method: bytes, target: bytes, headers: Sequence[Header]) -> type[ApiError] | None:
    """The error of a head, or of the part of one that has been read, which is larger than it may be."""
    if len(method) + len(target) + _AROUND_TARGET > REQUEST_LINE_BYTES_MAX:
        return UriTooLong
    sizes = [len(name) + len(value) + _AROUND_HEADER for name, value in headers]
    is_too_large = (
        len(sizes) > HEADERS_MAX or sum(sizes) > HEADERS_BYTES_MAX or max(sizes, default=0) > HEADER_BYTES_MAX
    )
    return HeadersTooLarge if is_too_large else None


class Unfinished:
    """Counts what has arrived since the parser last read a whole head or a piece of a body: it keeps that in memory.

    The piece in which it began may hold something finished too. Its bytes are part of `size`, which is the most that
    has been kept, and do not make it too large.
    """

    def __init__(self, first_piece: bytes = b"") -> None:
        self.size = len(first_piece)
        self._counted = 0
        self._of_line = 0

    def add(self, data: bytes) -> None:
        """Counts one more piece."""
        self.size += len(data)
        self._counted += len(data)
        line_start = data.rfind(b"\n") + 1
        self._of_line = len(data) - line_start if line_start else self._of_line + len(data)

    @property
    def is_too_large(self) -> bool:
        """Whether no head can be so large, or no line of it."""
        return self._counted > REQUEST_LINE_BYTES_MAX + HEADERS_BYTES_MAX or self._of_line > HEADER_BYTES_MAX
