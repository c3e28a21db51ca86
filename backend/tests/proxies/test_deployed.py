"""The files for nginx, Caddy and HAProxy that operators start from: what passes through them, and what does not."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from app.core.settings import Settings
from pydantic import SecretStr
from tests.features.generate.painted import Painted, painted_by_openai
from tests.harness import free_port, generate, running
from tests.proxies.deployed import HOST, Deployed, deployed
from tests.proxies.programs import found
from tests.standins.authority import Authority
from tests.standins.gemini import image_bytes
from tests.standins.openai import completed, sketch, streamed
from tests.standins.wire import Reply, Seen, serving

TOKEN = "a-token-of-prometheus"
BODY_BYTES = 96 * 1024 * 1024
KEY_OF_NOBODY = {"Authorization": f"Bearer nb_live_{'0' * 40}"}


@pytest.fixture(scope="module")
async def there(settings: Settings) -> AsyncIterator[Painted]:
    """A server as the files want it, whose live keys are drawn for by an endpoint of the test."""
    async with AsyncExitStack() as stack:

        async def start(**changes: object) -> httpx2.AsyncClient:
            return await stack.enter_async_context(running(Settings(**{**settings.model_dump(), **changes})))

        chosen = {"public_url": f"https://{HOST}", "trusted_proxies": "127.0.0.1/32", "metrics_token": SecretStr(TOKEN)}
        limits = {"unknown_key_limit_per_ip": "1/day"}
        async with painted_by_openai(start, openai_capabilities="stream", **chosen, **limits) as painted:
            yield painted


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=found())
def ports(
    request: pytest.FixtureRequest, there: Painted, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, int]]:
    """A proxy before two servers, of which the first is not there."""
    assert there.client.base_url.port is not None
    servers, folder = (free_port(), there.client.base_url.port), tmp_path_factory.mktemp(request.param)
    with deployed(request.param, authority, servers, folder) as ports:
        yield ports


@pytest.fixture
async def client(authority: Authority, ports: tuple[int, int]) -> AsyncIterator[httpx2.AsyncClient]:
    async with Deployed(authority, ports[0]).client() as client:
        yield client


async def test_every_call_is_served_while_one_of_two_servers_is_gone(
    client: httpx2.AsyncClient, there: Painted
) -> None:
    for _ in range(5):
        answer = await generate(client, there.key)
        assert answer.status_code == 200, answer.text
        assert answer.json()["url"].startswith(f"https://{HOST}/v1/images/")
        assert (await client.get(answer.json()["url"])).headers["content-type"] == "image/png"


async def test_an_event_of_a_stream_arrives_before_the_next_is_sent(client: httpx2.AsyncClient, there: Painted) -> None:
    gate = asyncio.Event()
    drawn = completed(image_bytes(1024, 1024))
    there.provider.faults.append(streamed(sketch(0, image_bytes(64, 64)), later=(gate, drawn)))
    body = {"prompt": "A cute banana", "size": "1024x1024", "stream": True, "partial_images": 1}
    kinds = []
    async with client.stream("POST", "/v1/images/generations", json=body, headers=there.key.headers) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kinds.append(line.rpartition(".")[2])
                gate.set()
    assert kinds == ["partial_image", "completed"]


async def test_limits_count_the_address_of_the_client_whatever_it_says_of_itself(
    request: pytest.FixtureRequest, authority: Authority, ports: tuple[int, int]
) -> None:
    number = found().index(request.node.callspec.params["ports"])
    for address in (f"127.0.1.{number}", f"127.0.2.{number}"):
        statuses = []
        async with Deployed(authority, ports[0], address=address).client() as client:
            for claimed in ("192.0.2.1", "192.0.2.2, 127.0.0.1"):
                headers = {**KEY_OF_NOBODY, "X-Forwarded-For": claimed}
                statuses.append((await client.get("/v1/generations", headers=headers)).status_code)
        assert statuses == [401, 429]


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "///metrics?a=b", "/%6detrics", "//%6Detrics"])
async def test_metrics_are_closed_to_the_outside(client: httpx2.AsyncClient, there: Painted, path: str) -> None:
    scrape = {"Authorization": f"Bearer {TOKEN}"}
    for asked, status in ((there.client, 200), (client, 404)):
        url = httpx2.URL(f"{asked.base_url}".rstrip("/") + path)
        answer = await asked.get(url, headers=scrape)
        assert (answer.status_code, "nanobanana_" in answer.text) == (status, status == 200)


async def test_plain_http_leads_to_https(ports: tuple[int, int]) -> None:
    async with httpx2.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:
        answer = await client.get(f"http://127.0.0.1:{ports[1]}/keys?a=b", headers={"Host": HOST})
        assert answer.status_code == 308
        assert answer.headers["location"] == f"https://{HOST}/keys?a=b"


@pytest.mark.parametrize("name", found())
async def test_a_large_body_passes_whole(authority: Authority, name: str, tmp_path: Path) -> None:
    sizes: list[int] = []

    def answer(seen: Seen) -> Reply:
        if seen.path != "/ready":
            sizes.append(len(seen.body))
        return Reply(b"{}")

    async with serving(answer) as url:
        port = httpx2.URL(url).port
        assert port is not None
        with deployed(name, authority, (port, port), tmp_path) as (https, _):
            async with Deployed(authority, https).client() as client:
                assert (await client.post("/v1/files", content=bytes(BODY_BYTES))).status_code == 200
    assert sizes == [BODY_BYTES]


async def test_a_body_that_is_too_large_for_its_route_is_refused_by_the_server(
    client: httpx2.AsyncClient, there: Painted
) -> None:
    answer = await generate(client, there.key, prompt="a" * 2**21)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("name", found())
@pytest.mark.parametrize(("method", "sent"), [("POST", 1), ("GET", 2)])
async def test_what_was_sent_is_sent_again_only_where_it_reads(
    authority: Authority, name: str, tmp_path: Path, method: str, sent: int
) -> None:
    seen: list[str] = []

    def answer(call: Seen) -> Reply:
        if call.path == "/ready":
            return Reply(b"{}")
        seen.append(json.dumps(call.headers))
        return Reply(b"{}", is_closed=len(seen) == 1)

    async with serving(answer) as first, serving(answer) as second:
        servers = (httpx2.URL(first).port or 0, httpx2.URL(second).port or 0)
        with deployed(name, authority, servers, tmp_path) as (https, _):
            async with Deployed(authority, https).client() as client:
                answered = await client.request(method, "/v1/keys/key_1")
    assert (len(seen), answered.status_code) == (sent, 502 if sent == 1 else 200)
