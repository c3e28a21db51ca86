"""The forms in which providers send bytes: compressed bodies and base64."""

import zlib
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import unquote

import pybase64
from pydantic import ConfigDict, TypeAdapter, ValidationError

KNOWN = ("gzip", "x-gzip", "deflate")
"""The content encodings that are decoded."""

_LAYERS_MAX = 2
_GZIP_OR_ZLIB, _RAW_DEFLATE = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS
_STANDARD = str.maketrans("-_", "+/")
_BASE64 = TypeAdapter(bytes, config=ConfigDict(val_json_bytes="base64", hide_input_in_errors=True))


def decompressed(content: bytes | bytearray, encodings: Sequence[str], *, bytes_max: int) -> bytes | bytearray | None:
    """The body without its content encodings, of which the last is taken off first.

    None where one is unknown, where the data is broken or not whole, and where it would exceed `bytes_max`: no more is
    decompressed than that.
    """
    if len(encodings) > _LAYERS_MAX or not set(encodings) <= set(KNOWN):
        return None
    plain: bytes | bytearray | None = content
    for encoding in reversed(encodings):
        layer = plain or b""
        plain = _inflated(layer, _GZIP_OR_ZLIB, bytes_max)
        if plain is None and encoding == "deflate":  # by the standard it has zlib's header, and some send it without
            plain = _inflated(layer, _RAW_DEFLATE, bytes_max)
        if plain is None:
            return None
    return plain


def from_base64(text: str) -> bytes | None:
    """The bytes of base64 in either alphabet, with or without padding, white space, and the head of a `data:` URL; None
    for any other text.
    """
    plain = _decoded(text)
    if plain is not None:
        return plain
    data = unquote(text.rpartition("base64,")[2])
    return _decoded("".join(data.split()).translate(_STANDARD))


def is_data_url(url: str) -> bool:
    """Whether the URL holds its data itself."""
    return url[:5].lower() == "data:"


def _inflated(content: bytes | bytearray, window_bits: int, bytes_max: int) -> bytes | None:
    stream = zlib.decompressobj(window_bits)
    try:
        plain = stream.decompress(content, bytes_max + 1)
    except zlib.error:
        return None
    return plain if stream.eof and not stream.unused_data and len(plain) <= bytes_max else None


def _decoded(text: str) -> bytes | None:
    with suppress(ValueError):  # in the usual alphabet, with its padding: ten times as fast
        return pybase64.b64decode(text, validate=True)
    try:
        return _BASE64.validate_python(text)
    except ValidationError:
        return None
