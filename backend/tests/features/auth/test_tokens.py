"""Login tokens: their claims, that forged or altered ones are refused, and that they end with their account."""

import base64
import hmac
import json
import time
from collections.abc import Mapping
from string import ascii_letters, digits
from typing import Any

import asyncpg
import httpx2
import pytest
from app.assembly import Externals
from app.core.security import TokenKey, TokenSubject, new_id
from app.core.settings import Settings
from tests.harness import JSON, PASSWORD, Account, Clock, as_seen, generate, running, sign_up

HEADER = {"alg": "HS256", "typ": "nb-session+jwt"}
BASE64URL = ascii_letters + digits + "-_"


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _decoded(part: str) -> JSON:
    decoded: JSON = json.loads(base64.urlsafe_b64decode(part + "=="))
    return decoded


def _signed(key: bytes, header: Mapping[str, Any], claims: Mapping[str, Any], *, digest: str = "sha256") -> str:
    payload = json.dumps(claims).replace('"1e400"', "1e400")  # a number that json.dumps cannot write
    text = f"{_encoded(json.dumps(header).encode())}.{_encoded(payload.encode())}"
    return f"{text}.{_encoded(hmac.digest(key, text.encode(), digest))}"


@pytest.fixture
def key(settings: Settings) -> bytes:
    """The application's signing key."""
    return hmac.digest(settings.signing_secret, b"nb-session+jwt", "sha256")


@pytest.fixture
def claims(account: Account) -> JSON:
    """Claims of the account that are valid for a minute."""
    now = int(time.time())
    about = {"iss": "nanobanana", "aud": "nanobanana", "sub": account.id, "gen": 0}
    return {**about, "iat": now, "exp": now + 60, "jti": "1"}


async def _log_in(client: httpx2.AsyncClient, account: Account) -> str:
    answer = await client.post("/v1/auth/login", json={"email": account.email, "password": PASSWORD})
    token: str = answer.json()["access_token"]
    return token


async def _me(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"})


async def _assert_refused(client: httpx2.AsyncClient, token: str) -> None:
    answer = await _me(client, token)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
    assert answer.headers["www-authenticate"] == 'Bearer realm="nanobanana", error="invalid_token"'


async def test_a_token_has_exactly_the_documented_claims_and_type(account: Account) -> None:
    header, claims = (_decoded(part) for part in account.token.split(".")[:2])
    assert header == HEADER
    assert set(claims) == {"iss", "aud", "sub", "gen", "iat", "exp", "jti"}
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("nanobanana", "nanobanana", account.id)
    assert claims["exp"] - claims["iat"] == 3600
    assert len(claims["jti"]) >= 16


async def test_no_two_tokens_are_the_same(client: httpx2.AsyncClient, account: Account) -> None:
    tokens = [await _log_in(client, account) for _ in range(3)]
    assert len({_decoded(token.split(".")[1])["jti"] for token in tokens}) == 3


async def test_the_token_that_the_forgeries_below_alter_is_accepted(
    client: httpx2.AsyncClient, account: Account, key: bytes, claims: JSON
) -> None:
    answer = await _me(client, _signed(key, HEADER, claims))
    assert (answer.status_code, answer.json()["id"]) == (200, account.id)


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "gen", "iat", "exp", "jti"])
async def test_a_token_that_lacks_a_claim_is_refused(
    client: httpx2.AsyncClient, key: bytes, claims: JSON, claim: str
) -> None:
    del claims[claim]
    await _assert_refused(client, _signed(key, HEADER, claims))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody else"},
        {"aud": "somebody else"},
        {"aud": ["nanobanana", "somebody else"]},
        {"aud": None},
        {"exp": "1e400"},
        {"exp": "4102444800"},
        {"exp": True},
        {"exp": None},
        {"exp": 10**30},
        {"iat": "1e400"},
        {"iat": None},
        {"sub": "usr_00000000000000000000"},
        {"sub": "key_00000000000000000000"},
        {"sub": ""},
        {"sub": "usr_\0"},
        {"sub": "usr_%"},
        {"sub": 1},
        {"sub": None},
        {"sub": ["usr_00000000000000000000"]},
        {"gen": 1},
        {"gen": -1},
        {"gen": 10**30},
        {"gen": "0"},
        {"gen": False},
        {"gen": 0.0},
        {"gen": "1e400"},
        {"gen": None},
    ],
    ids=str,
)
async def test_a_correctly_signed_token_with_other_claims_is_refused(
    client: httpx2.AsyncClient, key: bytes, claims: JSON, changes: JSON
) -> None:
    await _assert_refused(client, _signed(key, HEADER, {**claims, **changes}))


@pytest.mark.parametrize(
    ("issued", "expires"), [(0, -1), (-3600, 0), (-60, 0), (0, 3601), (-7200, 60), (600, 1200), (0, 60.5), (0.5, 60)]
)
async def test_a_correctly_signed_token_of_another_time_or_over_an_hour_is_refused(
    client: httpx2.AsyncClient, key: bytes, claims: JSON, issued: float, expires: float
) -> None:
    now = claims["iat"]
    await _assert_refused(client, _signed(key, HEADER, {**claims, "iat": now + issued, "exp": now + expires}))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256"},
        {"alg": "HS256", "typ": "JWT"},
        {"alg": "HS256", "typ": "NB-SESSION+JWT"},
        {**HEADER, "crit": ["exp"]},
        {**HEADER, "crit": []},
        {**HEADER, "crit": ["b64"], "b64": False},
        {**HEADER, "alg": "none"},
        {**HEADER, "alg": "HS384"},
        {**HEADER, "alg": "HS512"},
        {**HEADER, "alg": "RS256"},
        {**HEADER, "alg": "ES256"},
        {**HEADER, "alg": ["HS256"]},
        {"typ": "nb-session+jwt"},
    ],
    ids=str,
)
async def test_a_correctly_signed_token_with_another_header_is_refused(
    client: httpx2.AsyncClient, key: bytes, claims: JSON, header: JSON
) -> None:
    await _assert_refused(client, _signed(key, header, claims))


@pytest.mark.parametrize(("algorithm", "digest"), [("HS384", "sha384"), ("HS512", "sha512")])
async def test_a_token_signed_with_the_right_key_and_another_algorithm_is_refused(
    client: httpx2.AsyncClient, key: bytes, claims: JSON, algorithm: str, digest: str
) -> None:
    await _assert_refused(client, _signed(key, {**HEADER, "alg": algorithm}, claims, digest=digest))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS256"])
async def test_a_token_without_a_signature_is_refused(client: httpx2.AsyncClient, claims: JSON, algorithm: str) -> None:
    unsigned = _signed(b"", {**HEADER, "alg": algorithm}, claims).rpartition(".")[0]
    for token in (f"{unsigned}.", unsigned):
        await _assert_refused(client, token)


async def test_tokens_signed_with_other_secrets_are_refused(
    client: httpx2.AsyncClient, settings: Settings, claims: JSON
) -> None:
    for key in (b"", b"another secret of more than 32 bytes", settings.signing_secret):
        await _assert_refused(client, _signed(key, HEADER, claims))


async def test_a_signature_is_not_valid_for_other_claims(
    client: httpx2.AsyncClient, account: Account, other_account: Account
) -> None:
    mine, theirs = account.token.split("."), other_account.token.split(".")
    await _assert_refused(client, ".".join([mine[0], theirs[1], mine[2]]))


async def test_a_token_with_any_flipped_bit_is_refused(client: httpx2.AsyncClient, account: Account) -> None:
    token = account.token
    places = {*range(0, len(token), 23), *range(len(token) - 3, len(token)), token.index("."), token.rindex(".")}
    for place in sorted(places):
        for flipped in (chr(ord(token[place]) ^ 1 << bit) for bit in range(7)):
            if "!" <= flipped <= "~":  # other characters cannot stand in a header
                await _assert_refused(client, token[:place] + flipped + token[place + 1 :])


async def test_a_token_has_one_spelling_only(client: httpx2.AsyncClient, account: Account) -> None:
    token = account.token
    others = [token[:-1] + last for last in BASE64URL if last != token[-1]]
    for other in [*others, f"{token}=", f"{token}====", f"{token}A", f"{token}!!!!", f"{token}.", f".{token}"]:
        await _assert_refused(client, other)


@pytest.mark.parametrize("token", ["a", "a.b", "a.b.c", "..", "a" * 5000, "e30.e30.e30", f"{'W' * 4000}.e30.e30"])
async def test_any_other_text_than_a_token_is_refused(client: httpx2.AsyncClient, token: str) -> None:
    await _assert_refused(client, token)


async def test_a_token_expires_after_its_hour(settings: Settings, account: Account) -> None:
    clock = Clock(time.time())
    async with running(settings, Externals(clock=clock)) as client:
        token = await _log_in(client, account)
        issued = _decoded(token.split(".")[1])["iat"]
        clock.now = issued + 3599.9
        assert (await _me(client, token)).status_code == 200
        clock.now = issued + 3600
        await _assert_refused(client, token)


async def test_a_token_of_a_deleted_or_unknown_account_is_refused(
    client: httpx2.AsyncClient, database: asyncpg.Connection, settings: Settings
) -> None:
    account = await sign_up(client)
    await database.execute("delete from users where id = $1", account.id)
    await _assert_refused(client, account.token)
    issued = TokenKey.derive(settings.signing_secret).issue(
        TokenSubject(new_id("usr"), 0), now=time.time(), lifetime_seconds=60
    )
    await _assert_refused(client, issued)


async def test_a_disabled_accounts_token_is_refused_at_once(
    client: httpx2.AsyncClient, account: Account, database: asyncpg.Connection
) -> None:
    assert (await _me(client, account.token)).status_code == 200
    await database.execute("update users set is_active = false where id = $1", account.id)
    await _assert_refused(client, account.token)
    for method, path in (("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", f"/v1/keys/{new_id('key')}")):
        assert (await client.request(method, path, headers=account.headers)).status_code == 401


async def test_an_api_key_is_not_a_login_token_and_a_login_token_not_an_api_key(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key()
    await _assert_refused(client, key.raw)
    answer = await client.post("/v1/generate", json={"prompt": "A cute banana"}, headers=account.headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")
    assert (await generate(client, key)).status_code == 200


@pytest.mark.parametrize("parameter", ["access_token", "token", "authorization", "jwt"])
async def test_a_token_in_the_query_or_a_cookie_does_not_authenticate(
    client: httpx2.AsyncClient, account: Account, parameter: str
) -> None:
    absent = await client.get("/v1/auth/me")
    assert absent.headers["www-authenticate"] == 'Bearer realm="nanobanana"'
    in_query = await client.get("/v1/auth/me", params={parameter: account.token})
    in_cookie = await client.get("/v1/auth/me", headers={"Cookie": f"{parameter}={account.token}"})
    assert as_seen(in_query) == as_seen(in_cookie) == as_seen(absent)
    assert absent.status_code == 401


@pytest.mark.parametrize("scheme", ["Basic", "Token", "Digest", "Bearer:"])
async def test_a_token_under_another_scheme_is_refused(
    client: httpx2.AsyncClient, account: Account, scheme: str
) -> None:
    answer = await client.get("/v1/auth/me", headers={"Authorization": f"{scheme} {account.token}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
