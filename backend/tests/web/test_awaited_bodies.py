"""A client that sends half a body keeps no connection of the database from others, whatever it asks for."""

import asyncio
import re
from collections.abc import Mapping

import httpx2
from app.console.pages import ROUTERS
from fastapi.routing import APIRoute
from tests.conftest import Start
from tests.console.browser import new_browser
from tests.harness import JSON, Account, looks
from tests.pool_use import PoolUse
from tests.raw_http import connected, head

MEDIA_TYPES = {"image/*": "image/png", "multipart/form-data": "multipart/form-data; boundary=end"}
"""What a request declares for what the document calls so."""
ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
FORMS = [route.path for route in ROUTES if "POST" in (route.methods or ())]
IDS = {"model": "nano-banana", "key_id": f"key_{'0' * 20}", "generation_id": f"gen_{'0' * 30}"}


async def faults_of(
    client: httpx2.AsyncClient, pool_use: PoolUse, method: str, path: str, headers: Mapping[str, str]
) -> list[str]:
    """What is wrong with how this operation awaits a body whose client has begun it."""
    before = pool_use.awaited_bodies
    target = re.sub(r"\{(\w+)\}", lambda name: IDS[name[1]], path)
    async with connected(client) as (reader, writer):
        writer.write(head(method, target, [*headers.items(), ("Content-Length", "1000")]) + b"-")
        answered = asyncio.create_task(reader.read(1000))
        for _ in looks():
            if pool_use.awaited_bodies > before or answered.done():
                break
            await asyncio.sleep(0.001)
        else:
            raise AssertionError("no body is awaited")
        answer = answered.result().decode() if answered.done() else ""
        answered.cancel()
    return [answer] if answer else pool_use.take_faults()


async def test_no_operation_of_the_api_holds_a_connection_while_it_awaits_a_body(
    client: httpx2.AsyncClient, account: Account, pool_use: PoolUse
) -> None:
    key = await account.create_key()
    credentials = {"Login token": account.headers, "API key": key.headers, None: {}}
    paths: JSON = (await client.get("/openapi.json")).json()["paths"]
    faults = {}
    for path, methods in paths.items():
        for method, operation in methods.items():
            for media_type in operation.get("requestBody", {"content": {}})["content"]:
                scheme = next((name for each in operation.get("security", ()) for name in each), None)
                headers = {**credentials[scheme], "Content-Type": MEDIA_TYPES.get(media_type, media_type)}
                faults[method, path, media_type] = await faults_of(client, pool_use, method.upper(), path, headers)
    assert len(faults) > 10
    assert {name: found for name, found in faults.items() if found} == {}


async def test_no_form_of_the_console_holds_a_connection_while_it_awaits_a_body(
    start: Start, pool_use: PoolUse
) -> None:
    client = await start(public_url="http://console.test")
    async with new_browser(client) as browser:
        assert (await browser.sign_up()).status == 200
        headers = {
            "Origin": "http://console.test",
            "Cookie": f"nanobanana={browser.cookie()}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        faults = {path: await faults_of(client, pool_use, "POST", path, headers) for path in FORMS}
    assert {path: found for path, found in faults.items() if found} == {}
