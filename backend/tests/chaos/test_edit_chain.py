"""A chain of edits, each made from the one before, whose worker is killed at every step of every request."""

import asyncio
import json
from hashlib import sha256

import httpx2
from tests.chaos.ground import Ground
from tests.chaos.load import Call, Line, Order
from tests.chaos.proxy import Point
from tests.chaos.schedule import times
from tests.chaos.test_lost_answers import sprung
from tests.chaos.verify import violations
from tests.harness import Key, looks

LOOK_SECONDS = 0.05
STEPS: list[tuple[Point, int] | None] = [("answer", 0), ("request", 1), ("answer", 1), ("request", 0), None]
"""Where a worker is killed: behind the commit that records the request; with its image kept; behind the commit that
settles it; before it is recorded; and while its body is read.
"""
_LAPSE = "update generations set lease_until = now() where status = 'processing' and key_id = $1"
_EDITS = "select id, inputs from generations where key_id = $1 and kind = 'edit' and status = 'delivered' order by id"


async def worker_of(ground: Ground, port: int) -> int:
    """The worker that has taken the connection from this port."""
    for _ in looks():
        if port in (holders := ground.fleet.holders()):
            return holders[port]
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError("no worker takes it")


async def cut(ground: Ground, line: Line, key: Key, order: Order, *, name: str, step: tuple[Point, int] | None) -> None:
    """Asks for an edit, and kills the worker at this step."""
    worker = await worker_of(ground, await line.connect())
    ambush = ground.proxy.ambush(step[0], passing=step[1]) if step else None
    body = None if step else asyncio.Event()
    asked = asyncio.create_task(line.ask(key, name, order=order, idempotency_key=name, body_after=body))
    if ambush is not None:
        await sprung(ambush)
    ground.fleet.kill(worker)
    if ambush is not None:
        ambush.cut.set()
    assert (await asked).outcome == "unknown"
    connection = await ground.cluster.connect()
    await connection.execute(_LAPSE, key.id)  # no worker will settle it: what follows need not wait for that
    await connection.close()


async def delivered(line: Line, key: Key, order: Order, name: str) -> str:
    """The id of the image, for which is asked as often as needed."""
    for _ in looks():
        call = await line.ask(key, name, order=order, idempotency_key=name)
        if call.id is not None:
            return call.id
        assert call.code in {"idempotency_key_in_use", "refused", "reset"}, call.code
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError("it is never delivered")


async def test_a_chain_of_edits_that_is_cut_everywhere_has_each_image_once_and_every_source(
    ground: Ground, journal: list[Call]
) -> None:
    [key] = await ground.keys(1)
    line = Line(ground.fleet.port, journal)
    ids = [await delivered(line, key, Order(), "source")]
    for number in range(times(short=3, long=10)):
        order, name = Order(made_from=[ids[-1]]), f"edit-{number}"
        line.close()
        if number % 3 == 0:
            await ground.fleet.whole()  # each of them kills one of four workers
        await cut(ground, line, key, order, name=name, step=STEPS[number % len(STEPS)])
        ids.append(await delivered(line, key, order, name))
    line.close()
    async with httpx2.AsyncClient(base_url=ground.fleet.url, timeout=30) as client:
        images = [(await client.get(f"/v1/images/{each}.png")).content for each in ids]
    connection = await ground.cluster.connect()
    rows = await connection.fetch(_EDITS, key.id)
    await connection.close()
    assert [row["id"] for row in rows] == ids[1:]
    assert [json.loads(row["inputs"]) for row in rows] == [
        [{"id": source, "sha256": sha256(image).hexdigest()}] for source, image in zip(ids, images[:-1], strict=False)
    ]
    assert await violations(ground.cluster, journal) == []
