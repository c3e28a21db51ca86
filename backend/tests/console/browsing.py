"""A browser without a script: it opens pages, fills in the forms that it finds there, and follows where it is led."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx2
from tests.harness import PASSWORD, new_email

_VOID = {"input", "meta", "link", "img", "br"}


@dataclass
class Element:
    """A tag, and all the text within it."""

    tag: str
    attributes: Mapping[str, str]
    text: str = ""


@dataclass
class Form:
    """A form as it stands in a page: where it goes, and what it would send."""

    action: str
    values: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """An answer, read as HTML."""

    def __init__(self, answer: httpx2.Response) -> None:
        super().__init__()
        self.answer = answer
        self.elements: list[Element] = []
        self.forms: list[Form] = []
        self._open: list[Element] = []
        if answer.headers.get("content-type", "").startswith("text/html"):
            self.feed(answer.text)
            assert self._open == []

    @property
    def status(self) -> int:
        return self.answer.status_code

    @property
    def path(self) -> str:
        return self.answer.url.path

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Every element of this tag with these attributes; `class_` for class."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [each for each in self.elements if each.tag == tag and wanted.items() <= each.attributes.items()]

    def text(self, tag: str, **attributes: str) -> str:
        """The text of the one element of this tag with these attributes."""
        [element] = self.all(tag, **attributes)
        return " ".join(element.text.split())

    def by_id(self, identifier: str) -> Element:
        [element] = [each for each in self.elements if each.attributes.get("id") == identifier]
        return element

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
            self.forms.append(Form(attributes["action"]))
        if tag == "input" and "name" in attributes and attributes.get("type") != "radio":
            self.forms[-1].values[attributes["name"]] = attributes.get("value", "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        element = self._open.pop()
        assert element.tag == tag, "what is opened is closed, in order"
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
    """Somebody's browser: its cookies, and what it says of where a form stands."""

    client: httpx2.AsyncClient

    @property
    def origin(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def cookie(self, name: str = "nanobanana") -> str | None:
        value: str | None = self.client.cookies.get(name)
        return value

    async def open(self, path: str, **request: Any) -> Page:
        """The page at this path, or wherever it leads."""
        return await self._arrive(await self.client.get(path, **request))

    async def submit(self, page: Page, action: str, **values: str) -> Page:
        """The page's form with this action, with these fields filled in; and where it leads."""
        return await self.post(action, {**page.form(action).values, **values})

    async def post(self, path: str, values: Mapping[str, str], *, headers: Mapping[str, str] | None = None) -> Page:
        """A form of our own making, sent as a page of the site would send it unless the headers say otherwise."""
        sent = {"Origin": self.origin} if headers is None else dict(headers)
        return await self._arrive(await self.client.post(path, data=dict(values), headers=sent))

    async def _arrive(self, answer: httpx2.Response) -> Page:
        return await self.open(answer.headers["location"]) if answer.status_code == 303 else Page(answer)

    async def sign_up(self, *, email: str = "", password: str = PASSWORD) -> Page:
        """A new account; the page after it."""
        page = await self.open("/sign-up")
        return await self.submit(page, "/sign-up", email=email or new_email(), password=password)

    async def log_in(self, email: str, password: str = PASSWORD, *, path: str = "/log-in") -> Page:
        """The page after logging in."""
        return await self.submit(await self.open(path), path, email=email, password=password)

    async def email(self) -> str:
        """Of the account that is logged in."""
        return (await self.open("/account")).text("span", class_="email")

    async def create_key(self, *, name: str = "a key", environment: str = "live") -> tuple[str, str]:
        """A key's id and its raw text."""
        page = await self.submit(await self.open("/keys"), "/keys", name=name, environment=environment)
        assert page.status == 200, page.answer.text
        [link] = [each for each in page.all("a") if each.attributes["href"].startswith("/playground?")]
        return link.attributes["href"].partition("=")[2], page.by_id("raw-key").text

    async def draw(self, prompt: str = "A cute banana", **values: str) -> Page:
        """The playground after a picture was asked for."""
        page = await self.open("/playground")
        return await self.submit(page, "/playground", prompt=prompt, size="64x64", **values)


@asynccontextmanager
async def browsing(client: httpx2.AsyncClient) -> AsyncIterator[Browser]:
    """A browser of its own for the server that this client talks to."""
    async with httpx2.AsyncClient(base_url=client.base_url, timeout=30) as own:
        yield Browser(own)
