"""An API key comes in one of several headers, and is the same key in each of them."""

import httpx2
import openai
import pytest
from openai import AsyncAzureOpenAI
from tests.conftest import Start
from tests.features.dialects import DIALECTS, Dialect
from tests.harness import Account, Key, generate
from tests.problems import REALM, check_problem
from tests.raw_http import Headers, connected, head, read_answer, send_raw

ROUTES = [
    ("POST", "/v1/generate", 415),
    ("POST", "/v1/images/generations", 415),
    ("GET", "/v1/generations", 200),
    ("GET", "/v1/generations/gen_28fm63cjp43w44255s68", 404),
    ("DELETE", "/v1/generations/gen_28fm63cjp43w44255s68", 404),
]
UNKNOWN = "nb_live_" + "0" * 32


@pytest.fixture
async def key(account: Account) -> Key:
    return await account.create_key()


@pytest.mark.parametrize(("method", "path", "status"), ROUTES)
@pytest.mark.parametrize("header", ["api-key", "x-goog-api-key"])
async def test_a_key_in_another_header_is_taken_and_refused_as_one_in_authorization(
    client: httpx2.AsyncClient, account: Account, key: Key, *, method: str, path: str, status: int, header: str
) -> None:
    for raw, expected in ((key.raw, status), (UNKNOWN, 401), (account.token, 401), ("x", 401)):
        answer = await client.request(method, path, headers={header: raw})
        assert answer.status_code == expected, (raw, answer.text)
        if expected == 401:
            check_problem(answer, 401, "invalid_api_key")
            assert answer.headers["www-authenticate"] == f'{REALM}, error="invalid_token"'
    answer = await client.request(method, path, headers={header: ""})
    check_problem(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == REALM


@pytest.mark.parametrize(("method", "path", "status"), ROUTES)
async def test_two_credentials_are_a_400_unless_they_are_the_same_key_in_several_headers(
    client: httpx2.AsyncClient, account: Account, key: Key, *, method: str, path: str, status: int
) -> None:
    other = await account.create_key()
    bearer, api_key = ("Authorization", f"Bearer {key.raw}"), ("api-key", key.raw)
    googles = "x-goog-api-key", key.raw
    for sent in (
        [bearer, ("api-key", other.raw)],
        [("api-key", UNKNOWN), bearer],
        [("x-goog-api-key", other.raw), api_key],
        [api_key, api_key],
        [api_key, ("API-Key", UNKNOWN)],
        [("Authorization", "Basic YTpi"), api_key],
        [("Authorization", f"Basic {key.raw}"), api_key],
        [bearer, ("api-key", "")],
        [googles, googles],
    ):
        answer = await send_raw(client, head(method, path, sent))
        check_problem(answer, 400, "invalid_request")
        assert key.raw not in answer.text
    for sent in ([api_key], [bearer, api_key], [api_key, bearer], [googles, api_key], [bearer, googles, api_key]):
        assert (await send_raw(client, head(method, path, sent))).status_code == status, sent


async def test_two_credentials_are_told_by_name(client: httpx2.AsyncClient, key: Key) -> None:
    both = await client.post("/v1/generate", headers={**key.headers, "api-key": UNKNOWN})
    assert both.json()["detail"] == "Send the API key in one header: Authorization or api-key or x-goog-api-key"
    twice = await send_raw(client, head("POST", "/v1/generate", [("api-key", key.raw)] * 2))
    assert twice.json()["detail"] == "More than one api-key header"


async def test_a_login_token_is_taken_in_authorization_alone(client: httpx2.AsyncClient, account: Account) -> None:
    for path in ("/v1/auth/me", "/v1/keys"):
        answer = await client.get(path, headers={"api-key": account.token})
        check_problem(answer, 401, "invalid_token")
        assert answer.headers["www-authenticate"] == REALM


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
async def test_a_call_without_a_key_or_with_a_login_token_is_told_what_to_send_in_every_dialect(
    client: httpx2.AsyncClient, account: Account, key: Key, dialect: Dialect
) -> None:
    none = "No API key: send it as Authorization: Bearer nb_live_..."
    token = "This is a login token; this call needs an API key"
    for headers, sentence in (
        ({}, none),
        ({"Authorization": key.raw}, none),
        ({"X-API-Key": key.raw}, none),
        ({"Authorization": f"Bearer {account.token}"}, token),
        ({"api-key": account.token}, token),
        ({"Authorization": f"Bearer {UNKNOWN}"}, "Invalid API key"),
    ):
        answer = await client.post(dialect.path.format(model="m"), json=dialect.body, headers=headers)
        assert answer.status_code == 401
        answered = answer.json()
        assert (answered["error"]["message"] if "error" in answered else answered["detail"]) == sentence
        assert key.raw not in answer.text
        assert account.token not in answer.text


@pytest.mark.parametrize("path", ["/v1/auth/me", "/v1/keys", "/v1/usage"])
async def test_a_call_without_a_login_token_or_with_an_api_key_is_told_what_to_send(
    client: httpx2.AsyncClient, account: Account, key: Key, path: str
) -> None:
    none = "No login token: send the access_token of POST /v1/auth/login as Authorization: Bearer eyJ..."
    for headers, sentence in (
        ({}, none),
        ({"Authorization": account.token}, none),
        ({"api-key": key.raw}, none),
        (key.headers, "This is an API key; this call needs the access_token of POST /v1/auth/login"),
        ({"Authorization": f"Bearer {account.token}x"}, "Invalid or expired login token"),
    ):
        answer = await client.get(path, headers=headers)
        check_problem(answer, 401, "invalid_token")
        assert answer.json()["detail"] == sentence


async def test_an_unknown_key_takes_from_the_limit_of_its_address_in_every_header(start: Start) -> None:
    client = await start(unknown_key_limit_per_ip="2/day")
    headers = [{"api-key": UNKNOWN}, {"Authorization": f"Bearer {UNKNOWN}"}, {"x-goog-api-key": UNKNOWN}]
    statuses = [(await client.post("/v1/generate", headers=each)).status_code for each in headers]
    assert statuses == [401, 401, 429]


async def test_openais_client_for_azure_gets_an_image(client: httpx2.AsyncClient, key: Key) -> None:
    async with AsyncAzureOpenAI(
        base_url=f"{client.base_url}/v1",
        api_key=key.raw,
        api_version="2025-04-01-preview",
        http_client=openai.DefaultAsyncHttpxClient(),
    ) as sdk:
        made = await sdk.images.generate(prompt="A cute banana")
    assert [bool(each.url) for each in made.data or []] == [True]


async def test_each_request_of_a_connection_is_of_the_key_that_it_sends_itself(
    client: httpx2.AsyncClient, account: Account, other_account: Account
) -> None:
    keys = [await account.create_key(), await other_account.create_key(), await account.create_key()]
    first, second, revoked = keys
    made = {each.raw: (await generate(client, each)).json()["id"] for each in keys}
    await account.revoke_key(revoked)
    bearer = "Authorization", f"Bearer {first.raw}"

    async def answer_to(headers: Headers) -> tuple[int, set[str]]:
        writer.write(head("GET", "/v1/generations", headers))
        answer = await read_answer(reader)
        return answer.status_code, {each["id"] for each in answer.json()} if answer.is_success else set()

    of_first, of_second = {made[first.raw], made[revoked.raw]}, {made[second.raw]}
    async with connected(client) as (reader, writer):
        for headers, status, ids in (
            ([bearer], 200, of_first),
            ([bearer], 200, of_first),
            ([("Authorization", f"Bearer {second.raw}")], 200, of_second),
            ([("api-key", first.raw)], 200, of_first),
            ([bearer, ("api-key", second.raw)], 400, set()),
            ([("api-key", second.raw)], 200, of_second),
            ([("Authorization", f"Bearer {revoked.raw}")], 401, set()),
            ([], 401, set()),
            ([("Authorization", f"Basic {first.raw}")], 401, set()),
            ([bearer], 200, of_first),
        ):
            assert await answer_to(headers) == (status, ids), headers
