"""SECRET_KEY is replaced without ending a login, on servers that are restarted one after the other."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import httpx2
import pytest
from pydantic import SecretStr
from tests.conftest import Start
from tests.console.browser import Browser, new_browser
from tests.harness import Account, sign_up

OLD, NEW = (SecretStr(f"{each}kq3TzUyPqoVw8sJc2mXhR7nLb5Gd9fAeYi4tKx1u") for each in "12")
STEPS: Sequence[Mapping[str, SecretStr | None]] = (
    {"secret_key": OLD, "secret_key_previous": None},
    {"secret_key": OLD, "secret_key_previous": NEW},
    {"secret_key": NEW, "secret_key_previous": OLD},
    {"secret_key": NEW, "secret_key_previous": None},
)
"""The settings of every server before the rotation and after each of its steps, as docs/operations.md has them."""


@pytest.fixture
async def servers(start: Start) -> Sequence[httpx2.AsyncClient]:
    """A server for each step, all on one database."""
    return [await start(public_url="http://console.test", **step) for step in STEPS]


async def _account_of(client: httpx2.AsyncClient, account: Account) -> int:
    """The status with which the server answers a request with the account's token."""
    return (await client.get("/v1/auth/me", headers=account.headers)).status_code


async def _send_form(page_of: httpx2.AsyncClient, sent_to: httpx2.AsyncClient) -> int:
    """The status with which one server answers the form of a page that another one rendered."""
    async with new_browser(page_of) as browser, new_browser(sent_to) as elsewhere:
        await browser.sign_up()
        page = await browser.open("/keys")
        elsewhere.client.cookies.update(browser.client.cookies)
        return (await Browser(elsewhere.client).submit(page, "/keys", name="a key")).status


async def test_servers_of_two_neighbouring_steps_accept_each_others_tokens_and_forms(
    servers: Sequence[httpx2.AsyncClient],
) -> None:
    for neighbours in pairwise(servers):
        for one, other in (neighbours, neighbours[::-1]):
            assert await _account_of(other, await sign_up(one)) == 200
            assert await _send_form(one, other) == 200


async def test_a_secret_that_is_not_set_any_more_signs_nothing_that_is_accepted(
    servers: Sequence[httpx2.AsyncClient],
) -> None:
    before, _, replaced, after = servers
    for signing, other in ((before, after), (replaced, before)):
        assert await _account_of(other, await sign_up(signing)) == 401
        assert await _send_form(signing, other) == 403
