"""Faults under traffic, and what is broken after them."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tests.chaos.jobs.callers import Asked, JobCallers
from tests.chaos.jobs.faults import Fault
from tests.chaos.jobs.hands import Hands
from tests.chaos.jobs.provider import CountingProvider
from tests.chaos.jobs.trail import Image, images_of, long_waits, taken_after_revocation, wrong_steps
from tests.chaos.schedule import IS_LONG, times

CALLERS = 8
READ_MAX = 200
TOO_LITTLE = {"insufficient_credit", "budget_exceeded"}
"""The codes of refusals of what an account cannot pay."""
_UNDISTURBED_SECONDS = times(short=1, long=2)


async def broken_by(
    faults: Mapping[Fault, int], callers: JobCallers, workers: Hands, *, pause_seconds_max: float = 1
) -> Sequence[str]:
    """What is broken after so many faults of each kind, in an order by chance, as sentences."""
    yard, started = callers.yard, time.monotonic()
    before = yard.cluster.lock_errors()
    async with callers.calling(CALLERS):
        await let_fail(faults, callers, workers, pause_seconds_max=pause_seconds_max)
    await yard.until_all_ended()
    connection = await yard.own.connect()
    images = await images_of(connection, [key.id for key in callers.keys])
    await connection.close()
    tell(images, callers, time.monotonic() - started)
    workers.start()  # a worker sweeps when it starts
    return [
        *wrong_steps(images),
        *taken_after_revocation(images),
        *(long_waits(images, yard.outages) if IS_LONG else ()),  # times are those of a machine with nothing else to do
        *wrongly_ended(images, callers.journal, yard.provider),
        *await unreadable(images, callers),
        *await yard.miscounted(callers.account, callers.keys),
        *await yard.until_swept(callers.account),
        *(f"{count} errors {sqlstate}" for sqlstate, count in (yard.cluster.lock_errors() - before).items()),
    ]


async def let_fail(
    faults: Mapping[Fault, int], callers: JobCallers, workers: Hands, *, pause_seconds_max: float
) -> None:
    """Lets so many faults of each kind happen, in an order by chance."""
    to_come = [fault for fault, count in faults.items() for _ in range(count)]
    await asyncio.sleep(_UNDISTURBED_SECONDS)
    while to_come:
        await asyncio.sleep(callers.schedule.between(0.2, pause_seconds_max))
        fault = callers.schedule.pick(to_come)
        to_come.remove(fault)
        workers.replace_ended()
        await fault(callers.yard, workers, callers, callers.schedule)
    workers.replace_ended()


async def unreadable(images: Mapping[str, Image], callers: JobCallers) -> Sequence[str]:
    """The requests of whose end their callers cannot read, as sentences: all that failed, and some that did not."""
    key = await callers.account.create_key()
    jobs: dict[str, list[str]] = {}
    for name, image in images.items():
        if image.is_job:
            jobs.setdefault(image.request_id, []).append(name)
    found = []
    for request_id in sorted(jobs, key=lambda each: images[each].status == "delivered")[:READ_MAX]:
        answer = await callers.yard.client.get(f"/v1/generations/{request_id}", headers=key.headers)
        shown = answer.json()
        statuses = {each["id"]: each["status"] for each in shown.get("outputs", [])}
        if statuses != {each: images[each].status for each in jobs[request_id]}:
            found.append(f"{request_id} is shown as {statuses}")
        if (shown.get("status") == "delivered") != (shown.get("error") is None):
            found.append(f"{request_id} is {shown.get('status')} and has {shown.get('error')}")
    return found


def wrongly_ended(images: Mapping[str, Image], journal: Sequence[Asked], provider: CountingProvider) -> Iterable[str]:
    """What callers were told against what is recorded and was bought, as sentences."""
    yield from wrongly_told(images, journal)
    recorded = by_prompt(images)
    for prompt in [asked.prompt for asked in journal]:
        mine = recorded.get(prompt, {}).values()
        sends, drawn = sum(image.sends for image in mine), sum(image.status == "delivered" for image in mine)
        if not drawn <= provider.calls[prompt] <= sends:
            yield f"{prompt}: bought {provider.calls[prompt]} times, sent {sends}, delivered {drawn}"


def by_prompt(images: Mapping[str, Image]) -> dict[str, dict[str, Image]]:
    """The images of each prompt, by id."""
    found: dict[str, dict[str, Image]] = {}
    for name, image in images.items():
        found.setdefault(image.prompt, {})[name] = image
    return found


def wrongly_told(images: Mapping[str, Image], journal: Iterable[Asked]) -> Iterable[str]:
    """What callers were told against what is recorded, as sentences."""
    recorded = by_prompt(images)
    for asked in journal:
        mine = recorded.pop(asked.prompt, {})
        requests = {image.request_id for image in mine.values()}
        delivered = {image.request_id for image in mine.values() if image.status == "delivered"}
        if not asked.ids <= set(mine):
            yield f"{asked.prompt}: what was accepted is not recorded"
        if len(delivered) > 1:
            yield f"{asked.prompt}: {len(delivered)} requests are delivered for one"
        if len(requests) > 1 and not asked.kind.is_repeated:
            yield f"{asked.prompt}: {len(requests)} requests for one"
        if asked.is_certain and not asked.ids and (delivered or any(image.is_job for image in mine.values())):
            yield f"{asked.prompt}: what was refused is recorded ({asked.kind})"
        if mine and asked.is_certain and not asked.ids and asked.codes <= TOO_LITTLE:
            yield f"{asked.prompt}: what had too little credit or cap is recorded"
    if recorded:
        yield f"nobody asked for {sorted(recorded)}"


def tell(images: Mapping[str, Image], callers: JobCallers, seconds: float) -> None:
    ends = Counter(f"{'job' if image.is_job else 'call'} {image.status}" for image in images.values())
    answers = Counter(call.code or str(call.status) for call in callers.calls)
    sys.stdout.write(
        f"{seconds:.0f} s, answers: {dict(sorted(answers.items()))}, images: {dict(sorted(ends.items()))}\n"
    )
