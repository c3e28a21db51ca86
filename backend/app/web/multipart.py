"""Forms with files in them: `multipart/form-data` (RFC 7578), parsed by python-multipart while they arrive."""

import re
from collections.abc import Callable, Sequence
from functools import partial

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.core.blobs import Blob, BlobWriter
from app.core.bounds import IMAGE_BYTES_MAX, format_bytes
from app.core.errors import Invalid, InvalidRequest, TooLarge, UnsupportedMedia
from app.web.body import body_bounds, receive_pieces
from app.web.headers import header_values
from app.web.state import request_state

FILES_MAX = 17
"""Sixteen images and a mask."""
FIELDS_MAX = 50

_MEDIA_TYPE = "multipart/form-data"
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046, section 5.1.1
_PLAIN_ENCODINGS = {b"7bit", b"8bit", b"binary"}

FormPart = tuple[str, str | Blob]
"""The name of a field with its text, or of a file input with a file, whose own name and type count for nothing."""


async def read_multipart(request: Request) -> Sequence[FormPart]:
    """The parts of the form, in order. Names may come twice. A file input without a file is a Blob of no bytes.

    Raises UnsupportedMedia for another media type, InvalidRequest for what is not a whole form with a name for each
    part, Invalid for more than FILES_MAX files or FIELDS_MAX fields, TooLarge for a file of more than IMAGE_BYTES_MAX
    and for more text than the path takes, and what `receive_body` raises.
    """
    state = request_state(request.scope)
    blobs, new_file = state["blobs"], partial(state["blobs"].writer, state.get("account"))
    form = _Form(_boundary_of(request), new_file, text_bytes_max=body_bounds(request.scope).text_bytes)

    async def take(piece: bytes) -> None:
        await blobs.run(partial(form.write, piece))

    try:
        await receive_pieces(request, take)
        if not form.has_ended:
            raise InvalidRequest("The form is cut short: its last boundary is missing")
        return form.parts
    finally:
        form.close()


def _boundary_of(request: Request) -> bytes:
    value = "".join(header_values(request, b"content-type"))
    media_type, options = parse_options_header(value)
    if media_type != _MEDIA_TYPE.encode():
        raise UnsupportedMedia(f"Send the body as Content-Type: {_MEDIA_TYPE}")
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary) or value.lower().count("boundary=") > 1:
        raise InvalidRequest("The Content-Type must have one boundary, of 1 to 70 characters")
    return boundary


class _Form:
    """A form as far as it has been parsed. `write` is for a thread."""

    def __init__(self, boundary: bytes, new_file: Callable[[], BlobWriter], *, text_bytes_max: int) -> None:
        self.parts: list[FormPart] = []
        self.has_ended = False
        self._new_file = new_file
        self._text_bytes_max = text_bytes_max
        self._text_bytes = 0
        self._header, self._header_value, self._headers = b"", b"", dict[bytes, bytes]()
        self._name, self._text = "", b""
        self._file: BlobWriter | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_begin": self._begin_header,
                "on_header_field": self._add_to_header,
                "on_header_value": self._add_to_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_content,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def write(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError:  # without the cause: its text quotes the body
            raise InvalidRequest("The form cannot be read") from None

    def close(self) -> None:
        """Lets go of the parts, so that they are freed with the last reference of their reader's. The parser and its
        callbacks refer to each other.
        """
        self._parser.callbacks = {}
        self.parts, self._file = [], None

    def _begin_part(self) -> None:
        self._headers = {}

    def _begin_header(self) -> None:
        self._header = self._header_value = b""

    def _add_to_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_to_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._headers.setdefault(self._header.lower(), self._header_value) is not self._header_value:
            raise InvalidRequest("A part of the form has the same header twice")

    def _end_headers(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition != b"form-data" or b"name" not in options:
            raise InvalidRequest("Each part of the form must have a Content-Disposition of form-data with a name")
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in _PLAIN_ENCODINGS:
            raise InvalidRequest("Send the parts of the form as they are, without Content-Transfer-Encoding")
        self._name, self._text = _decoded(options[b"name"]), b""
        self._file = self._new_file() if b"filename" in options else None
        files = sum(isinstance(value, Blob) for _, value in self.parts)
        if self._file is not None and files >= FILES_MAX:
            raise Invalid([{"pointer": "#", "detail": f"A form may have at most {FILES_MAX} files"}])
        if self._file is None and len(self.parts) - files >= FIELDS_MAX:
            raise Invalid([{"pointer": "#", "detail": f"A form may have at most {FIELDS_MAX} fields"}])

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self._text += data[start:end]
            self._text_bytes += end - start
            if self._text_bytes > self._text_bytes_max:
                raise TooLarge(f"The text of the form is larger than {format_bytes(self._text_bytes_max)}")
            return
        self._file.write(data[start:end])
        if self._file.size > IMAGE_BYTES_MAX:
            raise TooLarge(f"A file of the form is larger than {format_bytes(IMAGE_BYTES_MAX)}")

    def _end_part(self) -> None:
        if self._file is None:
            self.parts.append((self._name, _decoded(self._text)))
            return
        blob = self._file.finish()
        _ = blob.sha256  # hashed here, in the thread
        self.parts.append((self._name, blob))

    def _end(self) -> None:
        self.has_ended = True


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The text of the form is not UTF-8") from None
