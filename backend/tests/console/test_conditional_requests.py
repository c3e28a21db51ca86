"""Conditional headers on every route whose path holds a name: never a 500, and no ETag of what does not exist."""

from collections.abc import Iterator

import pytest
from app.core.settings import Settings
from app.main import create_app
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount
from tests.console.browser import Browser
from tests.harness import Account, Key, generate

NAMES = {
    "unknown": "nothing",
    "not ASCII": "%E7%8C%AB",
    "not UTF-8": "%FF%FE",
    "NUL": "%00",
    "line feed": "a%0Ab",
    "two lines": "a%0D%0Aset-cookie:%20b=c",
    "slash": "..%2F..%2Fetc",
    "backslash": "..%5C",
    "quote": "%22a",
    "surrogate": "%ED%A0%80",
    "very long": "a" * 7000,
    "id": f"gen_{'0' * 30}",
}
ANY = ("If-None-Match", "*")
CONDITIONS = [
    ANY,
    *[("If-None-Match", value) for value in ('"a", W/"b"', 'W/"*"', "a", '"', "", ",,", '"\xff"', '"a"' * 500)],
    *[("If-Match", value) for value in ("*", '"a"')],
    *[("If-Range", value) for value in ('"a"', 'W/"a"', "Wed, 25 Nov 2026 10:00:00 GMT", "\xff")],
    *[("If-Modified-Since", value) for value in ("Wed, 25 Nov 2026 10:00:00 GMT", "Wed, 99 Nov 2026", "\xff", "")],
    ("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
]
RANGES = ["bytes=0-", "bytes=-0", "bytes=5-2", "bytes=", "bytes=a-b", "lines=0-1", "bytes=0-1,3-4", "bytes=-1", ""]
RANGES += [
    f"bytes={'9' * 400}-",
    f"bytes=0-{'9' * 15}",
    "bytes=99999999-",
    "bytes=\xb2-",
    "bytes 0",
    "bytes=0-0," * 200,
]
HEADERS = [*CONDITIONS, *[("Range", value) for value in RANGES]]


def paths_with_names(settings: Settings) -> Iterator[str]:
    """Every path that can be asked for and holds a name, as a template."""
    for context in iter_route_contexts(create_app(settings).routes):
        path = str(context.path)
        if "GET" in (context.methods or ()) and "{" in path:
            yield path.replace("{extension}", "png")
        elif isinstance(context.route, Mount):
            yield f"{path}/{{name}}"


def filled_in(template: str, name: str) -> str:
    start, _, rest = template.partition("{")
    return f"{start}{name}{rest.partition('}')[2]}"


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


async def ask(browser: Browser, method: str, path: str, key: Key, header: tuple[str, str]) -> tuple[int, bool]:
    """The status, and whether the answer has an ETag."""
    sent = [(header[0].encode(), header[1].encode("latin-1"))]
    if path.startswith(("/v1/generations", "/v1/models", "/v1/uploads", "/v1beta")):
        sent += [(name.encode(), value.encode()) for name, value in key.headers.items()]
    answer = await browser.client.request(method, path, headers=sent)
    assert "set-cookie" not in answer.headers
    return answer.status_code, "etag" in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_does_not_exist_is_a_404(settings: Settings, ada: Browser, key: Key, method: str) -> None:
    templates = set(paths_with_names(settings))
    assert len(templates) == 16, templates
    with_head = {each for each in templates if each.startswith(("/v1/images/", "/docs/assets/"))}
    cases = [(name, header) for name in NAMES.values() for header in (ANY, ("Range", "bytes=0-"))]
    cases += [(name, header) for name in (NAMES["not ASCII"], NAMES["id"]) for header in HEADERS]
    for template in templates:
        statuses = {404} if method == "GET" or template in with_head else {404, 405}
        for name, header in cases:
            status, has_etag = await ask(ada, method, filled_in(template, name), key, header)
            assert status in statuses, (template, name, header)
            assert not has_etag, (template, name, header)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_exists_is_never_a_500(ada: Browser, key: Key, method: str) -> None:
    page = await ada.open("/")
    static = next(each.attributes["src"] for each in page.all("script"))
    generation_id = (await generate(ada.client, key, size="64x64")).json()["id"]
    key_id, _ = await ada.create_key()
    paths = [f"/v1/images/{generation_id}.png", f"/v1/generations/{generation_id}", f"/keys/{key_id}/revoke"]
    for path in [*paths, "/examples/banana.png", "/docs/assets/swagger-ui.css", static]:
        for header in HEADERS:
            status, _ = await ask(ada, method, path, key, header)
            assert status in {200, 206, 304, 400, 405, 416}, (path, header)
