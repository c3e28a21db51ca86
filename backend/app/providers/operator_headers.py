"""The headers that an operator adds to each call of an endpoint, such as Azure's `api-key`."""

import re
from collections.abc import Mapping

from pydantic import SecretStr

from app.providers.remote import checked_key

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_OF_THE_MESSAGE = {
    *("host", "content-length", "content-type", "content-encoding", "transfer-encoding", "accept-encoding", "expect"),
    *("connection", "keep-alive", "te", "trailer", "upgrade"),
    *("proxy-connection", "proxy-authenticate", "proxy-authorization"),
}
"""They say how a message is framed and encoded, or belong to one connection."""


def checked_headers(headers: Mapping[str, SecretStr], *, with_key: bool) -> Mapping[str, SecretStr]:
    """The headers, if each call can have them: a value is words of visible ASCII with one space between them, and
    `Authorization` is allowed unless a key is sent in it. Raises ValueError, without quoting a name or a value.
    """
    names = [name.lower() for name in headers]
    if not all(map(_NAME.fullmatch, names)):
        raise ValueError("A header's name must be an HTTP token of at most 100 characters")
    if len(set(names)) < len(names):
        raise ValueError("Two headers have the same name: upper and lower case are the same")
    if with_key and "authorization" in names:
        raise ValueError("A provider has a key or a header Authorization, not both")
    for name in sorted(_OF_THE_MESSAGE.intersection(names)):
        raise ValueError(f"The header {name} is set by the HTTP client")
    for value in headers.values():
        for word in value.get_secret_value().split(" "):
            if not word:
                raise ValueError("A header's value is empty, or has a space at an end or two in a row")
            checked_key(SecretStr(word))
    return headers
