"""Refusal of forms that a page of another site sent."""

from urllib.parse import urlsplit

from fastapi import Request

from app.core.errors import ApiError


class FormRefused(ApiError):
    status, title, code = 403, "Forbidden", "form_refused"
    detail = "This form did not come from a page of this site. Nothing was done"


class InvalidCsrfToken(FormRefused):
    detail = "This page had grown old, so nothing was done. Please press the button again"


def check_origin(request: Request, *, public_url: str) -> None:
    """Raises FormRefused unless the browser says that a page of this site sent the form.

    A page of this site has the origin of PUBLIC_URL, or PUBLIC_URL's scheme and the host that the request names.
    """
    public = urlsplit(public_url)
    own = {_origin(public.scheme, netloc) for netloc in (public.netloc, request.headers.get("host", ""))}
    sent = request.headers.getlist("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if len(sent) != 1 or sent[0] not in own or site not in {"same-origin", "none"}:
        raise FormRefused


def _origin(scheme: str, netloc: str) -> str:
    default = {"http": ":80", "https": ":443"}[scheme]
    return f"{scheme}://{netloc.lower().removesuffix(default)}"
