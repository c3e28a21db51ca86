"""JSON, read strictly: one text in UTF-8, no key twice in an object, no number beyond a double.

A large body is mostly images in base64. They are left where they are, as a LongText each, so that reading it costs
little memory and holds up the process for no longer than reading a small one.
"""

import json
import re
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

from app.core.blobs import PIECE_BYTES, Blob
from app.core.errors import InvalidRequest, TooLarge
from app.core.long_text import LongText

_DIGITS_MAX = 300  # a longer number is beyond a double, as 1e999 is
_LONG_BYTES = 1024
_STANDS_FOR_BYTES = 64  # which a LongText counts as: there are not too many of them either
_BASE64_BYTES = 256
_IMAGE = re.compile(rb"(?i:data:)|[A-Za-z0-9+/_\\-]{%d}" % _BASE64_BYTES)  # PHP writes \/ for /
_WHITE_SPACE = " \t\n\r"
_NOT_JSON = "The body is not one JSON text in UTF-8"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise InvalidRequest("The body has the same key twice in one object")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        _refuse_number(text)
    return number


def _bounded_integer(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        _refuse_number(text)
    return int(text)


def _long_text_or_integer(long_texts: Mapping[str, LongText], text: str) -> LongText | int:
    return long_texts.get(text) or _bounded_integer(text)


def _refuse_number(_text: str) -> NoReturn:
    raise InvalidRequest("The body has a number that is out of range or not one of JSON")


def _new_decoder(parse_int: Any) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_without_duplicates,
        parse_float=_finite,
        parse_int=parse_int,
        parse_constant=_refuse_number,
    )


_decoder = _new_decoder(_bounded_integer)


def parse(body: bytes, decoder: json.JSONDecoder = _decoder) -> Any:
    """The value. Raises InvalidRequest unless the body is one strict JSON text."""
    try:
        text = body.decode("utf-8").strip(_WHITE_SPACE)
        value, end = decoder.raw_decode(text)  # `decode` would look for white space by two regular expressions
    except (ValueError, RecursionError):  # without the cause: its text quotes the body
        raise InvalidRequest(_NOT_JSON) from None
    if end < len(text):
        raise InvalidRequest(_NOT_JSON)
    return value


def parse_large(body: Blob, *, text_bytes_max: int) -> Any:
    """The value, in which a LongText stands for each string of more than 1 KiB that looks like base64 or a `data:` URL.
    For a thread.

    Raises TooLarge where the rest has more than `text_bytes_max`, and what `parse` raises.
    """
    text, long_texts = _Splitter(body, text_bytes_max).split()
    return parse(text, _new_decoder(partial(_long_text_or_integer, long_texts)))


class _Splitter:
    """Puts a number that no client can guess in the place of each long string. Outside of strings JSON has no quotation
    mark, so that strings are found without reading what is in them.
    """

    def __init__(self, body: Blob, text_bytes_max: int) -> None:
        self._body = body
        self._text_bytes_max = text_bytes_max
        self._left_out = 0
        self._piece, self._piece_start = b"", 0

    def split(self) -> tuple[bytes, Mapping[str, LongText]]:
        kept: list[bytes] = []
        long_texts: dict[str, LongText] = {}
        kept_to = at = 0
        while (start := self._find_quote(at, self._text_end) + 1) > 0:
            looks_like_image = _IMAGE.match(self._body.part(start, start + _BASE64_BYTES)) is not None
            end = self._find_end(start, self._body.size if looks_like_image else self._text_end)
            if looks_like_image and end - start > _LONG_BYTES:
                number = str(secrets.randbits(128))
                long_texts[number] = LongText(self._body, start, end)
                kept += [self._body.part(kept_to, start - 1), b" %b " % number.encode()]  # joins no other number
                kept_to = end + 1
                self._left_out += end - start - _STANDS_FOR_BYTES
            at = end + 1
        if self._body.size > self._text_end:
            raise TooLarge(bytes_max=self._text_bytes_max)
        return b"".join([*kept, self._body.part(kept_to, self._body.size)]), long_texts

    @property
    def _text_end(self) -> int:
        """As far as the body may go on with text alone."""
        return self._text_bytes_max + self._left_out

    def _find_end(self, start: int, limit: int) -> int:
        """Where the string ends that begins at `start`. An image has no quotation mark in it."""
        end = self._find_quote(start, limit)
        while end >= 0 and self._is_escaped(end, start):
            limit = self._text_end
            end = self._find_quote(end + 1, limit)
        if end >= 0:
            return end
        raise TooLarge(bytes_max=self._text_bytes_max) if limit < self._body.size else InvalidRequest(_NOT_JSON)

    def _find_quote(self, start: int, end: int) -> int:
        while start < min(end, self._body.size):
            if not self._piece_start <= start < self._piece_start + len(self._piece):
                self._piece, self._piece_start = self._body.part(start, start + PIECE_BYTES), start
            found = self._piece.find(b'"', start - self._piece_start, end - self._piece_start)
            if found >= 0:
                return self._piece_start + found
            start = self._piece_start + len(self._piece)
        return -1

    def _is_escaped(self, at: int, start: int) -> bool:
        """Whether an odd number of backslashes stands before the quotation mark."""
        for width in (1, 64, self._text_bytes_max):
            before = self._body.part(max(start, at - width), at)
            backslashes = len(before) - len(before.rstrip(b"\\"))
            if backslashes < len(before):
                break
        return backslashes % 2 == 1
