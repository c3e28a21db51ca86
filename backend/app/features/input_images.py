"""Images that go in, as the dialects get them in JSON: bytes in base64, or what names them."""

import re
from collections.abc import Iterator
from functools import partial
from json import loads
from typing import NamedTuple
from urllib.parse import urlsplit

import pybase64

from app.core.blobs import Blob, BlobWriter
from app.core.bounds import BODY_BYTES_MAX, IMAGE_BYTES_MAX, format_bytes
from app.core.errors import Invalid
from app.core.long_text import ImageText, LongText
from app.generations.collaborators import Generations
from app.generations.spec import SentImage

_DATA_URL = re.compile(rb"data:[^,]{0,200};base64,", re.IGNORECASE)
_DATA_URL_HEAD_BYTES = 256
_OWN_ID = re.compile(r"(?:upl|gen)_[0-9a-z]{1,60}", re.ASCII)
_OWN_IMAGE = re.compile(r"/v1/images/(gen_[0-9a-z]{1,60})\.[a-z]{1,5}", re.ASCII)
_URL_LENGTH_MAX = 2048
_QUANTUM = 4  # characters of base64, for three bytes
_KEPT_BACK = 8  # characters at the end of a piece: all padding is among them
_STANDARD, _WHITE_SPACE = bytes.maketrans(b"-_", b"+/"), b" \t\r\n"
_LINE_ENDS = (b"\t", b"\r", b"\n")
_CUT_ESCAPE_BYTES = len(r"\u002f") - 1

_KINDS = "a data: URL in base64, an upl_ or gen_ id, or an https URL"


class NamedInput(NamedTuple):
    """An image as it was sent, and the JSON Pointer to it, which errors name."""

    pointer: str
    sent: ImageText | Blob


async def read_input(generations: Generations, named: NamedInput) -> SentImage:
    """The image. Raises what `read_sent_image` raises."""
    if isinstance(named.sent, Blob):
        return named.sent
    return await read_sent_image(generations, named.sent, pointer=named.pointer)


async def read_sent_image(generations: Generations, text: ImageText, *, pointer: str) -> SentImage:
    """The image: the bytes of a `data:` URL, the `gen_` id of a URL of our own, or the id or `https` URL that was sent.

    The media type that a `data:` URL claims counts for nothing. Raises Invalid about `pointer` for any other text, and
    what `sent_image_of` raises.
    """
    if data_url := _DATA_URL.match(_head(text)):
        return await _decode(generations, text, start=data_url.end(), pointer=pointer)
    if isinstance(text, str):
        if _OWN_ID.fullmatch(text):
            return text
        if own := _own_image(text, generations.public_url):
            return own
        if text.startswith("https://") and len(text) <= _URL_LENGTH_MAX:
            return text
    raise Invalid([{"pointer": pointer, "detail": f"Must be {_KINDS}"}])


async def sent_image_of(generations: Generations, text: ImageText, *, pointer: str) -> Blob:
    """The bytes of an image in base64: of either alphabet, with or without padding and white space.

    Raises Invalid about `pointer` for what is not base64, and for more than IMAGE_BYTES_MAX.
    """
    return await _decode(generations, text, start=0, pointer=pointer)


def _head(text: ImageText) -> bytes:
    if isinstance(text, LongText):
        return text.head(_DATA_URL_HEAD_BYTES)
    return text[:_DATA_URL_HEAD_BYTES].encode(errors="replace")


def _own_image(url: str, public_url: str) -> str | None:
    if not url.startswith(f"{public_url}/v1/images/"):
        return None
    image = _OWN_IMAGE.fullmatch(urlsplit(url[len(public_url) :]).path)
    return image and image[1]


async def _decode(generations: Generations, text: ImageText, *, start: int, pointer: str) -> Blob:
    decode = partial(_decoded, text, start, generations.blobs.writer())
    is_small = isinstance(text, str) and len(text) <= BODY_BYTES_MAX
    try:
        return decode() if is_small else await generations.blobs.run(decode)
    except _TooLargeError:
        sentence = f"Is larger than {format_bytes(IMAGE_BYTES_MAX)}"
    except ValueError:  # without the cause: its text quotes the body
        sentence = "Is not base64"
    raise Invalid([{"pointer": pointer, "detail": sentence}]) from None


class _TooLargeError(Exception):
    pass


def _decoded(text: ImageText, start: int, writer: BlobWriter) -> Blob:
    """The bytes, hashed too. Raises ValueError for what is not base64."""
    plain = _decoded_at_once(text, start)
    if plain is None:
        _decode_in_pieces(text, start, writer)
    else:
        writer.write(plain)
    blob = writer.finish()
    _ = blob.sha256  # hashed here, in the thread
    return blob


def _decoded_at_once(text: ImageText, start: int) -> bytes | None:
    """The bytes of what most clients send: the usual alphabet, with its padding and nothing else, and in memory. None
    for anything else.
    """
    characters = text.in_memory(start) if isinstance(text, LongText) else text.encode()[start:]
    if characters is None:
        return None
    try:
        return pybase64.b64decode(characters, validate=True)
    except ValueError:
        return None


def _decode_in_pieces(text: ImageText, start: int, writer: BlobWriter) -> None:
    pieces = _unescaped(text.pieces(start)) if isinstance(text, LongText) else (text.encode()[start:],)
    rest = b""
    for piece in pieces:
        characters = rest + _standard(piece)
        whole = max(0, len(characters) - _KEPT_BACK) // _QUANTUM * _QUANTUM
        if b"=" in characters[:whole]:
            raise ValueError
        writer.write(pybase64.b64decode(characters[:whole], validate=True))
        if writer.size > IMAGE_BYTES_MAX:
            raise _TooLargeError
        rest = characters[whole:]
    characters = rest.rstrip(b"=")
    if len(rest) - len(characters) >= _QUANTUM - 1:
        raise ValueError
    writer.write(pybase64.b64decode(characters + b"=" * (-len(characters) % _QUANTUM), validate=True))


def _standard(piece: bytes) -> bytes:
    """The same in the standard alphabet, without white space."""
    if any(each in piece for each in (b"-", b"_", b" ", *_LINE_ENDS)):
        return piece.translate(_STANDARD, _WHITE_SPACE)
    return piece


def _unescaped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The text of a JSON string. Raises ValueError for what JSON has not, or ASCII has not where there are escapes."""
    rest = b""
    for piece in pieces:
        text, rest = rest + piece, b""
        cut = text.rfind(b"\\", -_CUT_ESCAPE_BYTES)
        if cut >= 0:
            text, rest = text[:cut], text[cut:]
        yield _unescaped_piece(text)
    yield _unescaped_piece(rest)


def _unescaped_piece(text: bytes) -> bytes:
    if any(each in text for each in _LINE_ENDS):
        raise ValueError
    if b"\\" not in text:
        return text
    unescaped: str = loads(f'"{text.decode("ascii")}"')
    return unescaped.encode("ascii")
