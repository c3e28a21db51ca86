"""What every page is made with: templates, static files, and the headers that keep a browser from being misled."""

import hmac
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.console.snippets import Snippet, snippets
from app.core.schemas import format_time
from app.core.settings import Settings

_FOLDER = Path(__file__).parent
_HASH_CHARACTERS = 12


class Page(HTMLResponse):
    """A page. It is never stored, never framed, and loads nothing that is not ours."""


@dataclass(frozen=True)
class StaticFile:
    """A file of the console's own, which never changes under its name: the name has the content's hash in it."""

    name: str
    media_type: str
    content: bytes


class Site:
    """Templates and static files, read once."""

    def __init__(self, settings: Settings, *, image_origins: Sequence[str] = ()) -> None:
        """`image_origins` are those, besides our own, that a picture's address may lead a browser to."""
        self.public_url = settings.public_url
        self.form_key = hmac.digest(settings.signing_secret, b"nb-form", "sha256")
        self.files = {each.name: each for each in map(_read, sorted((_FOLDER / "static").iterdir()))}
        self.examples: dict[str, bytes] = {}
        """What the front page shows, once it has been drawn."""
        self._headers = _headers(image_origins)
        self._templates = _templates(settings, self.files)

    def snippets(self, values: Mapping[str, str]) -> Sequence[Snippet]:
        """The call that makes this picture, for callers of this server."""
        return snippets(self.public_url, values)

    def page(self, template: str, *, status: int = 200, **context: Any) -> Page:
        """The template, filled in; whatever is put into it is text."""
        content = self._templates.get_template(template).render(site=self, **context)
        return Page(content, status_code=status, headers=self._headers)


def _headers(image_origins: Sequence[str]) -> Mapping[str, str]:
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": " ".join(["'self'", *image_origins]),
        "connect-src": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Frame-Options": "DENY",
        # Not `no-referrer`: under it browsers send `Origin: null` with a form.
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    digest = sha256(content).hexdigest()[:_HASH_CHARACTERS]
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return StaticFile(f"{path.stem}.{digest}{path.suffix}", media_type, content)


def _templates(settings: Settings, files: Mapping[str, StaticFile]) -> Environment:
    # Undefined names are errors: an empty place where something should stand is worse than a page that fails in a test.
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    by_plain_name = {f"{name.partition('.')[0]}.{name.rpartition('.')[2]}": f"/static/{name}" for name in files}
    environment.globals["static"] = by_plain_name.__getitem__
    environment.globals["password_bytes_min"] = settings.password_bytes_min
    # Shown by path, so that a page works under whatever name the server was reached; told with the public one.
    environment.filters["here"] = partial(_without_prefix, prefix=settings.public_url)
    environment.filters["time"] = _time
    environment.filters["number"] = _number
    return environment


def _without_prefix(url: str, *, prefix: str) -> str:
    return url.removeprefix(prefix)


def _time(at: datetime) -> Markup:
    """In UTC, for the script to put into the reader's own time."""
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(format_time(utc), f"{utc:%-d %b %Y, %H:%M}")


def _number(count: int) -> str:
    return f"{count:,}"
