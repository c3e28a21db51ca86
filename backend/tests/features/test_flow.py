"""The flow that everybody begins with."""

import httpx2
from tests.harness import Account, generate


async def test_a_prompt_becomes_a_png_of_the_asked_size(client: httpx2.AsyncClient, account: Account) -> None:
    answer = await generate(client, await account.create_key(), size="320x200")
    assert answer.status_code == 200, answer.text
