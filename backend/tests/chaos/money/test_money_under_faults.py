"""Faults under callers who pay: no account is overspent, and all that is held and charged is what its images cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.chaos.jobs.faults import (
    Fault,
    cut_a_statement,
    freeze_a_process_of_the_server,
    freeze_a_worker,
    kill_a_process_of_the_server,
    kill_a_worker,
    lose_redis,
    revoke_a_key,
    stop_a_worker,
    stop_the_database_at_once,
)
from tests.chaos.jobs.hands import hands, mutant
from tests.chaos.jobs.yard import Yard
from tests.chaos.money.broken import broken_by
from tests.chaos.money.conftest import OpenYard
from tests.chaos.schedule import IS_LONG, Schedule, times

WORKERS = times(short=1, long=2)
PAUSE_SECONDS_MAX = 1 if IS_LONG else 0.5
FAULTS: Mapping[Fault, int] = {
    cut_a_statement: times(short=2, long=60),
    stop_the_database_at_once: times(short=1, long=15),
    kill_a_process_of_the_server: times(short=1, long=20),
    kill_a_worker: times(short=1, long=20),
    stop_a_worker: times(short=0, long=10),
    freeze_a_worker: times(short=0, long=10),
    freeze_a_process_of_the_server: times(short=0, long=5),
    lose_redis: times(short=0, long=10),
    revoke_a_key: times(short=1, long=10),
}
"""How often each happens."""


async def test_whatever_fails_no_account_is_overspent_and_every_amount_is_exact(
    yard: Yard, schedule: Schedule, tmp_path: Path
) -> None:
    async with hands(yard.environment, tmp_path / "workers", count=WORKERS) as workers:
        assert await broken_by(FAULTS, yard, schedule, workers, pause_seconds_max=PAUSE_SECONDS_MAX) == []


class Defect(NamedTuple):
    """A defect of the statements, the faults that it needs, and what is broken then."""

    name: str
    said: Sequence[str]
    faults: Mapping[Fault, int]


DEFECTS = [
    Defect("room-without-lock", ["overspent", "held"], {cut_a_statement: 10}),
    Defect("refuses-without-look", ["what had too little credit or cap is recorded"], {cut_a_statement: 40}),
    Defect("holds-what-was-admitted", ["held"], {cut_a_statement: 5}),
    Defect("releases-without-status", ["held", "charged"], {cut_a_statement: 30, freeze_a_process_of_the_server: 2}),
]


@pytest.mark.skipif(not IS_LONG, reason="the defects that the fault test finds are tried with CHAOS=long")
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
async def test_a_defect_in_what_is_held_and_charged_is_caught(
    open_yard: OpenYard, schedule: Schedule, tmp_path: Path, defect: Defect
) -> None:
    async with (
        open_yard(program=("-m", "tests.chaos.mutants", defect.name, "serve")) as yard,
        hands(yard.environment, tmp_path / "workers", count=WORKERS, program=mutant(defect.name)) as workers,
    ):
        broken = await broken_by(defect.faults, yard, schedule, workers)
    assert any(sentence in each for each in broken for sentence in defect.said), broken
