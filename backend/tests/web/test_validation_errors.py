"""A 422 names the rule that was broken and the field, and repeats nothing that the client sent."""

import re
import secrets
from collections.abc import Iterator
from typing import Annotated, Any

import httpx2
import pytest
from app.core.errors import FIELD_ERRORS_MAX, Invalid
from app.core.schemas import Body, Text
from app.web.body import validated
from pydantic import AfterValidator, Field
from tests.harness import JSON, Account, post
from tests.problems import check_problem


async def test_a_validation_error_repeats_nothing_that_the_client_sent(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    canary = secrets.token_hex(8)
    for path, headers, body in [
        ("/v1/auth/register", {}, {"email": canary, "password": ["x", canary], canary: canary}),
        ("/v1/auth/login", {}, {"password": {canary: canary}, canary: {canary: [canary]}}),
        ("/v1/auth/login", {}, {"email": f"a@b.c\r\nBcc: {canary}", "password": f"{canary}\0"}),
        ("/v1/keys", account.headers, {"name": f"{canary}\n", "environment": canary, f"{canary}~/": 1}),
        ("/v1/keys", account.headers, [canary]),
        ("/v1/generate", key.headers, {"prompt": canary, "size": canary[:11], canary: 1}),
        ("/v1/generate", key.headers, {"prompt": f"{canary}\ud800"}),
        ("/v1/generate", key.headers, {"prompt": canary, "size": "99999x99999"}),
    ]:
        answer = await post(client, path, body, headers=headers)
        check_problem(answer, 422, "validation_error", more={"errors"})
        assert canary[:11] not in answer.text
    for query in (f"{canary}=1", f"limit={canary}", f"cursor={canary}", f"include_revoked={canary}"):
        answer = await client.get(f"/v1/keys?{query}", headers=account.headers)
        check_problem(answer, 422, "validation_error", more={"errors"})
        assert canary not in answer.text


async def test_a_validation_error_names_the_field_or_the_parameter(
    client: httpx2.AsyncClient, account: Account
) -> None:
    answer = await client.post("/v1/auth/register", json={"email": "x", "a": 1, "b": 2})
    places = {(error["pointer"], error["detail"]) for error in answer.json()["errors"]}
    assert places == {
        ("#/email", "Must be an email address such as ada@example.com"),
        ("#/password", "Field required"),
        ("#", "An unknown field; known are: email, password, invitation"),
    }
    answer = await client.get("/v1/keys?limit=0&page=1", headers=account.headers)
    sentences = {error["parameter"]: error["detail"] for error in answer.json()["errors"]}
    assert sentences == {
        "limit": "Input should be greater than or equal to 1",
        "*": "An unknown parameter; known are: limit, cursor, include_revoked",
    }


async def test_an_unknown_field_of_an_object_within_the_body_lists_no_names_of_the_bodys(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    body = {"prompt": "a", "images": [{"file_id": "gen_1", "size": "64x64"}]}
    answer = await post(client, "/v1/images/edits", body, headers=key.headers)
    assert answer.json()["error"]["message"] == "The request is not valid. images[0]: An unknown field"


async def test_a_text_of_the_wrong_length_is_told_about_characters(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    for path, headers, name, most in [
        ("/v1/generate", key.headers, "prompt", 4000),
        ("/v1/keys", account.headers, "name", 100),
    ]:
        for text, bound in (("a" * (most + 1), f"at most {most} characters"), ("", "at least 1 character")):
            answer = await post(client, path, {name: text}, headers=headers)
            told = [(error["pointer"], error["detail"]) for error in answer.json()["errors"]]
            assert told == [(f"#/{name}", f"String should have {bound}")]
    answer = await post(client, "/v1/images/generations", {"prompt": "a" * 40_000}, headers=key.headers)
    assert re.search(r"hould have at most \d+ characters$", answer.json()["error"]["message"])


class _Bounded(Body):
    text: Annotated[Text, Field(max_length=2)] | None = None
    numbers: Annotated[list[int], Field(max_length=2)] | None = None
    checked_numbers: Annotated[list[int], AfterValidator(sorted), Field(min_length=1)] | None = None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"text": "abc"}, "Should have at most 2 characters"),
        ({"numbers": [1, 2, 3]}, "Should have at most 2 items"),
        ({"checked_numbers": []}, "Should have at least 1 item"),
    ],
)
def test_a_text_is_counted_in_characters_and_a_list_in_items(value: JSON, sentence: str) -> None:
    with pytest.raises(Invalid) as raised:
        validated(_Bounded, value)
    assert raised.value.members["errors"] == [{"pointer": f"#/{next(iter(value))}", "detail": sentence}]


def _subclasses(schema: type[Body]) -> Iterator[type[Body]]:
    for each in schema.__subclasses__():
        yield each
        yield from _subclasses(each)


def _patterns(node: Any) -> Iterator[str]:
    """The patterns of all strings below a node of a validator: an error of such a string shows its pattern."""
    if isinstance(node, dict):
        if node.get("type") == "str" and "pattern" in node:
            yield node["pattern"]
        for child in node.values():
            yield from _patterns(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from _patterns(child)


class _Patterned(Body):
    texts: list[Annotated[str, Field(pattern="^a$")] | None]


def test_no_error_about_a_field_shows_a_regular_expression() -> None:
    patterns = {each: list(_patterns(each.__pydantic_core_schema__)) for each in _subclasses(Body)}
    assert {each.__name__: found for each, found in patterns.items() if found} == {"_Patterned": ["^a$"]}


def test_a_validation_error_names_at_most_20_fields() -> None:
    errors = [{"pointer": f"#/{n}", "detail": "Field required"} for n in range(100)]
    assert list(Invalid(errors).members["errors"]) == errors[:FIELD_ERRORS_MAX]
    assert FIELD_ERRORS_MAX == 20
