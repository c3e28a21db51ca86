"""Rendering of pages: templates, static files, and the headers that restrict what a browser does with a page."""

import hmac
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.catalogue.prices import Prices, format_amount
from app.console.snippets import Snippet, SnippetImage, snippets
from app.core.bounds import BODY_BYTES_MAX, IMAGE_BYTES_MAX, format_bytes
from app.core.currencies import show_amount, show_number
from app.core.schemas import format_time
from app.core.settings import Settings
from app.providers import Size

_FOLDER = Path(__file__).parent
_HASH_CHARACTERS = 12


@dataclass(frozen=True, eq=False)
class Page:
    """A page of the console, declared by its module, which adds the routes of the page and of its forms to `router`.

    The console derives three things from its pages: the navigation, the pages that a log-in can redirect to, and the
    paths whose errors are answered as pages.
    """

    path: str
    template: str
    label: str | None = None
    """The page's entry in the navigation. A log-in can redirect only to a page that has one."""
    is_of_billing: bool = False
    """Whether the navigation has it only where BILLING is on."""
    router: APIRouter = field(default_factory=partial(APIRouter, include_in_schema=False))

    @property
    def name(self) -> str:
        """The page in the query of the log-in page: `/log-in?next=keys`."""
        return self.path.removeprefix("/")


@dataclass(frozen=True)
class StaticFile:
    """A file whose name holds a hash of its content, so that browsers may keep it for ever."""

    name: str
    media_type: str
    content: bytes


class Console:
    """What all requests of the console share: its pages, templates and static files, read once, and its keys."""

    def __init__(self, settings: Settings, pages: Sequence[Page], *, image_origins: Sequence[str]) -> None:
        """`image_origins` are the origins besides PUBLIC_URL's that the URL of an image can redirect a browser to."""
        self.public_url = settings.public_url
        self.registration = settings.registration
        is_secure = settings.public_url.startswith("https:")
        # Under a name with this prefix, browsers refuse a cookie over plain HTTP, from a subdomain or for some paths.
        self.cookie_prefix = "__Host-" if is_secure else ""
        self.cookie_options: dict[str, Any] = {"path": "/", "secure": is_secure, "httponly": True, "samesite": "lax"}
        self.csrf_keys = [hmac.digest(secret, b"nb-csrf", "sha256") for secret in settings.accepted_secrets]
        self.charges = settings.charges
        self.navigation = [page for page in pages if page.label and (self.charges or not page.is_of_billing)]
        self.files = _static_files()
        self._headers = _headers(image_origins)
        images_bytes_max = settings.body_bytes_max_with_images - BODY_BYTES_MAX
        self._templates = _templates(settings.password_bytes_min, images_bytes_max)

    @property
    def home(self) -> Page:
        """The page that a log-in redirects to by default."""
        return self.navigation[0]

    def page_named(self, name: str) -> Page | None:
        """The page of the navigation with this name, if there is one."""
        return next((page for page in self.navigation if page.name == name), None)

    def snippets(
        self, values: Mapping[str, str], images: Sequence[SnippetImage] = (), mask: SnippetImage | None = None
    ) -> Sequence[Snippet]:
        """The code that requests this generation from this server's API."""
        return snippets(self.public_url, values, images, mask)

    def render(self, template: str, **context: Any) -> HTMLResponse:
        """The page that the template makes of `context`, whose texts are escaped. By default it is of no session."""
        values = {"console": self, "session": None, "path": "", **context}
        return HTMLResponse(self._templates.get_template(template).render(values), headers=self._headers)


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


@cache
def _static_files() -> Mapping[str, StaticFile]:
    """All of them, by name."""
    return {each.name: each for each in map(_read, sorted((_FOLDER / "static").iterdir()))}


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    digest = sha256(content).hexdigest()[:_HASH_CHARACTERS]
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return StaticFile(f"{path.stem}.{digest}{path.suffix}", media_type, content)


@cache
def _templates(password_bytes_min: int, images_bytes_max: int) -> Environment:
    """The environment that these globals are in. It is shared, since it compiles each template once."""
    # StrictUndefined: a template that uses a name it was not given raises an error, instead of leaving a gap.
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = _static_files()
    by_plain_name = {f"{name.partition('.')[0]}.{name.rpartition('.')[2]}": f"/static/{name}" for name in names}
    environment.globals["static"] = by_plain_name.__getitem__
    environment.globals["password_bytes_min"] = password_bytes_min
    environment.globals["image_bytes_max"] = IMAGE_BYTES_MAX
    environment.globals["images_bytes_max"] = images_bytes_max
    # Pages load images by path, so that they work under whatever host name the browser reached this server by.
    environment.filters["path"] = _path
    environment.filters["thumbnail"] = _thumbnail
    environment.filters["sides"] = Size.of
    environment.filters["time"] = _time
    environment.filters["bytes"] = format_bytes
    environment.filters["number"] = "{:,}".format
    environment.filters["amount"] = format_amount
    environment.filters["money"] = show_amount
    environment.filters["money_number"] = show_number
    environment.filters["price_of_an_image"] = _price_of_an_image
    return environment


def _path(url: str) -> str:
    """The URL without scheme, host and port."""
    return f"/{url.split('/', 3)[3]}"


def _thumbnail(url: str, width: int) -> str:
    """The path of a smaller copy of the image with this URL. As WebP, it has a tenth of the bytes of a PNG."""
    return f"{_path(url).rpartition('.')[0]}.webp?width={width}"


def _price_of_an_image(prices: Prices, currency: str | None) -> str:
    """The price, or each one with what it is for: `An image costs 0.05 USD (1K) or 0.08 USD (2K).`"""
    if prices.is_free:
        return "Images of this model are free."
    priced = {f"{'/'.join(part for part in key if part)}": amount for key, amount in prices.amounts.items()}
    shown = [f"{show_amount(amount, currency)}{f' ({name})' if name else ''}" for name, amount in priced.items()]
    return f"An image costs {' or '.join([', '.join(shown[:-1]), shown[-1]] if shown[1:] else shown)}."


def _time(at: datetime) -> Markup:
    """The time in UTC, in an element whose text the script replaces by the time in the browser's own zone."""
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(format_time(utc), f"{utc:%-d %b %Y, %H:%M}")
