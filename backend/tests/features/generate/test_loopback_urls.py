"""Without a PUBLIC_URL, URLs in answers lead to the loopback name that was asked for, and to no other that was."""

import httpx2
import pytest
from tests.conftest import Start
from tests.harness import Key, sign_up

DEFAULT = "http://127.0.0.1:8000"
OTHER_HOSTS = [
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost:8000"),
    *("127.0.0.2:8000", "[::2]:8000", "localhost:", "localhost:123456", "0.0.0.0:8000"),
]


async def urls_in_answers(client: httpx2.AsyncClient, key: Key, host: str) -> set[str]:
    """What all URLs in answers to requests with this `Host` begin with."""
    headers = {**key.headers, "Host": host}
    body = {"prompt": "A cute banana", "size": "64x64"}
    made = (await client.post("/v1/generate", json=body, headers=headers)).json()
    twin = (await client.post("/v1/images/generations", json=body, headers=headers)).json()
    listed = await client.get("/v1/generations?limit=1", headers=headers)
    shown = (await client.get(f"/v1/generations/{made['id']}", headers=headers)).json()
    urls = [made["url"], twin["data"][0]["url"], listed.json()[0]["url"], shown["url"]]
    return {url.partition("/v1/")[0] for url in (*urls, listed.links["next"]["url"])}


async def test_urls_lead_to_the_loopback_name_that_was_asked_for_and_to_no_other_name(start: Start) -> None:
    client = await start(public_url="")
    key = await (await sign_up(client)).create_key()
    for host in ("localhost:8000", "localhost", "127.0.0.1:12345", "[::1]:8000"):
        assert await urls_in_answers(client, key, host) == {f"http://{host}"}
    for host in OTHER_HOSTS:
        assert await urls_in_answers(client, key, host) == {DEFAULT}


@pytest.mark.parametrize("host", ["localhost:8000", "evil.example"])
async def test_a_public_url_is_not_changed_by_a_request(client: httpx2.AsyncClient, host: str) -> None:
    key = await (await sign_up(client)).create_key()
    assert await urls_in_answers(client, key, host) == {"https://pictures.test"}
