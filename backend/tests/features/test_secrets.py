"""Secrets stay secret: through every route, every error and a fault, on a server of its own that logs at DEBUG."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import make_url
from tests.features.bought import Sold, buy, selling
from tests.features.canaries import Caller, canary
from tests.features.uploads.test_uploads import png
from tests.harness import JSON, everything_stored, free_port

OPERATIONS_WITHOUT_ERRORS = {("GET", "/health"), ("GET", "/ready"), ("GET", "/v1/plans")}


@dataclass(frozen=True)
class Served:
    """A server that runs, what it was told in secret, and where it writes."""

    url: str
    secrets: set[str]
    metrics_token: str
    log: Path
    stop: Callable[[], None]
    sold: Sold


@pytest.fixture
def sold(tmp_path: Path) -> Iterator[Sold]:
    """What can be bought at the server."""
    with selling(tmp_path) as sold:
        yield sold


@pytest.fixture
def served(database_url: str, backend: Path, tmp_path: Path, sold: Sold) -> Iterator[Served]:
    """`nanobanana serve` at LOG_LEVEL=DEBUG, as an operator starts it."""
    port, secret, metrics_token, log = free_port(), secrets.token_urlsafe(48), canary("metrics"), tmp_path / "log"
    settings = {"DATABASE_URL": database_url, "SECRET_KEY": secret, "HOST": "127.0.0.1", "PORT": str(port)}
    more = {"METRICS_TOKEN": metrics_token, "LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json", "DATA_DIR": str(tmp_path)}
    environment = {**os.environ, **settings, **more, **sold.settings}
    command = [sys.executable, "-m", "app.cli", "serve"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=backend, env=environment, stdout=output, stderr=subprocess.STDOUT)

    def stop() -> None:
        process.terminate()
        process.wait(30)

    try:
        known = {secret, metrics_token, make_url(database_url).password or secret, *sold.secrets}
        yield Served(f"http://127.0.0.1:{port}", known, metrics_token, log, stop, sold)
    finally:
        process.kill()
        process.wait(30)


async def _until_ready(client: httpx2.AsyncClient) -> None:
    for _ in range(300):
        try:
            if (await client.get("/ready")).status_code == 200:
                return
        except httpx2.TransportError:
            await asyncio.sleep(0.1)
    raise AssertionError("the server did not become ready")


async def _use_accounts(caller: Caller) -> None:
    both, json_type = caller.credentials, {"Content-Type": "application/json"}
    for path in ("/v1/auth/register", "/v1/auth/login"):
        await caller.call("POST", path, json=both)
        await caller.call("POST", path, json={**both, caller.other: 1})
        await caller.call("POST", path, json={**both, "email": caller.other})
        await caller.call("POST", path, json={**both, "password": caller.password * 99})
        await caller.call("POST", path, content=json.dumps(both))
        await caller.call("POST", path, content=json.dumps(both)[:-1], headers=json_type)
        await caller.call(
            "POST", path, content=json.dumps(both)[:-1] + f',"password":"{caller.other}"}}', headers=json_type
        )
        await caller.call("POST", path, json={**both, "password": f"{caller.password}\0"})
    await caller.call("POST", "/v1/auth/register", json=both)
    await caller.call("POST", "/v1/auth/login", json={**both, "password": caller.wrong_password})
    await caller.call("POST", "/v1/auth/login", json={**both, "email": f"{caller.other}@example.com"})
    caller.token = (await caller.call("POST", "/v1/auth/login", json=both)).json()["access_token"]
    await caller.call("GET", "/v1/auth/me", caller.token)
    await caller.call("GET", "/v1/auth/me", f"{caller.token}{caller.other}")
    await caller.call("GET", f"/v1/auth/me?access_token={caller.token}")
    await caller.call("GET", "/v1/auth/me", headers=[("Authorization", f"Bearer {caller.token}")] * 2)


async def _end_logins(caller: Caller) -> None:
    there = {"current_password": caller.password, "new_password": caller.new_password}
    back = {"current_password": caller.new_password, "new_password": caller.password}
    for wrong in (
        {**there, "current_password": caller.wrong_password},
        {**there, "new_password": caller.new_password * 99},
        {**there, "new_password": f"{caller.new_password}\0"},
        {**there, caller.other: 1},
        {caller.other: caller.new_password},
    ):
        assert (await caller.call("POST", "/v1/auth/password", caller.token, json=wrong)).status_code == 422
    await caller.call("POST", "/v1/auth/password", caller.token, content=json.dumps(there)[:-1])
    for change in (there, back):
        answer = await caller.call("POST", "/v1/auth/password", caller.token, json=change)
        await caller.call("POST", "/v1/auth/password", caller.token, json=change)
        caller.ended_tokens.append(caller.token)
        caller.token = answer.json()["access_token"]
    await caller.call("POST", "/v1/auth/logout-all", caller.token)
    await caller.call("POST", f"/v1/auth/logout-all?{caller.other}", caller.token)
    caller.ended_tokens.append(caller.token)
    caller.token = (await caller.call("POST", "/v1/auth/login", json=caller.credentials)).json()["access_token"]


async def _use_keys(caller: Caller) -> None:
    made = await caller.create_key()
    await caller.call("POST", "/v1/keys", caller.token, json={"name": caller.name * 9})
    await caller.call("POST", "/v1/keys", caller.token, json={"name": caller.name, "environment": caller.other})
    await caller.call("POST", "/v1/keys", made["key"], json={"name": caller.name})
    await caller.call("GET", "/v1/keys", caller.token)
    await caller.call("GET", f"/v1/keys?cursor={caller.other}&{caller.other}=1", caller.token)
    await caller.call("DELETE", f"/v1/keys/{made['id']}", caller.token)
    await caller.call("DELETE", f"/v1/keys/{made['id']}", caller.token)
    await caller.call("DELETE", f"/v1/keys/{made['key']}", caller.token)


async def _use_generate(caller: Caller) -> str:
    order, [revoked] = {"prompt": caller.prompt}, caller.keys
    key = (await caller.create_key())["key"]
    await caller.call("POST", "/v1/generate", key, json={**order, "size": caller.other})
    await caller.call("POST", "/v1/generate", key, json={"prompt": caller.prompt * 99 + " " * 4000})
    await caller.call("POST", "/v1/generate", key, content=json.dumps(order))
    for wrong in (revoked, key.upper(), f"{key}0", caller.token):
        await caller.call("POST", "/v1/generate", wrong, json=order)
    await caller.call("POST", f"/v1/generate?key={key}", json=order, headers={"X-Api-Key": key})
    for header in ({"api-key": key}, {"api-key": revoked}, {"api-key": key, "Authorization": f"Bearer {key}"}):
        await caller.call("POST", "/v1/generate", json=order, headers=header)
    url: str = (await caller.call("POST", "/v1/generate", key, json=order)).json()["url"]
    await caller.call("GET", url)
    await caller.call("GET", f"{url}?key={key}", key)
    await caller.call("GET", f"/v1/images/{caller.other}.png", key)
    return url


async def _use_billing(caller: Caller) -> None:
    key = await caller.create_key()
    for path in ("/v1/billing/cap", f"/v1/keys/{key['id']}/cap"):
        for amount in ("5", None, caller.other):
            await caller.call("PUT", path, caller.token, json={"amount": amount})
        await caller.call("PUT", path, key["key"], json={"amount": "5"})
    for path in ("", "/entries", "/charges"):
        for credential in (caller.token, key["key"], caller.other, f"{key['key']}0"):
            await caller.call("GET", f"/v1/billing{path}", credential)
        await caller.call("GET", f"/v1/billing{path}?cursor={caller.other}&{caller.other}=1", caller.token)


async def _look_back(caller: Caller) -> None:
    key, idempotent = caller.keys[-1], {"Idempotency-Key": caller.idempotency_key}
    for order in ({"prompt": caller.prompt}, {"prompt": caller.prompt}, {"prompt": caller.prompt, "size": "64x64"}):
        answer = await caller.call(
            "POST", "/v1/generate", json=order, headers={**idempotent, "Authorization": f"Bearer {key}"}
        )
    assert answer.json()["code"] == "idempotency_key_reused"
    await caller.call("POST", "/v1/generate", key, json={}, headers={"Idempotency-Key": f"{caller.other} b"})
    made = (await caller.call("GET", "/v1/generations", key)).json()[0]["id"]
    for generation_id in (made, caller.other):
        await caller.call("GET", f"/v1/generations/{generation_id}", key)
        await caller.call("GET", f"/v1/generations/{generation_id}/events", key)
        await caller.call("POST", f"/v1/generations/{generation_id}/cancel", key)
    await _use_uploads(caller, key)
    for path in ("/v1/models", "/v1/models/nano-banana", f"/v1/models/{caller.other}"):
        await caller.call("GET", path, key)
    await _use_googles_interface(caller, key)
    await caller.call("GET", "/v1/models", caller.other)
    await caller.call("GET", f"/v1/generations?cursor={caller.other}&{caller.other}=1", key)
    twin = {"prompt": caller.prompt, "user": caller.other, "response_format": "b64_json", "size": "64x64"}
    for body in (twin, {**twin, "model": caller.other}, {**twin, "style": caller.other}, {caller.other: caller.other}):
        await caller.call("POST", "/v1/images/generations", key, json=body)
    await _use_edits_and_chats(caller, key)
    for generation_id in (made, made, caller.other):
        await caller.call("DELETE", f"/v1/generations/{generation_id}", key)
    await _use_billing(caller)
    await caller.call("GET", "/v1/usage", caller.token)
    await caller.call("GET", f"/v1/usage?key_id={caller.other}", caller.token)
    await caller.call("GET", f"/v1/usage?from={caller.other}&to={caller.other}&{caller.other}=1", caller.token)


async def _use_googles_interface(caller: Caller, key: str) -> None:
    good = {"contents": {"parts": {"text": caller.prompt}}, "instances": {"prompt": caller.prompt}}
    bad = {**good, caller.other: caller.other, "generationConfig": {"candidateCount": 2}, "parameters": caller.other}
    header = {"x-goog-api-key": key}
    for version in ("v1", "v1beta"):
        for method in ("generateContent", "streamGenerateContent", "predict", "countTokens"):
            path = f"/{version}/models/nano-banana:{method}"
            for body in (good, bad):
                await caller.call("POST", path, json=body, headers=header)
            await caller.call("POST", f"{path}?key={key}&{caller.other}=1", json=good)
            await caller.call("POST", path.replace("nano-banana", caller.other), json=good, headers=header)
        for path in ("models", "models/nano-banana", f"models/{caller.other}", f"files/{caller.other}"):
            await caller.call("GET", f"/{version}/{path}", headers=header)
            answer = await caller.call("GET", f"/{version}/{path}?key={key}")
            assert answer.status_code == (404 if path.startswith("files") else 400)
    await caller.call("GET", "/v1beta/models", caller.other)


async def _use_edits_and_chats(caller: Caller, key: str) -> None:
    fields, name = {"prompt": caller.prompt, "size": "64x64"}, caller.other
    for content in (png(), name.encode()):
        await caller.call("POST", "/v1/images/edits", key, data=fields, files={"image": (name, content, "image/png")})
    said = [{"role": "user", "content": caller.prompt}]
    for more in ({}, {"modalities": ["image"]}, {"modalities": [name]}, {"model": name, "modalities": ["image"]}):
        await caller.call("POST", "/v1/chat/completions", key, json={"messages": said, **more})
    for named in ({}, {"seed": name}, {"input_references": name}, {name: name}):
        await caller.call("POST", "/v1/images", key, json={"prompt": caller.prompt, "model": "nano-banana", **named})


async def _use_uploads(caller: Caller, key: str) -> None:
    as_png = {"Authorization": f"Bearer {key}", "Content-Type": "image/png"}
    for content in (png(), caller.other.encode()):
        await caller.call("POST", "/v1/uploads", content=content, headers=as_png)
        await caller.call("POST", "/v1/uploads", key, files={caller.other: (caller.other, content, "image/png")})
    made = (await caller.call("GET", "/v1/uploads", key)).json()[0]["id"]
    await caller.call("GET", f"/v1/uploads?cursor={caller.other}", key)
    for upload_id in (made, caller.other):
        await caller.call("GET", f"/v1/uploads/{upload_id}", key)
    for upload_id in (made, made, caller.other):
        await caller.call("DELETE", f"/v1/uploads/{upload_id}", key)


async def _use_the_rest(caller: Caller, metrics_token: str) -> None:
    for credential in ("", caller.token, caller.keys[-1], metrics_token):
        await caller.call("GET", "/metrics", credential)
    for path in ("/health", "/ready", "/docs", "/openapi.json"):
        await caller.call("GET", f"{path}?token={caller.token}", caller.token)
    await caller.call("GET", f"/{caller.other}/{caller.token}")
    await caller.call("PUT", f"/v1/auth/login?{caller.other}", json=caller.credentials)
    await caller.call(caller.other.upper(), "/v1/keys", caller.token)
    await caller.call("POST", "/v1/auth/login", content=json.dumps(caller.credentials) * 999)


async def _cancel(caller: Caller, database: asyncpg.Connection) -> None:
    made = (await caller.call("POST", "/v1/generate", caller.keys[-1], json={"prompt": caller.prompt})).json()["id"]
    cancelled = "update generations set status = 'cancelled', delivered_at = null where id = $1"
    await database.execute(cancelled, made)
    await caller.call("POST", f"/v1/generations/{made}/cancel", caller.keys[-1])


async def _meet_a_fault(caller: Caller, database: asyncpg.Connection, url: str) -> None:
    order, key = {"prompt": caller.prompt}, caller.keys[-1]
    change = {"current_password": caller.password, "new_password": caller.new_password}
    async with database.transaction():
        await database.execute("lock table users, api_keys, generations, usage in access exclusive mode")
        answers = await asyncio.gather(
            caller.call("POST", "/v1/auth/register", json={**caller.credentials, "email": f"{caller.other}@a.test"}),
            caller.call("POST", "/v1/auth/login", json=caller.credentials),
            caller.call("GET", "/v1/auth/me", caller.token),
            caller.call("POST", "/v1/auth/password", caller.token, json=change),
            caller.call("POST", "/v1/auth/logout-all", caller.token),
            caller.call("GET", "/v1/keys", caller.token),
            caller.call("POST", "/v1/keys", caller.token, json={"name": caller.name}),
            caller.call("POST", "/v1/generate", key, json=order),
            caller.call("GET", url),
        )
    assert [answer.status_code for answer in answers] == [503] * 9


async def _meet_an_error_that_quotes_the_row(caller: Caller, database: asyncpg.Connection) -> None:
    order = {"prompt": caller.prompt}
    change = {"current_password": caller.password, "new_password": caller.new_password}
    await database.execute("alter table users add constraint quoting check (email not like 'canary-%') not valid")
    await database.execute("alter table generations add constraint quoting check (prompt::int is null) not valid")
    try:
        answers = [
            await caller.call(
                "POST", "/v1/auth/register", json={**caller.credentials, "email": f"{caller.other}@b.test"}
            ),
            await caller.call("POST", "/v1/auth/password", caller.token, json=change),
            await caller.call("POST", "/v1/generate", caller.keys[-1], json=order),
        ]
    finally:
        await database.execute("alter table users drop constraint quoting")
        await database.execute("alter table generations drop constraint quoting")
    assert [answer.status_code for answer in answers] == [500, 500, 422]


def _found(canaries: set[str], text: str) -> set[str]:
    lower = text.lower()
    return {canary for canary in canaries if canary.lower() in lower}


def _seen_by_the_log(log: str) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    assert {"exception", "sqlstate"} <= {key for line in lines for key in (*line, *line.get("exception", ()))}
    succeeded = {(line["method"], line["route"]) for line in requests if 200 <= line["status"] < 300}
    failed = {(line["method"], line["route"]) for line in requests if line["status"] >= 400}
    return succeeded, failed


async def test_no_secret_is_found_in_logs_errors_or_the_database(served: Served, database: asyncpg.Connection) -> None:
    async with httpx2.AsyncClient(base_url=served.url, timeout=30) as client:
        await _until_ready(client)
        caller = Caller(client)
        await _use_accounts(caller)
        await _end_logins(caller)
        await _use_keys(caller)
        url = await _use_generate(caller)
        await _look_back(caller)
        await buy(caller, served.sold)
        await _use_the_rest(caller, served.metrics_token)
        await _cancel(caller, database)
        await _meet_a_fault(caller, database, url)
        await _meet_an_error_that_quotes_the_row(caller, database)
        paths: JSON = (await client.get("/openapi.json")).json()["paths"]
    served.stop()
    errors = [answer for answer in caller.answers if answer.status_code >= 400]
    assert not [each for each in errors if _found(caller.never_told, f"{each.headers}{each.text}")]
    assert not [
        each for each in caller.answers if _found({caller.password, caller.new_password, *served.secrets}, each.text)
    ]
    log = await asyncio.to_thread(served.log.read_text)
    assert _found(caller.never_told | served.secrets, log) == set()
    stored = await everything_stored(database)
    assert _found(caller.never_told, stored) == {caller.email, caller.name, caller.prompt}
    # Every operation was there, as a success and as an error, or nothing was shown.
    operations = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    succeeded, failed = _seen_by_the_log(log)
    assert operations <= succeeded
    assert operations - OPERATIONS_WITHOUT_ERRORS <= failed
