"""The check that every HTTP parser reads the head of a request in the same way.

Behind a proxy, two parsers that disagree about where a request ends let one client's bytes be read as another client's
request. llhttp refuses most requests that could be read in two ways; the rules here are for the others. Source: RFC
9112, sections 2.3, 3.2, 6.1.
"""

import re
from collections.abc import Iterable

Header = tuple[bytes, bytes]

_VERSIONS = {"1.0", "1.1"}
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]+)(:[0-9]*)?")
_ABSOLUTE_FORM = re.compile(rb"https?://([^/?#]+)", re.IGNORECASE)


class AmbiguousRequestError(Exception):
    """The head can be read in more than one way. The text names the rule that it breaks, and quotes nothing of it."""


def check_framing(*, version: str, method: bytes, target: bytes, headers: Iterable[Header]) -> None:
    """Raises AmbiguousRequestError unless this is a head of HTTP/1.0 or 1.1 with one Host (HTTP/1.0: at most one), no
    transfer coding except `chunked`, and a target that is a path, or a URL of the host that Host names.

    Names of headers are in lower case.
    """
    if version not in _VERSIONS:
        raise AmbiguousRequestError("The version must be HTTP/1.0 or HTTP/1.1")
    host, coding = None, None
    for name, value in headers:
        if name == b"host":
            if host is not None or not _HOST.fullmatch(value):
                raise AmbiguousRequestError("There must be one Host header that names one host")
            host = value
        elif name == b"transfer-encoding":
            if coding is not None or value.lower() != b"chunked" or version == "1.0":
                raise AmbiguousRequestError("The only transfer coding is chunked, once, in HTTP/1.1")
            coding = value
    if host is None and version != "1.0":
        raise AmbiguousRequestError("There must be one Host header")
    if not target.startswith(b"/"):
        _check_absolute_form(target, host)
    if method == b"CONNECT" or b"#" in target:
        raise AmbiguousRequestError("The target must be a path")


def _check_absolute_form(target: bytes, host: bytes | None) -> None:
    absolute = _ABSOLUTE_FORM.match(target)
    if absolute is None or host is None or absolute[1].lower() != host.lower():
        raise AmbiguousRequestError("The target must be a path, or a URL of the host that Host names")
