"""docs/models.md: its files can be copied, and its prompts do what it says."""

import re
from pathlib import Path

import httpx2
import pytest
from app.catalogue.file import read_catalogue
from app.generations.rehearsal import REFUSALS
from app.providers.stub.rehearsal import PROMPTS
from pydantic import SecretStr
from tests.harness import Account

PAGE = (Path(__file__).parents[3] / "docs/models.md").read_text()
FILES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", FILES, ids=["gemini", "openai with gemini behind it", "local", "plans"])
def test_each_file_of_the_page_can_be_copied(text: str) -> None:
    catalogue = read_catalogue(text, find_secret=lambda name: SecretStr(f"secret of {name}"), calls_max=1000)
    assert catalogue.find(None).routes


async def test_each_prompt_of_the_page_fails_a_test_key_as_it_says(
    client: httpx2.AsyncClient, account: Account
) -> None:
    test, live = [await account.create_key(environment=each) for each in ("test", "live")]
    rows = re.findall(r"\| `(test:[a-z]+)` \| (\d{3}) `([a-z_]+)`", PAGE)
    assert [prompt for prompt, _, _ in rows] == [*PROMPTS, *REFUSALS]
    for prompt, status, code in rows:
        answer = await client.post("/v1/generate", json={"prompt": prompt}, headers=test.headers)
        assert (answer.status_code, answer.json()["code"]) == (int(status), code)
        assert (await client.post("/v1/generate", json={"prompt": prompt}, headers=live.headers)).status_code == 200


async def test_a_prompt_with_a_number_fails_so_many_images_of_the_request(
    client: httpx2.AsyncClient, account: Account
) -> None:
    key = await account.create_key(environment="test")
    body = {"prompt": "test:fail:2", "n": 3, "size": "64x64"}
    answer = (await client.post("/v1/images/generations", json=body, headers=key.headers)).json()
    assert answer["errors"] == [{"index": index, "code": "provider_failed"} for index in (0, 1)]
    [url] = [each["url"] for each in answer["data"]]
    assert (await client.get(httpx2.URL(url).path)).headers["content-type"] == "image/png"
    [row] = (await client.get("/v1/usage", headers=account.headers)).json()
    assert row["images"] == 1
