"""Workers that die while images are uploaded: what was told to be there is, and what was not leaves nothing behind."""

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx2
from app.assembly import open_services
from app.core.settings import Settings
from pydantic import SecretStr
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet, Serve
from tests.chaos.schedule import Schedule, times
from tests.conftest import SECRET
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


async def upload_until_killed(fleet: Fleet, schedule: Schedule, told: set[str]) -> None:
    """Kills the worker soon after it has said that an upload is there, while it takes others in."""
    async with httpx2.AsyncClient(base_url=fleet.url, timeout=30) as client:
        key = await (await sign_up(client)).create_key()
        before = len(told)
        callers = [asyncio.create_task(upload_on_and_on(client, key, told)) for _ in range(CALLERS)]
        for _ in looks():
            if len(told) > before:
                break
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(schedule.between(0, 0.2))
        fleet.kill(fleet.parent)
        for each in callers:
            each.cancel()
        await asyncio.wait(callers)


async def test_workers_that_are_killed_leave_no_file_without_a_row_and_lose_no_upload(
    own_cluster: Cluster, serve_alone: Serve, schedule: Schedule, tmp_path: Path
) -> None:
    told = set[str]()
    for _ in range(times(short=2, long=30)):
        async with serve_alone(workers=1) as fleet:
            await upload_until_killed(fleet, schedule, told)
    recorded = await rows(own_cluster)
    shown = {upload_id for upload_id, is_stored in recorded.items() if is_stored}
    assert told
    assert told <= shown <= kept(tmp_path) <= set(recorded)
    connection = await own_cluster.connect()
    await connection.execute("update uploads set expires_at = now()")
    url = own_cluster.url.render_as_string(hide_password=False)
    settings = Settings(database_url=SecretStr(url), data_dir=tmp_path, secret_key=SecretStr(SECRET))
    async with open_services(settings):  # what has services sweeps when it begins
        for _ in looks():
            if not kept(tmp_path) and not await connection.fetchval("select count(*) from uploads"):
                break
            await asyncio.sleep(LOOK_SECONDS)
        else:
            raise AssertionError("something is left")
    await connection.close()
