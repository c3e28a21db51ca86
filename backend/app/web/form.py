"""HTML forms, as browsers send them without JavaScript."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from fastapi import Request

from app.core.errors import InvalidRequest
from app.web.body import read_body

FIELDS_MAX = 20


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of the request's form, each once, in UTF-8. Line breaks, which browsers send as CRLF, become LF.

    Raises InvalidRequest for a malformed form or a field that comes twice, and the errors of `read_body`.
    """
    body = await read_body(request, media_type="application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:  # without the cause: its text quotes the body
        raise InvalidRequest("The form cannot be read") from None
    fields = {name: value.replace("\r\n", "\n") for name, value in pairs}
    if len(fields) != len(pairs):
        raise InvalidRequest("The form has the same field twice")
    return fields
