"""A worker that dies between keeping a picture and recording it: one picture, one count, and the stray one is swept."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx2
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Serve
from tests.chaos.load import Call, Line
from tests.chaos.proxy import Proxy
from tests.chaos.test_lost_answers import sprung
from tests.harness import Key, looks, sign_up
from tests.standins.gemini import GeminiStandIn, slow
from tests.standins.wire import serving

PROVIDER_KEY = "canary-key-of-the-provider-0123456789"
LOOK_SECONDS = 0.1
_LEDGER = "select id, status from generations where key_id = $1 order by id"
_USAGE = "select coalesce(sum(pictures), 0)::int from usage where key_id = $1"


def kept(folder: Path) -> set[str]:
    """The ids of the pictures that are on the disk."""
    return {each.stem for each in (folder / "pictures").glob("??/gen_*")}


async def recorded(cluster: Cluster, key: Key) -> tuple[dict[str, str], int]:
    """The status of each generation of the key, and its usage."""
    connection = await cluster.connect()
    ledger = {row["id"]: row["status"] for row in await connection.fetch(_LEDGER, key.id)}
    usage: int = await connection.fetchval(_USAGE, key.id)
    await connection.close()
    return ledger, usage


async def until_delivered(line: Line, key: Key, refused: Sequence[str]) -> Call:
    """Asks again, as often as the refusal is one of these."""
    for _ in looks():
        call = await line.ask(key, "stray", idempotency_key="stray")
        if call.code not in refused:
            return call
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError("it is never free")


async def until_kept(folder: Path, ids: set[str]) -> None:
    for _ in looks():
        if kept(folder) == ids:
            return
        await asyncio.sleep(LOOK_SECONDS)
    assert kept(folder) == ids


async def test_a_worker_killed_between_keeping_and_recording_costs_nothing_and_leaves_nothing(
    own_cluster: Cluster, proxy: Proxy, serve_alone: Serve, journal: list[Call], tmp_path: Path
) -> None:
    gemini, gate = GeminiStandIn(api_key=PROVIDER_KEY), asyncio.Event()
    async with serving(gemini.answer) as url:
        drawing = {"IMAGE_PROVIDER": "gemini", "GEMINI_API_KEY": PROVIDER_KEY, "GEMINI_BASE_URL": url}
        settings = {**drawing, "GENERATION_DEADLINE_SECONDS": "3"}
        async with serve_alone(workers=2, **settings) as fleet:
            async with httpx2.AsyncClient(base_url=fleet.url, timeout=30) as client:
                key = await (await sign_up(client)).create_key()
            line = Line(fleet.port, journal)
            gemini.faults.append(slow(gate))
            asked = asyncio.create_task(line.ask(key, "stray", idempotency_key="stray"))
            for _ in looks():
                if len([seen for seen in gemini.seen if seen.method == "POST"]) == 1:
                    break
                await asyncio.sleep(LOOK_SECONDS)
            ambush = proxy.ambush("request")  # it is admitted: the next statement of the ledger is the one that counts
            gate.set()
            await sprung(ambush)
            [stray] = kept(tmp_path)
            fleet.kill(fleet.owner_of(ambush.client_port))
            ambush.cut.set()
            assert (await asked).outcome == "unknown"
            assert await recorded(own_cluster, key) == ({stray: "processing"}, 0)
            again = await until_delivered(line, key, ["idempotency_key_in_use", "reset"])
            assert (again.status, again.replayed) == (200, False)
            assert await recorded(own_cluster, key) == ({stray: "lost", str(again.id): "delivered"}, 1)
            replay = await line.ask(key, "stray", idempotency_key="stray")
            assert (replay.status, replay.replayed, replay.id) == (200, True, again.id)
            line.close()
        async with serve_alone(workers=1, **settings):  # a worker sweeps when it starts, and every minute
            await until_kept(tmp_path, {str(again.id)})
        assert await recorded(own_cluster, key) == ({stray: "lost", str(again.id): "delivered"}, 1)
