"""Request bodies, read and validated by a dependency of their own.

FastAPI itself would read the body before it runs any dependency, and answer 400 or 422 to a client without credentials.
As a dependency, the body is read after authentication and limits: the order that the API promises.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

from fastapi import Depends, Request, params
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from app.core.blobs import PIECE_BYTES, Blob
from app.core.bounds import BODY_BYTES_MAX
from app.core.errors import Invalid, RequestTimeout, TooLarge, UnsupportedMedia
from app.core.long_text import LongText
from app.core.schemas import Body
from app.web import strict_json
from app.web.client_address import origin_of
from app.web.error_responses import field_errors
from app.web.headers import header_values
from app.web.state import BodyBounds, RequestState, request_state

Schema = TypeVar("Schema", bound=Body)


@dataclass(frozen=True)
class JSONBody(Generic[Schema]):
    """A dependency: the request's body as the given schema.

    Raises what `receive_body` raises, InvalidRequest unless it is one well-formed JSON text without duplicate keys or
    numbers beyond a double, and Invalid, with the fields that break the schema. On a path that takes images, raises
    TooLarge for a body that is too large without those that are in it.
    """

    schema: type[Schema]

    @property
    def bodies(self) -> Mapping[str, type[Body]]:
        """For OpenAPI: the schema of each media type."""
        return {"application/json": self.schema}

    async def __call__(self, request: Request) -> Schema:
        check_media_type(request, expected="application/json")
        body = await receive_body(request)
        if isinstance(body, bytes):
            return validated(self.schema, strict_json.parse(body))
        bytes_max = body_bounds(request.scope).text_bytes
        parse = partial(strict_json.parse_large, body, text_bytes_max=bytes_max)
        value = await request_state(request.scope)["blobs"].run(parse)
        return validated(self.schema, value, text_bytes_max=bytes_max)


def json_body(schema: type[Body]) -> params.Depends:
    """For signatures: `order: Annotated[GenerationCreate, json_body(GenerationCreate)]`."""
    dependency: params.Depends = Depends(JSONBody(schema))
    return dependency


async def read_body(request: Request, *, media_type: str) -> bytes:
    """The request's body, declared as this type in UTF-8, on a path that takes no images. Raises UnsupportedMedia for
    another declaration, and what `receive_body` raises.
    """
    check_media_type(request, expected=media_type)
    body = await receive_body(request)
    if not isinstance(body, bytes):
        raise TooLarge
    return body


async def receive_body(request: Request) -> bytes | Blob:
    """The request's body: bytes, or a Blob where it is larger than it could be without images. No slot of the
    OverloadGuard is held while it is awaited.

    Raises UnsupportedMedia for a body that is encoded, RequestTimeout unless it arrives in time, TooLarge for more than
    the path takes, Overloaded if there is no slot once it is here, and Unavailable if there is no space for it.
    """
    state: RequestState = request.scope["state"]
    _check_encoding(request)
    whole_body = state.get("whole_body")
    if whole_body is not None and len(whole_body) <= BODY_BYTES_MAX:
        return whole_body
    body = await _receive(request) if whole_body is None else whole_body
    if isinstance(body, Blob) or len(body) <= BODY_BYTES_MAX:
        return body
    bounds = body_bounds(request.scope)
    if len(body) > bounds.bytes:
        raise TooLarge(bytes_max=bounds.bytes)
    return body if len(body) <= bounds.text_bytes else Blob(body)


def _check_encoding(request: Request) -> None:
    if any(value.lower() != "identity" for value in header_values(request, b"content-encoding")):
        raise UnsupportedMedia("Send the body as it is, without Content-Encoding")


async def read_blob(request: Request) -> Blob:
    """The request's body, whatever it is. Raises what `receive_body` raises."""
    body = await receive_body(request)
    return Blob(body) if isinstance(body, bytes) else body


def body_bounds(scope: Scope) -> BodyBounds:
    """How large the body of this request may be."""
    path = scope["path"]
    bounds = request_state(scope)["web"].body_bounds
    return next((each for paths, each in bounds if paths.fullmatch(path)), _BOUNDS)


_BOUNDS = BodyBounds(BODY_BYTES_MAX, BODY_BYTES_MAX)


def validated(schema: type[Schema], value: Any, *, text_bytes_max: int = BODY_BYTES_MAX) -> Schema:
    """The value as the schema. Raises Invalid, with the fields that break it, and TooLarge where a LongText stands in a
    field for other text.
    """
    try:
        return cast(
            Schema, schema.__pydantic_validator__.validate_python(value)
        )  # `model_validate` costs half as much again
    except ValidationError as error:
        errors = error.errors(include_url=False)
        if any(isinstance(each["input"], LongText) and each["type"] == "string_type" for each in errors):
            raise TooLarge(bytes_max=text_bytes_max) from None
        raise Invalid(field_errors(errors, known=_names(schema))) from None


def _names(schema: type[Body]) -> Sequence[str]:
    return [field.alias or name for name, field in schema.model_fields.items()]


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,8})", re.ASCII)
_TRUTHS = {"true": True, "false": False, "True": True, "False": False}
_READERS: Mapping[str, Callable[[str], object]] = {
    "int_type": lambda text: int(text) if _NUMBER.fullmatch(text) else text,
    "bool_type": lambda text: _TRUTHS.get(text, text),
}
"""What reads the text of a field, by the validator's error about the text itself."""


def validated_texts(schema: type[Schema], texts: Mapping[str, str]) -> Schema:
    """The texts of a form as the schema: numbers and booleans are written as in JSON, or as Python's `True` and
    `False`. Raises Invalid.
    """
    values: dict[Any, Any] = {**texts}
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            if (read := _READERS.get(each["type"])) is not None:
                name = each["loc"][0]
                values[name] = read(values[name])
    return validated(schema, values)


def check_media_type(request: Request, *, expected: str) -> None:
    """Raises UnsupportedMedia unless the body is declared as this type, in UTF-8 if with a charset."""
    state: RequestState = request.scope["state"]
    value = state["headers"].get(b"content-type", b"").decode("latin-1")
    if value == expected:
        return
    media_type, *parameters = (part.strip().lower() for part in value.split(";"))
    if media_type != expected:
        raise UnsupportedMedia(f"Send the body as Content-Type: {expected}")
    if any(each.startswith("charset=") and each.replace('"', "") not in _UTF_8 for each in parameters):
        raise UnsupportedMedia("Send the body in UTF-8")


_UTF_8 = {"charset=utf-8", "charset=utf8"}


async def _receive(request: Request) -> bytes | Blob:
    whole, writer = b"", None

    async def take(piece: bytes) -> None:
        nonlocal whole, writer
        if writer is None and len(piece) <= PIECE_BYTES:
            whole = piece  # all of it: only the last piece is so small
            return
        if writer is None:
            state = request_state(request.scope)
            writer = state["blobs"].writer(state.get("account"))
        await writer.add(piece)

    try:
        await receive_pieces(request, take)
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    return whole if writer is None else writer.finish()


async def receive_pieces(request: Request, take: Callable[[bytes], Awaitable[None]]) -> None:
    """Calls `take` for each piece of the body: of more than PIECE_BYTES, and at the end what is left. Nothing more is
    read from the connection while it runs, and its client is not blamed for how long that is. Raises what
    `receive_body` raises.
    """
    state = request_state(request.scope)
    _check_encoding(request)
    guard, bounds = state["overload_guard"], state["web"].bounds
    clock = asyncio.get_running_loop().time
    began, size, waiting = clock(), 0, []
    try:
        async with asyncio.timeout(bounds.body_seconds) as wait:
            with guard.without_slot(state, wait, address=origin_of(request).host):
                async for piece in _pieces(request):
                    waiting.append(piece)
                    size += len(piece)
                    if size <= BODY_BYTES_MAX:
                        continue
                    if sum(map(len, waiting)) > PIECE_BYTES:
                        before = clock()
                        guard.await_until(None, wait)
                        await take(b"".join(waiting))
                        waiting.clear()
                        began += clock() - before
                    at_rate = began + max(bounds.body_seconds, size / bounds.body_bytes_per_second)
                    guard.await_until(min(clock() + bounds.body_seconds, at_rate), wait)
                await take(b"".join(waiting))
    except TimeoutError:
        raise RequestTimeout from None


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    size, bytes_max = 0, BODY_BYTES_MAX
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size > bytes_max:
            bytes_max = body_bounds(request.scope).bytes
            if size > bytes_max:
                raise TooLarge(bytes_max=bytes_max)
        yield piece
        if not message.get("more_body", False):
            return
