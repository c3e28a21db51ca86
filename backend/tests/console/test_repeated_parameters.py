"""A parameter of the query that is sent twice is a 422 with its name, on every route and page that has one."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from app.core.cursor import Cursor
from app.core.settings import Settings
from app.main import create_app
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from tests.console.browser import Browser
from tests.harness import Account, generate
from tests.problems import check_error_page, check_problem

VALUES = {
    "limit": "1",
    "cursor": str(Cursor(datetime(2026, 11, 22, tzinfo=UTC), f"key_{'0' * 20}")),
    "include_revoked": "true",
    "group_by": "model",
    "from": "2026-11-01",
    "to": "2026-11-30",
    "days": "7",
    "next": "keys",
    "changed": "",
    "model": "nano-banana",
    "status": "delivered",
    "wait": "1",
    "invitation": "",
}
OWN = {("/v1/billing/charges", "group_by"): "day"}
"""The values of a path alone."""
READ_BY_PAGES = {
    ("/log-in", "next"),
    ("/playground", "key_id"),
    ("/playground", "model"),
    ("/playground", "edit"),
    ("/playground", "generation"),
    ("/account", "changed"),
    ("/sign-up", "invitation"),
}
"""What a page reads without a schema."""

READ_ELSEWHERE = {"alt", "paid_since"}
"""What a route of Gemini's clients, and the page of bills, read without a schema."""

SENT_WITH = {"/v1/generations", "/v1/generations/{generation_id}", "/v1/uploads"}
"""The paths that take an API key."""


def parameters_of_schemas(settings: Settings, *, method: str) -> Iterator[tuple[str, str]]:
    """The path of each route of the method, and the name of each parameter of its query."""
    for context in iter_route_contexts(create_app(settings).routes):
        if isinstance(context.original_route, APIRoute) and method in (context.methods or ()):
            for schema in _query_schemas(context.dependant):
                yield from ((str(context.path), each.alias or name) for name, each in schema.model_fields.items())


def _query_schemas(dependant: Dependant) -> Iterator[type[BaseModel]]:
    for field in dependant.query_params:
        schema = field.field_info.annotation
        assert isinstance(schema, type)
        assert issubclass(schema, BaseModel), "a parameter outside of a schema is to be read by query_value"
        yield schema
    for dependency in dependant.dependencies:
        yield from _query_schemas(dependency)


async def test_of_two_values_neither_is_taken(
    settings: Settings, client: httpx2.AsyncClient, account: Account, ada: Browser
) -> None:
    key = await account.create_key()
    own = (await generate(client, key)).json()["id"]
    await ada.create_key()
    made = (await ada.generate()).result
    values = {**VALUES, "key_id": key.id, "edit": made, "generation": made}
    found = set(parameters_of_schemas(settings, method="GET")) | READ_BY_PAGES
    assert {path for path, _ in found} == {
        *("/v1/keys", "/v1/generations", "/v1/generations/{generation_id}", "/v1/usage", "/v1/uploads"),
        *("/v1/billing/entries", "/v1/billing/charges"),
        *("/keys", "/history", "/usage", "/usage.csv", "/log-in", "/playground", "/account"),
        "/sign-up",
    }
    for path, name in sorted(found):
        is_api = path.startswith("/v1/")
        asker = client if is_api else ada.client
        headers = (key if path in SENT_WITH else account).headers if is_api else {}
        target = path.format(generation_id=own)
        pair = httpx2.QueryParams({name: OWN.get((path, name), values[name])})
        assert (await asker.get(f"{target}?{pair}", headers=headers)).status_code == 200, (path, name)
        answer = await asker.get(f"{target}?{pair}&{pair}", headers=headers)
        if is_api:
            check_problem(answer, 422, "validation_error", more={"errors"})
            assert [each["parameter"] for each in answer.json()["errors"]] == [name]
            assert answer.json()["error"]["param"] == name
            assert f"{name}: Must not be sent more than once" in answer.json()["error"]["message"]
        else:
            check_error_page(answer, 422)
    assert set(parameters_of_schemas(settings, method="POST")) == {("/v1/uploads", "first_frame")}
    twice, headers = "first_frame=true&first_frame=true", {**key.headers, "Content-Type": "image/png"}
    answer = await client.post(f"/v1/uploads?{twice}", content=b"", headers=headers)
    check_problem(answer, 422, "validation_error", more={"errors"})


async def test_no_other_parameter_is_read_without_a_schema(backend: Path) -> None:
    sources = (path.read_text() for path in (backend / "app").rglob("*.py"))
    read = {name for source in sources for name in re.findall(r'query_value\([\w.]+, "(\w+)"\)', source)}
    assert read == {name for _, name in READ_BY_PAGES} | READ_ELSEWHERE


async def test_of_two_values_of_geminis_parameter_neither_is_taken(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    path = "/v1beta/models/nano-banana:streamGenerateContent"
    body = {"contents": [{"parts": [{"text": "A cute banana"}]}]}
    assert (await client.post(f"{path}?alt=sse", json=body, headers=key.headers)).status_code == 200
    answer = await client.post(f"{path}?alt=sse&alt=sse", json=body, headers=key.headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "The request is not valid. alt: Must not be sent more than once"


async def test_credentials_come_first_and_what_no_route_knows_is_as_it_was(
    client: httpx2.AsyncClient, account: Account
) -> None:
    check_problem(await client.get("/v1/keys?limit=1&limit=2"), 401, "invalid_token")
    assert (await client.get("/v1/auth/me?a=1&a=2", headers=account.headers)).status_code == 200
    unknown = await client.get("/v1/keys?a=1&a=2", headers=account.headers)
    check_problem(unknown, 422, "validation_error", more={"errors"})
    assert [each["parameter"] for each in unknown.json()["errors"]] == ["*"]
