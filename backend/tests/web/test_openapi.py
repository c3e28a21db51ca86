"""The OpenAPI document says all that a client needs, and the reference page needs nobody but us."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from app.core.settings import Settings
from app.main import create_app
from fastapi.routing import APIRoute, iter_route_contexts
from tests.harness import JSON, Account

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
OF_EVERY_ROUTE = {"400", "413", "500", "503"}
OF_EVERY_BODY = {"408", "415", "422"}


@pytest.fixture(scope="module")
async def document(client: httpx2.AsyncClient) -> JSON:
    answer = await client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    document: JSON = answer.json()
    return document


@pytest.fixture(scope="module")
def operations(document: JSON) -> list[JSON]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def references(node: Any) -> Iterator[str]:
    """Every `$ref` below a node."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_documented_route_is_there_under_the_name_of_its_function(settings: Settings, document: JSON) -> None:
    found = {
        (context.path_format, method.lower()): route.endpoint.__name__
        for context in iter_route_contexts(create_app(settings).routes)
        if isinstance(route := context.original_route, APIRoute) and context.include_in_schema
        for method in context.methods or ()
    }
    documented = {
        (path, method): operation["operationId"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert documented == found
    assert len(set(documented.values())) == len(documented)


def test_every_operation_has_a_sentence_a_tag_and_a_success(operations: list[JSON]) -> None:
    for operation in operations:
        assert operation["summary"]
        assert operation["description"].endswith(".")
        assert operation["tags"]
        successes = [status for status in operation["responses"] if status.startswith("2")]
        assert len(successes) == 1 + ("416" in operation["responses"]), "whole, and where that can be, in part"
        for success in successes:
            assert ("content" in operation["responses"][success]) == (success != "204")


def test_every_error_of_every_operation_is_a_problem(operations: list[JSON]) -> None:
    for operation in operations:
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert set(errors) >= OF_EVERY_ROUTE
        if operation["operationId"] != "create_images":  # that one has OpenAI's
            assert all(answer["content"] == PROBLEM for answer in errors.values())
        assert all(re.match(r"`\w+`: ", answer["description"]) for answer in errors.values())
        assert set(errors) >= OF_EVERY_BODY or "requestBody" not in operation
        assert ("401" in errors) or not operation.get("security")
        assert ("429" in errors) or {"API key": []} not in operation.get("security", []), "bad keys are limited"
        in_query = [each for each in operation.get("parameters", []) if each["in"] == "query"]
        assert "422" in errors or not in_query


def test_every_body_is_described_and_admits_no_other_fields(document: JSON, operations: list[JSON]) -> None:
    bodies = [operation["requestBody"] for operation in operations if "requestBody" in operation]
    assert len(bodies) >= 4
    for body in bodies:
        assert body["required"]
        [(media_type, content)] = body["content"].items()
        assert media_type == "application/json"
        schema = document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[-1]]
        assert schema["additionalProperties"] is False
        assert schema["properties"]


def test_the_idempotency_key_is_an_optional_header_of_what_generates_alone(document: JSON) -> None:
    found = {
        f"{method} {path}": each
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for each in operation.get("parameters", [])
        if each["in"] == "header"
    }
    assert set(found) == {"post /v1/generate", "post /v1/images/generations"}
    for header in found.values():
        assert (header["name"], header["schema"]["type"]) == ("Idempotency-Key", "string")
        assert not header["required"]
        assert header["description"]


async def test_the_idempotency_key_is_documented_as_it_is_taken(
    client: httpx2.AsyncClient, account: Account, document: JSON
) -> None:
    [header] = document["paths"]["/v1/generate"]["post"]["parameters"]
    good = ("a", "!#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~", "a" * 255, '"quoted"', f'"{"a" * 255}"')
    bad = ("", "a b", "\u00e9", '"', '""', '"a', 'a"', 'a"b', "a" * 256, f'"{"a" * 256}"')
    authorization = (b"Authorization", (await account.create_key()).headers["Authorization"].encode())
    for key in (*good, *bad):
        headers = [authorization, (b"Idempotency-Key", key.encode("latin-1"))]
        answer = await client.post("/v1/generate", json={}, headers=headers)
        assert answer.status_code == (422 if key in good else 400), key
        assert bool(re.search(header["schema"]["pattern"], key)) == (key in good), key


def test_every_reference_leads_somewhere_and_no_schema_is_left_over(document: JSON) -> None:
    used = set(references(document))
    assert used == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_all_credentials_are_described_as_bearer_tokens(document: JSON) -> None:
    schemes = document["components"]["securitySchemes"]
    assert set(schemes) == {"Login token", "API key", "Metrics token"}
    assert all((scheme["type"], scheme["scheme"]) == ("http", "bearer") for scheme in schemes.values())


async def test_the_reference_and_all_it_loads_come_from_us(client: httpx2.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
    assert len(loaded) >= 4
    assert re.findall(r"https?:|[\"'(]//", page.text) == []
    assert re.findall(r"<script[^>]*>[^<]|<style|style=| on\w+=", page.text) == []
    assert "default-src 'none'; script-src 'self'; style-src 'self'; " in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for url in loaded:
        assert not urlsplit(url).netloc
        answer = await client.get(url)
        assert answer.status_code == 200, url
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_references_files_may_be_cached_and_are_not_sent_twice(client: httpx2.AsyncClient) -> None:
    for name, media_type in [("swagger-ui-bundle.js", "javascript"), ("swagger-ui.css", "css"), ("favicon.png", "png")]:
        answer = await client.get(f"/docs/assets/{name}")
        assert media_type in answer.headers["content-type"]
        assert answer.headers["cache-control"] == "public, max-age=3600"
        again = await client.get(f"/docs/assets/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == "public, max-age=3600"
    assert (await client.get("/docs")).headers["cache-control"] == "no-store"
