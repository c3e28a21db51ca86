"""Work that waits for a thread is dropped once its client has hung up, and its place goes to the next."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache, partial
from urllib.parse import urlencode

import asyncpg
import httpx2
import pytest
from app.core.security import hash_password, verify_password
from app.providers.stub.art import draw_png
from tests.conftest import Start
from tests.console.browser import Page
from tests.features.generate.painted import painted
from tests.features.stub_images import image_paths
from tests.features.usage.recorded import total
from tests.harness import BEYOND_PATIENCE_SECONDS, PASSWORD, Account, generate, looks, sign_up, until_waited_for
from tests.pool_calls import THREADS, Held, Hold, PoolCalls
from tests.raw_http import crowd, head, post_of, send_raw

CLIENTS = 100
STORE_THREADS = 8
DRAW = "app.providers.stub.draw_png"


async def _crowd_leaves(
    client: httpx2.AsyncClient, requests: Sequence[bytes], *, calls: PoolCalls, work: Held, threads: int = THREADS
) -> None:
    """Returns once CLIENTS have sent a request each, waited for a thread and hung up, and the server has noticed."""
    handed, given_up = calls.handed, calls.given_up
    async with AsyncExitStack() as stack:
        for request in requests:
            await stack.enter_async_context(crowd(client, request, 1))
        await calls.until(handed=handed + CLIENTS)
        await work.until_begun(threads)
    await calls.until(given_up=given_up + CLIENTS)


async def test_images_of_clients_who_left_the_queue_are_never_drawn_and_the_next_client_is_served(
    start: Start, pool_calls: PoolCalls, hold: Hold
) -> None:
    drawing = hold(DRAW, cache(draw_png))
    client = await start(drawing_queue_max=CLIENTS - THREADS)
    key = await (await sign_up(client)).create_key()
    paths = await image_paths(client, key, 2 * CLIENTS - THREADS, size="64x64")
    left, wanted = [head("GET", path) for path in paths[:CLIENTS]], paths[CLIENTS:]
    await _crowd_leaves(client, left, calls=pool_calls, work=drawing)
    handed = pool_calls.handed
    show = partial(client.get, timeout=BEYOND_PATIENCE_SECONDS)
    following = [asyncio.ensure_future(show(path)) for path in wanted]
    await pool_calls.until(handed=handed + len(following))
    assert drawing.begun == THREADS
    drawing.let_go()
    assert {answer.status_code for answer in await asyncio.gather(*following)} == {200}, "every place was free"
    assert drawing.begun == THREADS + len(following)


async def test_bytes_for_clients_who_left_the_queue_are_neither_drawn_nor_counted(
    start: Start, database: asyncpg.Connection, pool_calls: PoolCalls, hold: Hold
) -> None:
    drawing = hold(DRAW, cache(draw_png))
    client = await start(drawing_queue_max=CLIENTS - THREADS)
    key = await (await sign_up(client)).create_key(environment="test")
    wanted = json.dumps({"prompt": "A cute banana", "size": "64x64", "response_format": "b64_json"}).encode()
    request = post_of("/v1/images/generations", wanted, key.headers.items())
    await _crowd_leaves(client, [request] * CLIENTS, calls=pool_calls, work=drawing)
    drawing.let_go()
    assert (await send_raw(client, request)).status_code == 200
    assert drawing.begun == THREADS + 1
    assert await total(database, key) == 1


async def test_kept_images_of_clients_who_left_the_queue_are_never_opened(
    start: Start, pool_calls: PoolCalls, hold: Hold
) -> None:
    async with painted(start) as there:
        path = httpx2.URL((await generate(there.client, there.key)).json()["url"]).path
        opening = hold("app.storage.disk.Disk.file", lambda _name: None)
        await _crowd_leaves(
            there.client, [head("GET", path)] * CLIENTS, calls=pool_calls, work=opening, threads=STORE_THREADS
        )
        opening.let_go()
        assert (await there.client.get(path)).status_code == 404, "there is nothing to be found"
        assert opening.begun == STORE_THREADS + 1


async def _registration(_client: httpx2.AsyncClient, account: Account, _password: str) -> bytes:
    return post_of("/v1/auth/register", json.dumps({"email": f"new.{account.email}", "password": PASSWORD}).encode())


async def _login(_client: httpx2.AsyncClient, account: Account, password: str) -> bytes:
    return post_of("/v1/auth/login", json.dumps({"email": account.email, "password": password}).encode())


async def _password_change(_client: httpx2.AsyncClient, account: Account, password: str) -> bytes:
    change = {"current_password": password, "new_password": "a banana is a berry"}
    return post_of("/v1/auth/password", json.dumps(change).encode(), account.headers.items())


async def _console_login(client: httpx2.AsyncClient, account: Account, password: str) -> bytes:
    page = Page(await client.get("/log-in"))
    form = {**page.form("/log-in").values, "email": account.email, "password": password}
    headers = [("Origin", "https://pictures.test"), ("Cookie", page.response.headers["set-cookie"].partition(";")[0])]
    return post_of("/log-in", urlencode(form).encode(), headers, media_type="application/x-www-form-urlencoded")


@dataclass(frozen=True)
class Hashing:
    """A request with a password, what hashes it first, and the status where it is right."""

    request_of: Callable[[httpx2.AsyncClient, Account, str], Awaitable[bytes]]
    function: Callable[..., object]
    status: int


@pytest.mark.parametrize(
    "hashing",
    [
        pytest.param(Hashing(_registration, hash_password, 201), id="registration"),
        pytest.param(Hashing(_login, verify_password, 200), id="login"),
        pytest.param(Hashing(_password_change, verify_password, 200), id="password change"),
        pytest.param(Hashing(_console_login, verify_password, 303), id="console login"),
    ],
)
async def test_passwords_of_clients_who_left_the_queue_are_not_hashed_and_change_or_count_nothing(
    start: Start, pool_calls: PoolCalls, hold: Hold, hashing: Hashing
) -> None:
    client = await start(hash_queue_max=CLIENTS - THREADS, login_limit_per_account=f"{CLIENTS}/hour")
    account = await sign_up(client)
    wrong, right = [await hashing.request_of(client, account, each) for each in ("a wrong guess", PASSWORD)]
    held = hold(f"app.features.auth.service.{hashing.function.__name__}", hashing.function)
    await _crowd_leaves(client, [wrong] * CLIENTS, calls=pool_calls, work=held)
    assert held.begun == THREADS
    held.let_go()
    assert (await send_raw(client, right)).status_code == hashing.status
    assert held.begun == THREADS + 1


async def test_an_account_that_is_being_written_is_written_though_its_client_left(
    client: httpx2.AsyncClient, database: asyncpg.Connection, account: Account
) -> None:
    email = f"new.{account.email}"
    await database.execute("begin")
    await database.execute("insert into users (id, email, password_hash) values ($1, $1, '')", email)
    async with crowd(client, await _registration(client, account, PASSWORD), 1):
        await until_waited_for(database)
    assert (await client.get("/health")).status_code == 200  # who left before is noticed by now
    await database.execute("rollback")
    for _ in looks():
        if await database.fetchval("select count(*) from users where email = $1", email):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing is registered")
