"""Metrics: for clients with the token, in Prometheus' format, without secrets or identifiers."""

import re
import socket
from io import StringIO

import httpx2
import pytest
from app.core.metrics import Metrics
from pydantic import SecretStr
from tests.conftest import Start
from tests.features.scraped import METRICS_TOKEN, read, refusals, scrape
from tests.harness import PASSWORD, Account, generate, new_email, sign_up
from tests.problems import REALM, check_problem

BEGIN_WITHOUT_A_COUNT = {"http_requests", "images", "limit_refusals", "billing_charged", "billing_cost"}
"""Counters by labels whose values are not known in advance."""


async def _ask(client: httpx2.AsyncClient, authorization: str | None) -> httpx2.Response:
    return await client.get("/metrics", headers={} if authorization is None else {"Authorization": authorization})


@pytest.mark.parametrize("token", [None, ""])
async def test_without_metrics_token_the_metrics_are_404(start: Start, account: Account, token: str | None) -> None:
    client = await start(metrics_token=token)
    for sent in (None, "Bearer", "Bearer x", "Bearer None", f"Bearer {account.token}"):
        check_problem(await _ask(client, sent), 404, "not_found")


async def test_only_the_exact_metrics_token_is_accepted(start: Start, account: Account) -> None:
    client, key = await start(metrics_token=METRICS_TOKEN), await account.create_key()
    for sent in (None, "", "Bearer", METRICS_TOKEN, f"Basic {METRICS_TOKEN}"):
        answer = await _ask(client, sent)
        check_problem(answer, 401, "invalid_metrics_token")
        assert answer.headers["www-authenticate"] == REALM
    wrong = (METRICS_TOKEN[:-1], f"{METRICS_TOKEN}x", METRICS_TOKEN.upper(), f"x {METRICS_TOKEN}", "\u00e9")
    for token in (*wrong, account.token, key.raw):
        answer = await client.get("/metrics", headers=[(b"Authorization", f"Bearer {token}".encode("latin-1"))])
        check_problem(answer, 401, "invalid_metrics_token")
        assert answer.headers["www-authenticate"] == f'{REALM}, error="invalid_token"'
    check_problem(await client.get(f"/metrics?token={METRICS_TOKEN}"), 401, "invalid_metrics_token")
    assert (await client.get("/v1/auth/me", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})).status_code == 401


async def test_metrics_have_prometheus_format_and_start_at_zero(start: Start) -> None:
    client = await start(metrics_token=METRICS_TOKEN)
    answer = await _ask(client, f"bearer {METRICS_TOKEN}")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    counted = read(answer.text)
    declared = {each.name.removesuffix("_total") for each in Metrics().families.declared if each.kind == "counter"}
    assert set(counted) == declared
    for labelled in BEGIN_WITHOUT_A_COUNT:
        assert counted.pop(f"nanobanana_{labelled}") == {}
    assert {count for counter in counted.values() for count in counter.values()} == {0}
    assert [] not in [list(counter) for counter in counted.values()]


async def test_every_refusal_is_counted_under_the_limit_that_refused(start: Start) -> None:
    narrow = ("register_limit_per_ip", "login_limit_per_network", "login_limit_per_account")
    client = await start(
        **dict.fromkeys(narrow, "2/day"),
        register_limit_per_account="1/day",
        unknown_key_limit_per_ip="1/day",
        generate_limit_per_account="1/day",
        metrics_token=METRICS_TOKEN,
    )
    account = await sign_up(client)
    await client.post("/v1/auth/register", json={"email": account.email, "password": PASSWORD})
    for _ in range(2):
        await client.post("/v1/auth/register")
        await client.post("/v1/auth/login")
        await generate(client, await account.create_key())
    await client.post("/v1/auth/login")
    for _ in range(5):
        await client.get("/v1/generations", headers={"Authorization": "Bearer x"})
    assert await refusals(client) == {
        ("register-account", "enforce"): 1,
        ("register-ip", "enforce"): 2,
        ("login-network", "enforce"): 1,
        ("account", "enforce"): 1,
        ("unknown-key-ip", "enforce"): 4,
    }


async def test_images_are_counted_by_model_and_outcome_and_the_log_names_the_model(start: Start, log: StringIO) -> None:
    client = await start(metrics_token=METRICS_TOKEN)
    key = await (await sign_up(client)).create_key(environment="test")
    for prompt in ("A cute banana", "test:refuse"):
        await client.post("/v1/generate", json={"prompt": prompt}, headers=key.headers)
    counted = re.findall(r"nanobanana_images_total\{(.+)\} (\S+)", await scrape(client))
    assert {tuple(sorted(labels.split(","))): number for labels, number in counted} == {
        ('model="nano-banana"', 'outcome="delivered"', 'route=""'): "1.0",
        ('model="nano-banana"', 'outcome="content_policy_violation"', 'route="rehearsal"'): "1.0",
    }
    assert '"model": "nano-banana"' in log.getvalue()


async def test_metrics_hold_no_secret_and_no_identifier(start: Start) -> None:
    client = await start(metrics_token=METRICS_TOKEN, trusted_proxies="127.0.0.0/8", login_limit_per_ip="1/day")
    account, prompt, address = await sign_up(client), "a prompt that nobody else has", "203.0.113.77"
    key, idempotent = await account.create_key(name="a name"), {"Idempotency-Key": "a-key-that-nobody-else-has"}
    for _ in range(2):
        credentials = {"email": account.email, "password": "a wrong password"}
        await client.post("/v1/auth/login", json=credentials, headers={"X-Forwarded-For": address})
        answer = await client.post("/v1/generate", json={"prompt": prompt}, headers={**key.headers, **idempotent})
    text = await scrape(client)
    assert 'limit="login-ip"' in text
    names = (account.email, account.id, key.id, "a name", prompt, address, "203.0.113", answer.json()["id"])
    hidden = (PASSWORD, "a wrong password", account.token, key.raw, key.raw[:16], METRICS_TOKEN, *idempotent.values())
    assert not [word for word in (*names, *hidden) if word in text]


async def test_decisions_without_the_configured_redis_are_counted(start: Start, account: Account) -> None:
    key = await account.create_key()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # no process listens: connections are refused
        url = SecretStr(f"redis://127.0.0.1:{taken.getsockname()[1]}")
        client = await start(redis_url=url, metrics_token=METRICS_TOKEN, generate_limit_per_key="2/day")
        assert [(await generate(client, key, size="0x0")).status_code for _ in range(3)] == [422, 422, 429]
        await client.post("/v1/auth/login", json={"email": new_email(), "password": PASSWORD})
        counted = read(await scrape(client))
    assert counted["nanobanana_limit_outages"] == {(): 1}
    assert counted["nanobanana_limit_own_decisions"] == {(): 5}, "two of them are the login's"
