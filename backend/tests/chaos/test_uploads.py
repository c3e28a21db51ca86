"""Workers that die while images are uploaded: what was told to be there is, and what was not leaves nothing behind."""

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx2
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet, Serve
from tests.chaos.schedule import Schedule, times
from tests.features.uploads.test_uploads import png, upload
from tests.harness import Key, looks, sign_up

CALLERS = 8
LOOK_SECONDS = 0.1


def kept(folder: Path) -> set[str]:
    """The ids of the uploads that are on the disk."""
    return {each.stem for each in (folder / "pictures").glob("??/upl_*")}


async def rows(cluster: Cluster) -> dict[str, bool]:
    """Whether each upload that has a row is shown."""
    connection = await cluster.connect()
    found = {row["id"]: row["is_stored"] for row in await connection.fetch("select id, is_stored from uploads")}
    await connection.close()
    return found


async def upload_on_and_on(client: httpx2.AsyncClient, key: Key, told: set[str]) -> None:
    while True:
        with suppress(httpx2.TransportError):
            answer = await upload(client, key, png(64))
            if answer.status_code == 201:
                told.add(answer.json()["id"])


async def kill_workers(fleet: Fleet, schedule: Schedule) -> None:
    for _ in range(times(short=6, long=60)):
        await asyncio.sleep(schedule.between(0.05, 0.5))
        fleet.kill(schedule.pick(sorted(fleet.workers())))
        await fleet.whole()


async def test_workers_that_are_killed_leave_no_file_without_a_row_and_lose_no_upload(
    own_cluster: Cluster, serve_alone: Serve, schedule: Schedule, tmp_path: Path
) -> None:
    told = set[str]()
    async with serve_alone(workers=2) as fleet, httpx2.AsyncClient(base_url=fleet.url, timeout=30) as client:
        key = await (await sign_up(client)).create_key()
        callers = [asyncio.create_task(upload_on_and_on(client, key, told)) for _ in range(CALLERS)]
        await kill_workers(fleet, schedule)
        for each in callers:
            each.cancel()
        await asyncio.wait(callers)
    recorded = await rows(own_cluster)
    shown = {upload_id for upload_id, is_stored in recorded.items() if is_stored}
    assert told
    assert told <= shown <= kept(tmp_path) <= set(recorded)
    connection = await own_cluster.connect()
    await connection.execute("update uploads set expires_at = now()")
    await connection.close()
    async with serve_alone(workers=1):  # a worker sweeps when it starts
        for _ in looks():
            if not kept(tmp_path) and not await rows(own_cluster):
                return
            await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError("something is left")
