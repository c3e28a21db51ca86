"""Programs whose base URL lacks the API's version: what they ask for is a page of the console, or is not there."""

import re

from fastapi import Request, Response

from app.core.errors import ApiError, NotFound
from app.web.error_responses import ErrorFormat
from app.web.headers import header_values
from app.web.public_url import public_url_of

_OF_CLIENTS = re.compile("/(?:images/(?:generations|edits)|chat/completions|responses)")
"""What OpenAI's clients alone ask for."""


def base_url_error_or(other: ErrorFormat, *, api_error: ErrorFormat, are_pages: bool) -> ErrorFormat:
    """The format of paths outside of the API: for its clients a 404 that says what their base URL lacks, in the format
    of the API, where they ask for a page or for nothing that there is; else the other.
    """

    async def answer(request: Request, error: ApiError) -> Response:
        is_mistaken = are_pages if "route" in request.scope else type(error) is NotFound
        if not is_mistaken or not _is_for_api(request):
            return await other(request, error)
        version = "v1beta" if header_values(request, b"x-goog-api-key") else "v1"
        url = f"{public_url_of(request)}/{version}"
        return await api_error(
            request, NotFound(f"The base URL lacks its version: it ends in /{version}, as {url} does")
        )

    return answer


def _is_for_api(request: Request) -> bool:
    """Whether a program has sent it, with what may be an API key, and not a browser."""
    if "text/html" in "".join(header_values(request, b"accept")):
        return False
    bearer = "".join(header_values(request, b"authorization"))[:7].lower() == "bearer "
    keys = header_values(request, b"api-key") + header_values(request, b"x-goog-api-key")
    return bearer or bool(keys) or _OF_CLIENTS.fullmatch(request.scope["path"]) is not None
