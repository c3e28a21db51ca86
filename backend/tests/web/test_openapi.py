"""The OpenAPI document holds all that a client needs, and the reference page loads everything from this server."""

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
OF_EVERY_ROUTE = {"400", "408", "413", "414", "431", "500", "503"}
OPENAIS = {"OpenAI", "Chat", "Models"}
"""The tags of the operations whose errors are in OpenAI's format."""
GOOGLE_METHODS = ("generateContent", "streamGenerateContent", "predict")
GOOGLE = ["Google"]
"""The tag of the operations whose errors and bodies are as Google has them: no status is 422, and bodies are open."""
OPEN = {"ChatCompletionCreate"}
"""The other bodies that may have members of which nothing is known here."""


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


def test_the_documented_routes_are_those_of_the_application_named_after_their_functions(
    settings: Settings, document: JSON
) -> None:
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


def test_every_operation_has_a_description_a_tag_and_a_success(operations: list[JSON]) -> None:
    for operation in operations:
        assert operation["summary"]
        assert operation["description"].endswith(".")
        assert operation["tags"]
        successes = [status for status in operation["responses"] if status.startswith("2")]
        is_later = any(each["name"] in {"Prefer", "Last-Event-ID"} for each in operation.get("parameters", []))
        assert len(successes) == 1 + ("416" in operation["responses"]) + is_later, "a range, and what does not wait"
        for success in successes:
            assert ("content" in operation["responses"][success]) == (success != "204")


def test_every_documented_error_is_a_problem_document(operations: list[JSON]) -> None:
    for operation in operations:
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert set(errors) >= OF_EVERY_ROUTE
        is_openais, is_googles = operation["tags"][0] in OPENAIS, operation["tags"] == GOOGLE
        invalid = "400" if is_googles else "422"
        assert all((answer["content"] == PROBLEM) != (is_openais or is_googles) for answer in errors.values())
        assert all(re.match(r"`\w+`: ", answer["description"]) for answer in errors.values())
        assert set(errors) >= {"415", invalid} or "requestBody" not in operation
        assert "422" not in errors or not is_googles
        assert ("401" in errors) or not operation.get("security")
        assert ("429" in errors) or {"API key": []} not in operation.get("security", []), "bad keys are limited"
        in_query = [each for each in operation.get("parameters", []) if each["in"] == "query"]
        assert invalid in errors or not in_query


def test_every_body_is_documented_and_allows_no_other_fields(document: JSON, operations: list[JSON]) -> None:
    taking = [operation for operation in operations if "requestBody" in operation]
    assert len(taking) >= 4
    for operation in taking:
        body = operation["requestBody"]
        assert body["required"]
        if "image/*" in body["content"]:
            assert set(body["content"]) == {"image/*", "application/octet-stream", "multipart/form-data"}
            assert body["content"]["multipart/form-data"]["schema"]["additionalProperties"] is False
            continue
        assert {*body["content"]} in ({"application/json"}, {"application/json", "multipart/form-data"})
        for content in body["content"].values():
            name = content["schema"]["$ref"].rsplit("/", 1)[-1]
            schema = document["components"]["schemas"][name]
            assert schema.get("additionalProperties", True) is (operation["tags"] == GOOGLE or name in OPEN)
            assert schema["properties"]


def test_only_the_routes_that_generate_have_optional_headers(document: JSON) -> None:
    headers: dict[str, dict[str, JSON]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for each in operation.get("parameters", []):
                if each["in"] == "header":
                    headers.setdefault(each["name"], {})[f"{method} {path}"] = each
    found = headers["Idempotency-Key"]
    routes = ("generate", "images/generations", "images/edits", "images", "chat/completions")
    google = {f"post /v1beta/models/{{model}}:{method}" for method in GOOGLE_METHODS}
    assert set(found) == {*(f"post /v1/{route}" for route in routes), *google}
    assert set(headers["Prefer"]) == {f"post /v1/{route}" for route in routes if "chat" not in route}
    assert set(headers) == {"Idempotency-Key", "Prefer", "Last-Event-ID"}
    for header in [each for of_name in headers.values() for each in of_name.values()]:
        assert header["schema"]["type"] == "string"
        assert not header["required"]
        assert header["description"]


async def test_the_documented_pattern_of_the_idempotency_key_is_the_one_that_is_enforced(
    client: httpx2.AsyncClient, account: Account, document: JSON
) -> None:
    header, _ = document["paths"]["/v1/generate"]["post"]["parameters"]
    good = ("a", "!#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~", "a" * 255, '"quoted"', f'"{"a" * 255}"')
    bad = ("", "a b", "\u00e9", '"', '""', '"a', 'a"', 'a"b', "a" * 256, f'"{"a" * 256}"')
    authorization = (b"Authorization", (await account.create_key()).headers["Authorization"].encode())
    for key in (*good, *bad):
        headers = [authorization, (b"Idempotency-Key", key.encode("latin-1"))]
        answer = await client.post("/v1/generate", json={}, headers=headers)
        assert answer.status_code == (422 if key in good else 400), key
        assert bool(re.search(header["schema"]["pattern"], key)) == (key in good), key


def test_every_reference_has_a_schema_and_every_schema_is_used(document: JSON) -> None:
    used = set(references(document))
    assert used == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_all_credentials_are_described_as_bearer_tokens(document: JSON) -> None:
    schemes = document["components"]["securitySchemes"]
    assert list(schemes) == ["Metrics token", "Login token", "API key"], "the cursor of /docs is in the last one"
    assert all((scheme["type"], scheme["scheme"]) == ("http", "bearer") for scheme in schemes.values())


async def test_the_reference_page_loads_everything_from_this_server(client: httpx2.AsyncClient) -> None:
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


async def test_the_files_of_the_reference_page_may_be_cached_and_are_not_sent_twice(client: httpx2.AsyncClient) -> None:
    for name, media_type in [("swagger-ui-bundle.js", "javascript"), ("swagger-ui.css", "css"), ("favicon.png", "png")]:
        answer = await client.get(f"/docs/assets/{name}")
        assert media_type in answer.headers["content-type"]
        assert answer.headers["cache-control"] == "public, max-age=3600"
        again = await client.get(f"/docs/assets/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == "public, max-age=3600"
    assert (await client.get("/docs")).headers["cache-control"] == "no-store"


async def test_the_document_calls_an_image_an_image(client: httpx2.AsyncClient) -> None:
    assert "picture" not in (await client.get("/openapi.json")).text.lower()
