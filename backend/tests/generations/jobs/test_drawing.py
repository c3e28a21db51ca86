"""One job in the hands of a worker: whatever happens, it is bought once, settled once, and overwrites nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from unittest.mock import AsyncMock

import pytest
from app.core.errors import Unavailable
from app.core.settings import Settings
from app.generations import serve, settle, uploads, verify
from app.generations.errors import OutcomeUnknown
from app.generations.jobs import drawing as jobs_drawing
from app.generations.jobs.cancel import cancel
from app.generations.jobs.drawing import JobDrawing
from app.generations.jobs.worker import Worker
from app.generations.ledger.queue import PendingRecord, PendingSettlement
from app.generations.records import delete_generation
from app.generations.sweep import Sweeper
from app.storage import StoreUnavailable
from app.storage.configured import opened_store
from app.storage.health import MonitoredStore
from tests.generations.jobs.drawn_jobs import Drawn, drawn_by_hand
from tests.generations.jobs.lanes import wrong_lanes
from tests.harness import PATIENCE_SECONDS, fresh_database
from tests.standins.gemini import slow

Arrange = Callable[[Drawn, pytest.MonkeyPatch, PendingRecord], Awaitable[object]]


@pytest.fixture(scope="module")
def own_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="module")
async def services(
    settings: Settings, own_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Drawn]:
    async with drawn_by_hand(settings, own_database_url, tmp_path_factory.mktemp("drawn")) as drawn:
        yield drawn


@pytest.fixture
def there(services: Drawn, monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The services, whose pauses are short, and whose provider was not asked yet."""
    monkeypatch.setattr(jobs_drawing, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(settle, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(verify, "LOOK_AGAIN_SECONDS", 0)
    services.provider.seen.clear()
    services.provider.faults.clear()
    return services


async def test_what_a_late_worker_stores_overwrites_nothing(there: Drawn) -> None:
    gate, record = asyncio.Event(), await there.record()
    there.provider.faults.append(slow(gate))
    late = asyncio.create_task((await there.take()).draw())
    await there.until_asked()
    await there.lapse(may_pay_twice=True)
    await (await there.take()).draw()
    assert there.files(record) == {".2.png"}
    delivered = await content_of(there, record)
    gate.set()
    await late
    assert there.files(record) == {".2.png"}
    assert await content_of(there, record) == delivered
    row = await there.row(record)
    assert (row["status"], row["attempts"]) == ("delivered", 2)
    assert await wrong_lanes(there.database) == []


async def test_what_a_killed_worker_has_stored_is_deleted_by_the_next_or_with_the_image(there: Drawn) -> None:
    store, record = there.generations.store, await there.record()
    await there.take()
    await store.put(f"{record.id}.png", b"of a killed worker")
    await there.lapse()
    await (await there.take()).draw()
    assert there.files(record) == {".2.png"}
    await store.put(f"{record.id}.png", b"of a late worker")
    async with opened_store(there.services.settings, "disk") as listed:
        found = verify.Verification(there.generations.sessions, listed, first=record.id, end=f"{record.id}~").faults()
        assert [each async for each in found] == [(f"{record.id}.png", "orphaned")]
    await delete_generation(there.generations, account_id=f"acc_{there.key.id[4:]}", generation_id=record.id)
    assert there.files(record) == set()


async def test_what_workers_have_stored_of_a_job_that_was_not_delivered_is_deleted_at_once_and_its_prompt_is_kept(
    there: Drawn,
) -> None:
    services, record = there.services, await there.record()
    sweeper = Sweeper(there.generations, services.engine, None, services.metrics)
    job = (await there.take()).job
    await there.generations.ledger.mark_sent(job.ids, job.lease.token)
    await there.generations.store.put(f"{record.id}.png", b"of a killed worker")
    await there.lapse()
    await sweeper.sweep()
    row = await there.row(record)
    assert (row["status"], row["prompt"], row["deleted_at"]) == ("lost", record.prompt, None)
    assert there.files(record) == set()
    await there.generations.ledger.query("requeue_job", request_id=record.id, expires_seconds=60)
    await (await there.take()).draw()
    await sweeper.sweep()
    assert (await there.row(record))["status"] == "delivered"
    assert there.files(record) == {".4.png"}


async def test_a_job_that_was_requeued_while_its_images_are_deleted_keeps_its_lease(
    there: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, record = there.services, await there.record()
    sweeper = Sweeper(there.generations, services.engine, None, services.metrics)
    job = (await there.take()).job
    await there.generations.ledger.mark_sent(job.ids, job.lease.token)
    await there.lapse()
    taken: list[JobDrawing] = []

    async def delete(_store: MonitoredStore, _name: str) -> None:
        if not taken:
            await there.generations.ledger.query("requeue_job", request_id=record.id, expires_seconds=60)
            taken.append(await there.take())

    with monkeypatch.context() as patch:
        patch.setattr(MonitoredStore, "delete", delete)
        await sweeper.sweep()
    await taken[0].draw()
    assert (await there.row(record))["status"] == "delivered"
    assert there.files(record) == {".4.png"}


async def content_of(there: Drawn, record: PendingRecord) -> bytes:
    """The image, as anybody sees it."""
    image = await serve.find_image(there.generations, generation_id=record.id, image_format="png")
    stored = await serve.open_image(there.generations, image, 0, None)
    return b"".join([chunk async for chunk in stored.chunks])


async def _nothing(_there: Drawn, _patch: pytest.MonkeyPatch, _record: PendingRecord) -> None:
    pass


async def _cannot_mark(there: Drawn, patch: pytest.MonkeyPatch, error: Exception) -> None:
    patch.setattr(there.generations.ledger, "mark_sent", AsyncMock(side_effect=error))


async def _is_cancelled(there: Drawn, _patch: pytest.MonkeyPatch, record: PendingRecord) -> None:
    await there.generations.ledger.query("cancel_job", request_id=record.id, error="cancelled")


async def _store_fails(_there: Drawn, patch: pytest.MonkeyPatch, _record: PendingRecord) -> None:
    patch.setattr(MonitoredStore, "is_failing", True)
    patch.setattr(jobs_drawing, "_SLOT_SECONDS", -1)


async def _hangs(there: Drawn, _patch: pytest.MonkeyPatch, _record: PendingRecord) -> None:
    there.provider.faults.append(slow(asyncio.Event()))


async def _loses_settlements(there: Drawn, patch: pytest.MonkeyPatch, _record: PendingRecord) -> None:
    """The first is not carried out; the second is, and that is not known."""
    settle_really, errors = there.generations.ledger.settle, [OutcomeUnknown(), Unavailable()]

    async def settle_with_trouble(settlement: PendingSettlement) -> None:
        error = errors.pop() if errors else None
        if type(error) is not Unavailable:
            await settle_really(settlement)
        if error is not None:
            raise error

    patch.setattr(there.generations.ledger, "settle", settle_with_trouble)


ENDS: Mapping[str, tuple[Arrange, str, tuple[str, int, str | None], int]] = {
    "drawn": (_nothing, "banana", ("delivered", 1, None), 1),
    "cancelled before it is sent": (_is_cancelled, "banana", ("cancelled", 1, "cancelled"), 0),
    "whether it is marked is not known": (
        lambda there, patch, _: _cannot_mark(there, patch, OutcomeUnknown()),
        "banana",
        ("processing", 1, None),
        0,
    ),
    "it cannot be marked": (
        lambda there, patch, _: _cannot_mark(there, patch, Unavailable()),
        "banana",
        ("processing", 1, None),
        0,
    ),
    "the store fails": (_store_fails, "banana", ("queued", 0, None), 0),
    "the provider is silent": (_hangs, "banana", ("failed", 1, "provider_timeout"), 1),
    "its model is gone": (_nothing, "apple", ("failed", 1, "model_not_found"), 0),
    "the ledger is away when it is drawn": (_loses_settlements, "banana", ("delivered", 1, None), 1),
}
"""What happens, to a job of which model; its status, attempts and error then, and how often a provider was asked."""


@pytest.mark.parametrize("name", ENDS)
async def test_each_end_of_a_job_is_recorded_once_and_bought_once(
    there: Drawn, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    arrange, model, end, asked = ENDS[name]
    record = await there.record(model=model)
    drawing = await there.take(job_drawing_seconds=0.5 if arrange is _hangs else 60)
    with monkeypatch.context() as patch:
        await arrange(there, patch, record)
        await drawing.draw()
    row = await there.row(record)
    assert (row["status"], row["attempts"], row["error"]) == end
    assert len(there.provider.seen) == asked
    assert there.files(record) == ({".png"} if row["status"] == "delivered" else set())
    assert await wrong_lanes(there.database) == []
    await there.generations.ledger.query("cancel_job", request_id=record.id, error="cancelled")


async def test_a_job_whose_lease_is_lost_is_drawn_no_further_and_not_settled(there: Drawn) -> None:
    record = await there.record()
    there.provider.faults.append(slow(asyncio.Event()))
    renewing_often = there.services.settings.model_copy(update={"job_lease_seconds": 0.1})
    worker = Worker(there.generations, there.services.limiter, renewing_often)
    working = asyncio.create_task(worker.run(drain_seconds=10 * PATIENCE_SECONDS))
    await there.until_asked()
    await there.database.execute("update generations set lease = gen_random_uuid() where id = $1", record.id)
    worker.stop()
    await asyncio.wait_for(working, PATIENCE_SECONDS)
    assert (await there.row(record))["status"] == "processing"
    await there.lapse()
    assert (await there.row(record))["status"] == "lost"


async def test_a_route_draws_so_few_jobs_at_a_time_over_all_processes(
    there: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, first = asyncio.Event(), await there.record(model="few")
    there.provider.faults.append(slow(gate))
    drawing = asyncio.create_task((await there.take()).draw())
    await there.until_asked()
    second = await there.record(model="few")
    with monkeypatch.context() as patch:
        patch.setattr(jobs_drawing, "_SLOT_SECONDS", -1)
        await (await there.take()).draw()  # gives it back
    row = await there.row(second)
    assert (row["status"], row["attempts"]) == ("queued", 0)
    waiting = asyncio.create_task((await there.take()).draw())
    gate.set()
    await asyncio.gather(drawing, waiting)
    assert [(await there.row(each))["status"] for each in (first, second)] == ["delivered", "delivered"]
    assert len(there.provider.seen) == 2


async def test_an_image_that_cannot_be_deleted_keeps_no_other_from_being_deleted_nor_anything_else_from_the_sweep(
    there: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [await there.record() for _ in range(3)]
    for each in records:
        await cancel(there.generations, request_id=each.id)
    await there.database.execute("update generations set expires_at = now() - interval '2 days'")
    delete, swept = MonitoredStore.delete, AsyncMock()
    monkeypatch.setattr(uploads, "sweep", swept)

    async def delete_others(store: MonitoredStore, name: str) -> None:
        if name.startswith(records[1].id):
            raise StoreUnavailable
        await delete(store, name)

    sweeper = Sweeper(there.generations, there.services.engine, None, there.services.metrics)
    with monkeypatch.context() as patch:
        patch.setattr(MonitoredStore, "delete", delete_others)
        with pytest.raises(StoreUnavailable):
            await sweeper.sweep()
    assert [(await there.row(each))["deleted_at"] is not None for each in records] == [True, False, True]
    assert swept.await_count == 1
    await sweeper.sweep()
    assert (await there.row(records[1]))["deleted_at"] is not None, "it is deleted later"
