"""A PostgreSQL of three hosts loses its primary under traffic: what was acknowledged is there, and all works again."""

import asyncio
import sys
import time
from contextlib import AsyncExitStack

import pytest
from tests.chaos.fleet import Fleet, everything_works_again
from tests.chaos.load import Call, Traffic
from tests.chaos.verify import violations, watching_last_use
from tests.ha.cluster import PatroniCluster
from tests.ha.faults import FAULTS, Fault
from tests.ha.figures import measure
from tests.ha.report import Results, row
from tests.harness import Account, Key, looks, until_ready
from tests.problems import check_problem

CLIENTS, LINES, PAUSE_SECONDS = 8, 3, 0.2  # of each server: about a hundred calls a second
BEFORE_SECONDS, AFTER_SECONDS = 2, 3


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_what_was_acknowledged_is_there_after_it_and_nothing_that_was_refused(
    cluster: PatroniCluster, servers: dict[str, Fleet], accounts: dict[str, Account], fault: Fault, results: Results
) -> None:
    await cluster.settled()
    keys = {way: [await account.create_key() for _ in range(CLIENTS)] for way, account in accounts.items()}
    journals, workers = {way: list[Call]() for way in servers}, {way: each.workers() for way, each in servers.items()}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            watching_last_use(cluster, [key for several in keys.values() for key in several])
        )
        for way, server in servers.items():
            traffic = Traffic(server.port, journals[way], keys[way], lines=LINES, pause_seconds=PAUSE_SECONDS)
            await stack.enter_async_context(traffic.flowing())
        await asyncio.sleep(BEFORE_SECONDS)
        revoked = {keys[way][-1].id: await _revoke(account, keys[way][-1]) for way, account in accounts.items()}
        since = time.monotonic()
        await fault.befall(cluster)
        revoked |= {keys[way][-2].id: await _revoke(account, keys[way][-2]) for way, account in accounts.items()}
        for way, server in servers.items():
            await everything_works_again(server, keys[way][0], journals[way])
            await until_ready(accounts[way].client)
        await asyncio.sleep(AFTER_SECONDS)
    await cluster.settled()
    assert workers == {way: each.workers() for way, each in servers.items()}, "a worker had to be started again"
    for way, journal in journals.items():
        figures = await measure(cluster, journal, since=since)
        results[fault.name, way] = figures
        sys.stdout.write(f"{row(fault.name, way, figures)}\n")
        assert await violations(cluster, journal) == []
        assert (figures.lost, figures.refused_recorded, figures.others) == (0, 0, 0)
        passed = [call for call in journal if call.outcome == "ok" and call.sent > revoked.get(call.key_id, call.sent)]
        assert passed == [], "a revoked key works"


async def _revoke(account: Account, key: Key) -> float:
    """When the key was revoked for certain, after as many tries as that takes."""
    for _ in looks():
        answer = await account.client.delete(f"/v1/keys/{key.id}", headers=account.headers)
        if answer.status_code in {204, 404}:  # the second where an earlier try did it
            return time.monotonic()
        check_problem(answer, 503, answer.json()["code"])
        await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError("it cannot be revoked")
