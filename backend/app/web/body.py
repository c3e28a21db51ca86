"""Request bodies, read and validated by a dependency of their own.

FastAPI itself would read the body before it runs any dependency, and answer 400 or 422 to a client without credentials.
As a dependency, the body is read after authentication and limits: the order that the API promises.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from fastapi import Depends, Request, params
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from app.core.bounds import BODY_BYTES_MAX
from app.core.errors import Invalid, InvalidRequest, RequestTimeout, TooLarge, UnsupportedMedia
from app.core.schemas import Body
from app.web.error_responses import field_errors
from app.web.headers import header_values
from app.web.state import request_state

Schema = TypeVar("Schema", bound=Body)

_DIGITS_MAX = 300  # a longer number is beyond a double, as 1e999 is


@dataclass(frozen=True)
class JSONBody(Generic[Schema]):
    """A dependency: the request's body as the given schema.

    Raises what `read_body` raises, InvalidRequest unless it is one well-formed JSON text without duplicate keys or
    numbers beyond a double, and Invalid, with the fields that break the schema.
    """

    schema: type[Schema]

    async def __call__(self, request: Request) -> Schema:
        return validated(self.schema, _parse(await read_body(request, media_type="application/json")))


def json_body(schema: type[Body]) -> params.Depends:
    """For signatures: `order: Annotated[GenerationCreate, json_body(GenerationCreate)]`."""
    dependency: params.Depends = Depends(JSONBody(schema))
    return dependency


async def read_body(request: Request, *, media_type: str) -> bytes:
    """The request's body, declared as this type in UTF-8. No slot of the OverloadGuard is held while it is awaited.

    Raises UnsupportedMedia for another declaration, RequestTimeout unless it arrives in time, TooLarge for more than
    `body_bytes_max`, and Overloaded if there is no slot once it is here.
    """
    _check_media_type("".join(header_values(request, b"content-type")), expected=media_type)
    whole_body = request_state(request.scope).get("whole_body")
    if whole_body is None:
        return await _read_all(request)
    if len(whole_body) > BODY_BYTES_MAX and len(whole_body) > (bytes_max := body_bytes_max(request.scope)):
        raise TooLarge(bytes_max=bytes_max)
    return whole_body


def body_bytes_max(scope: Scope) -> int:
    """The largest body that the path of this request takes."""
    return request_state(scope)["web"].body_bytes_max.get(scope["path"], BODY_BYTES_MAX)


def validated(schema: type[Schema], value: Any) -> Schema:
    """The value as the schema. Raises Invalid, with the fields that break it."""
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise Invalid(field_errors(error.errors(include_url=False), known=list(schema.model_fields))) from None


def _check_media_type(value: str, *, expected: str) -> None:
    if value == expected:
        return
    media_type, *parameters = (part.strip().lower() for part in value.split(";"))
    if media_type != expected or any(
        parameter.replace('"', "") != "charset=utf-8" for parameter in parameters if parameter
    ):
        raise UnsupportedMedia(f"Send the body as Content-Type: {expected}")


async def _read_all(request: Request) -> bytes:
    state = request_state(request.scope)
    try:
        async with asyncio.timeout(state["web"].bounds.body_seconds) as wait:
            with state["overload_guard"].without_slot(state, wait):
                return b"".join([piece async for piece in _pieces(request)])
    except TimeoutError:
        raise RequestTimeout from None


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    size, bytes_max = 0, body_bytes_max(request.scope)
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size > bytes_max:
            raise TooLarge(bytes_max=bytes_max)
        yield piece
        if not message.get("more_body", False):
            return


def _parse(body: bytes) -> Any:
    try:
        return _decoder.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):  # without the cause: its text quotes the body
        raise InvalidRequest("The body is not one JSON text in UTF-8") from None


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


def _refuse_number(_text: str) -> NoReturn:
    raise InvalidRequest("The body has a number that is out of range or not one of JSON")


_decoder = json.JSONDecoder(
    object_pairs_hook=_without_duplicates,
    parse_float=_finite,
    parse_int=_bounded_integer,
    parse_constant=_refuse_number,
)
