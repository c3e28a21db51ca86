"""A browser without scripts: it opens pages, fills in and sends their forms, and follows redirects."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx2
from tests.harness import PASSWORD, new_email

File = tuple[str, bytes]
"""The name of a file input, and the file that is chosen in it."""

_VOID = {"input", "meta", "link", "img", "br"}


@dataclass
class Element:
    """An element, and all the text in it."""

    tag: str
    attributes: Mapping[str, str]
    text: str = ""


@dataclass
class Form:
    """A form of a page: the path that it is sent to, and the values that it would send as it is."""

    action: str
    values: dict[str, str] = field(default_factory=dict)
    checked: dict[str, list[str]] = field(default_factory=dict)
    """The values of checkboxes by name."""
    files: Sequence[str] | None = None
    """The names of its file inputs, where it is sent as multipart/form-data."""


class Page(HTMLParser):
    """A response, read as HTML."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__()
        self.response = response
        self.elements: list[Element] = []
        self.forms: list[Form] = []
        self._open: list[Element] = []
        if response.headers.get("content-type", "").startswith("text/html"):
            self.feed(response.text)
            assert self._open == []

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def path(self) -> str:
        return self.response.url.path

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Every element with this tag and these attributes; `class_` for class."""
        expected = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [each for each in self.elements if each.tag == tag and expected.items() <= each.attributes.items()]

    def text(self, tag: str, **attributes: str) -> str:
        """The text of the only element with this tag and these attributes."""
        [element] = self.all(tag, **attributes)
        return " ".join(element.text.split())

    def by_id(self, identifier: str) -> Element:
        [element] = [each for each in self.elements if each.attributes.get("id") == identifier]
        return element

    @property
    def result(self) -> str:
        """The id of the generation that the playground shows."""
        [generation_id] = [each.attributes["data-edit"] for each in self.elements if "data-edit" in each.attributes]
        return generation_id

    def form(self, action: str) -> Form:
        [form] = [each for each in self.forms if each.action == action]
        return form

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append(Element(tag, attributes))
        if tag not in _VOID:
            self._open.append(self.elements[-1])
        if tag == "form":
            assert attributes["method"] == "post"
            is_multipart = attributes.get("enctype") == "multipart/form-data"
            self.forms.append(Form(attributes["action"], files=[] if is_multipart else None))
        if tag == "input" and "name" in attributes:
            self._add_input(attributes)

    def _add_input(self, attributes: Mapping[str, str]) -> None:
        form, name = self.forms[-1], attributes["name"]
        if attributes.get("type") == "file":
            form.files = [*(form.files or ()), name]
        elif attributes.get("type") == "checkbox":
            form.checked.setdefault(name, []).append(attributes["value"])
        elif attributes.get("type") != "radio":
            form.values[name] = attributes.get("value", "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        element = self._open.pop()
        assert element.tag == tag, "elements are closed in the reverse of the order in which they are opened"
        if tag == "textarea":
            self.forms[-1].values[element.attributes["name"]] = element.text.removeprefix("\n")
        if tag == "option":
            select = next(each for each in reversed(self._open) if each.tag == "select").attributes["name"]
            if "selected" in element.attributes or select not in self.forms[-1].values:
                self.forms[-1].values[select] = element.attributes.get("value", element.text)

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data


@dataclass
class Browser:
    """A browser with cookies of its own. It sends the `Origin` of the site with every form."""

    client: httpx2.AsyncClient

    @property
    def origin(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def cookie(self, name: str = "nanobanana") -> str | None:
        value: str | None = self.client.cookies.get(name)
        return value

    async def open(self, path: str, **request: Any) -> Page:
        """The page at this path, or the one that it redirects to."""
        return await self._follow_redirect(await self.client.get(path, **request))

    async def submit(self, page: Page, action: str, **values: str) -> Page:
        """Sends the page's form with this action and these values; the page that comes back."""
        return await self.submit_files(page, action, [], values)

    async def submit_files(self, page: Page, action: str, files: Sequence[File], values: Mapping[str, Any]) -> Page:
        """The same with files."""
        form = page.form(action)
        empty = [(name, b"") for name in form.files or () if name not in dict(files)]
        return await self.post(action, {**form.values, **form.checked, **values}, files=[*files, *empty])

    async def post(
        self,
        path: str,
        values: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        files: Sequence[File] = (),
    ) -> Page:
        """Sends a form with these values, as a page of the site would send it unless `headers` are given."""
        sent = {"Origin": self.origin} if headers is None else dict(headers)
        parts = [(name, ("a file", content)) for name, content in files]
        return await self._follow_redirect(
            await self.client.post(path, data=dict(values), files=parts or None, headers=sent)
        )

    async def _follow_redirect(self, response: httpx2.Response) -> Page:
        return await self.open(response.headers["location"]) if response.status_code == 303 else Page(response)

    async def sign_up(self, *, email: str = "", password: str = PASSWORD) -> Page:
        """Signs up with a new account; the page that comes back."""
        page = await self.open("/sign-up")
        return await self.submit(page, "/sign-up", email=email or new_email(), password=password)

    async def log_in(self, email: str, password: str = PASSWORD, *, path: str = "/log-in") -> Page:
        """Logs in; the page that comes back."""
        return await self.submit(await self.open(path), path, email=email, password=password)

    async def email(self) -> str:
        """The email of the user who is logged in."""
        return (await self.open("/account")).text("span", class_="email")

    async def create_key(self, *, name: str = "a key", environment: str = "live") -> tuple[str, str]:
        """Creates a key; its id and its raw text."""
        page = await self.submit(await self.open("/keys"), "/keys", name=name, environment=environment)
        assert page.status == 200, page.response.text
        [link] = [each for each in page.all("a") if each.attributes["href"].startswith("/playground?")]
        return link.attributes["href"].partition("=")[2], page.by_id("raw-key").text

    async def generate(self, prompt: str = "A cute banana", **values: str) -> Page:
        """Sends the form of the playground; the page that comes back."""
        page = await self.open("/playground")
        return await self.submit(page, "/playground", prompt=prompt, size="64x64", **values)


@asynccontextmanager
async def new_browser(client: httpx2.AsyncClient) -> AsyncIterator[Browser]:
    """A browser without cookies yet, for the server of this client."""
    async with httpx2.AsyncClient(base_url=client.base_url, timeout=30) as http_client:
        yield Browser(http_client)
