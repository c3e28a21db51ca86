"""Whatever happens to jobs in whatever order: their statuses and lanes are those of a small model."""

from collections.abc import Sequence

import asyncpg
from app.generations.jobs.job import Job
from app.generations.ledger.writer import ATTEMPTS_MAX
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.generations.jobs.lanes import wrong_lanes
from tests.generations.money.sums import wrong_sums
from tests.generations.races import rows
from tests.harness import Key

JOBS = 3
STEPS = ("take", "send", "settle", "cancel", "give back", "sweep", "requeue")
HISTORIES = st.lists(
    st.sampled_from([*((step, job) for step in STEPS for job in range(JOBS)), ("revoke", 0)]), max_size=12
)


class Model:
    """One job: what it is, by words alone."""

    def __init__(self) -> None:
        self.status, self.attempts, self.is_sent, self.is_stopped = "queued", 0, False, False

    def wait_again(self, *, attempts: int) -> None:
        self.status, self.attempts = "cancelled" if self.is_stopped else "queued", attempts

    def apply(self, step: str) -> None:
        is_running = self.status == "processing"
        if step == "take" and self.status == "queued":
            self.status, self.attempts = "processing", self.attempts + 1
        elif step == "send" and is_running:
            self.is_sent = True
        elif step == "settle" and is_running:
            self.status = "delivered"
        elif step == "cancel" and (self.status == "queued" or (is_running and not self.is_sent)):
            self.status = "cancelled"
        elif step == "give back" and is_running and not self.is_sent:
            self.wait_again(attempts=self.attempts - 1)
        elif step == "sweep" and is_running:
            self.sweep()
        elif step == "requeue" and self.status in {"failed", "lost", "cancelled"} and not self.is_stopped:
            self.status, self.attempts, self.is_sent = "queued", 0, False
        elif step == "revoke":
            self.is_stopped = True
            self.status = "cancelled" if self.status == "queued" else self.status

    def sweep(self) -> None:
        if self.is_sent:
            self.status = "lost"
        elif self.attempts >= ATTEMPTS_MAX:
            self.status = "failed"
        else:
            self.wait_again(attempts=self.attempts)


class Real:
    """The jobs of one key in the database, and those that a worker was given last."""

    def __init__(self, database: asyncpg.Connection, key: Key, ids: Sequence[str]) -> None:
        self.database, self.key, self.ids = database, key, ids
        self.given: dict[str, Job] = {}

    async def apply(self, step: str, number: int) -> None:
        """Does it to this job, whose lease is over if it is swept; the oldest that waits is taken."""
        request_id = self.ids[number]
        job = self.given.get(request_id)
        if step == "take":
            self.given |= {each.id: each for each in await rows.taken(self.database, jobs_max=1)}
        elif step == "sweep":
            await rows.lapse_if_running(self.database, request_id)
            await rows.sweep_jobs().run(self.database)
        elif step == "revoke":
            await rows.revoke(self.key.id).run(self.database)
        elif step in {"cancel", "requeue"}:
            await {"cancel": rows.cancel_job, "requeue": rows.requeue_job}[step](request_id).run(self.database)
        elif job is not None:
            await {"send": rows.mark_sent, "settle": rows.settle, "give back": rows.give_back}[step](job).run(
                self.database
            )


_STATUSES = "select status from generations where request_id = any($1) group by request_id, status order by request_id"


async def test_statuses_and_lanes_of_any_history_are_those_of_the_model(database: asyncpg.Connection) -> None:
    async def live(history: Sequence[tuple[str, int]]) -> None:
        key = await rows.new_key(database)
        records = sorted((rows.new_claimed_job(key, images=2) for _ in range(JOBS)), key=lambda each: each.id)
        await rows.recorded(database, *records)
        real, models = Real(database, key, [each.id for each in records]), [Model() for _ in records]
        for step, number in history:
            await real.apply(step, number)
            waiting = [model for model in models if model.status == "queued"]
            for model in {"take": waiting[:1], "revoke": models}.get(step, [models[number]]):
                model.apply(step)
        found = {each.id: await rows.statuses(database, each.id) for each in records}
        assert found == {each.id: {model.status} for each, model in zip(records, models, strict=True)}, history
        assert await wrong_lanes(database) == []
        assert await wrong_sums(database) == []
        await rows.revoke(key.id).run(database)  # leaves nothing that waits to the next history

    histories: list[Sequence[tuple[str, int]]] = []

    @settings(max_examples=40, database=None, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(HISTORIES)
    def collect(history: Sequence[tuple[str, int]]) -> None:
        histories.append(history)

    collect()
    for history in histories:
        await live(history)
