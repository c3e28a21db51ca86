"""Images that go into jobs: what they are kept as until a worker sends them, and what is left of them afterwards."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from app.core.blobs import Blob
from app.core.errors import Invalid, Unavailable
from app.generations import replay, uploads
from app.generations.collaborators import UploadBounds
from app.generations.errors import CallerChangedError, OutcomeUnknown, QueueFull
from app.generations.inputs import Inputs, keep_until
from app.generations.jobs import work
from app.generations.jobs.cancel import cancel
from app.generations.jobs.job import Accepted
from app.generations.ledger import Ledger
from app.generations.spec import input_ids
from app.generations.sweep import delete_images
from app.generations.uploads import UploadNotFound, UploadsFull
from app.models import Generation
from app.providers import InputImage, Size
from app.storage import StoreUnavailable, read_whole
from tests.features.sent_images import mask_png, png
from tests.generations.jobs.scene import FETCHED, Scene, raising
from tests.standins.openai import failed


async def test_the_provider_gets_the_images_of_a_job_as_they_were_when_it_was_accepted(scene: Scene) -> None:
    uploaded = await scene.save(png(colour="teal"))
    first = await scene.accept(Blob(png()))
    assert (await scene.work())["status"] == "delivered"
    drawn = await read_whole(scene.generations.store, f"{first.id}.png")
    before = set(await scene.kept())
    job = await scene.accept(scene.page, Blob(png()), uploaded.id, first.id, mask=Blob(mask_png(96, 64)))
    kept = await scene.kept()
    row = await scene.row(job.id)
    named = json.loads(row["inputs"])
    assert "canary" not in str(row), "a URL may hold secrets"
    assert [each.get("id") for each in named[2:4]] == [uploaded.id, first.id]
    assert {each["id"] for each in named if "kept_until" in each} == set(kept) - before
    assert [("role" in each, "kept_until" in each) for each in named] == [
        *((False, True), (False, True), (False, False), (False, False)),
        (True, True),
    ]
    assert all(each > timedelta(seconds=60) for each in kept.values())
    assert (await scene.work())["status"] == "delivered"
    assert scene.sent == [FETCHED, png(), png(colour="teal"), drawn, scene.sent[-1]]
    assert [sha256(each).hexdigest() for each in scene.sent] == [each["sha256"] for each in named]
    assert set(await scene.kept()) == before, "what was kept for the job alone is deleted with its end"


async def test_what_is_not_recorded_leaves_nothing_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Blob(png()), Blob(png(colour="teal"))
    job = await scene.accept(*images, once="key")
    kept = list(await scene.kept())
    bounds = UploadBounds(3 * len(png()), timedelta(hours=1))
    full = replace(scene, generations=replace(scene.generations, upload_bounds=bounds))
    refusals: list[tuple[Scene, object, str, object, type[Exception] | None]] = [
        (scene, replay, "find", raising(None), None),  # another request takes the key after it was looked up
        *(
            (scene, Ledger, "record", raising(error), type(error))
            for error in (QueueFull(), Unavailable(), CallerChangedError())
        ),
        (full, Ledger, "record", raising(None), UploadsFull),  # the first of two images finds room
        (scene, scene.generations.store, "put", raising(StoreUnavailable()), StoreUnavailable),
    ]
    for deployment, target, name, instead, error in refusals:
        with monkeypatch.context() as patch:
            patch.setattr(target, name, instead)
            if error is None:
                assert await deployment.accept(*images, once="key") == job._replace(is_replay=True, queued=None)
            else:
                with pytest.raises(error):
                    await deployment.accept(*images)
        assert list(await scene.kept()) == kept, error
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", raising(OutcomeUnknown()))
        with pytest.raises(OutcomeUnknown):
            await scene.accept(*images)
    assert len(await scene.kept()) == 2 * len(kept), "it may have been recorded"


async def test_what_is_kept_for_jobs_in_parallel_counts_to_the_byte(scene: Scene) -> None:
    scene.generations = replace(scene.generations, upload_bounds=UploadBounds(7 * len(png()), timedelta(hours=1)))
    ends = await asyncio.gather(*(scene.accept(Blob(png())) for _ in range(20)), return_exceptions=True)
    assert Counter(type(each) for each in ends) == {Accepted: 7, UploadsFull: 13}
    assert await scene.database.fetchval("select sum(bytes) from uploads") == 7 * len(png())
    for _ in range(7):
        assert (await scene.work())["status"] == "delivered"
    assert await scene.kept() == {}


class Killed(BaseException):
    """Stands for the end of the process: nothing of the program runs after it."""


async def test_whatever_is_killed_before_a_job_is_recorded_is_swept(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for target, name in ((scene.generations.store, "put"), (uploads, "_show"), (Ledger, "record")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, raising(Killed()))
            with pytest.raises(Killed):
                await scene.accept(Blob(png()))
        assert await scene.database.fetchval("select count(*) from uploads") == 1, name
        await scene.database.execute("update uploads set expires_at = now()")
        await scene.sweeper.sweep()
        assert await scene.database.fetchval("select count(*) from uploads") == 0, name


async def test_of_a_job_that_is_not_delivered_the_sweep_deletes_what_was_kept(scene: Scene) -> None:
    scene.provider.faults.append(failed(400, "invalid_value"))
    await scene.accept(Blob(png()))
    assert (await scene.work())["status"] == "failed"
    second = await scene.accept(Blob(png()))
    assert await cancel(scene.generations, request_id=second.id) == [second.id]
    waiting = await scene.accept(Blob(png()))
    assert len(await scene.kept()) == 3
    await scene.sweeper.sweep()
    [named] = json.loads((await scene.row(waiting.id))["inputs"])
    assert list(await scene.kept()) == [named["id"]]


async def test_what_was_kept_for_one_job_and_named_by_another_stays(scene: Scene) -> None:
    await scene.accept(Blob(png()), seconds=3600)
    [(upload_id, left)] = (await scene.kept()).items()
    second = await scene.accept(upload_id, seconds=1)
    assert [(await scene.work())["status"], (await scene.work())["status"]] == ["delivered", "delivered"]
    assert (scene.sent, input_ids(json.loads((await scene.row(second.id))["inputs"]))) == ([png()], [upload_id])
    [(same, still)] = (await scene.kept()).items()
    assert (same, still <= left) == (upload_id, True)


async def test_an_upload_that_is_named_lives_as_long_as_the_job_and_never_shorter(scene: Scene) -> None:
    uploaded = await scene.save(png())
    for left, seconds, least in ((10, 3600, 3600), (90_000, 60, 80_000)):
        await scene.database.execute("update uploads set expires_at = now() + make_interval(secs => $1)", left)
        await scene.accept(uploaded.id, mask=Blob(mask_png(96, 64)), seconds=seconds)
        assert (await scene.kept())[uploaded.id] > timedelta(seconds=least)
    await uploads.delete_one(scene.generations, caller=scene.caller, upload_id=uploaded.id)
    named = Inputs([InputImage(Blob(png()), "png", Size(96, 64))], recorded=[{"id": uploaded.id, "sha256": ""}])
    with pytest.raises(Invalid) as refused:  # it was deleted after it was read
        await keep_until(scene.generations, scene.caller, named, seconds=60)
    assert refused.value.members == {"errors": [{"pointer": "#/images/0", "detail": UploadNotFound.detail}]}


async def test_an_input_that_is_gone_when_a_job_is_drawn_fails_it_with_a_code_that_says_so(scene: Scene) -> None:
    drawn = await scene.accept(Blob(png()))
    with pytest.raises(Invalid) as refused:
        await scene.accept(drawn.id)
    assert "not delivered yet" in str(refused.value.members), "a job cannot wait for another"
    assert (await scene.work())["status"] == "delivered"
    uploaded = await scene.save(png(colour="teal"))
    jobs = [await scene.accept(*images) for images in ([drawn.id], [uploaded.id], [Blob(png())])]
    assert drawn.id in str((await scene.row(jobs[0].id))["inputs"])
    await delete_images(scene.generations, Generation.id == drawn.id)
    for upload_id in await scene.kept():
        await uploads.delete_one(scene.generations, caller=scene.caller, upload_id=upload_id)
    calls = len(scene.provider.seen)
    for _ in jobs:
        row = await scene.work()
        assert (row["status"], row["error"]) == ("failed", "input_gone")
    assert len(scene.provider.seen) == calls


async def test_while_the_store_cannot_be_read_a_job_waits_and_no_attempt_is_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.generations.jobs.drawing._PROBE_SECONDS", 0)
    await scene.accept(Blob(png()))
    with monkeypatch.context() as patch:
        patch.setattr(scene.generations.store, "get", raising(StoreUnavailable()))
        for _ in range(4):
            assert (await scene.work())["status"] == "queued"
    assert (await scene.work())["status"] == "delivered"
    job = await scene.accept(Blob(png()))
    taken = await scene.take()
    await scene.database.execute("update generations set expires_at = now() where id = $1", job.id)
    with monkeypatch.context() as patch:
        patch.setattr(scene.generations.store, "get", raising(StoreUnavailable()))
        await scene.draw(taken)
    assert await work.take(scene.generations, jobs_max=1, account_most=100, key_most=100) == [], "not for ever"


async def test_a_renewal_of_leases_does_not_cut_off_a_job_that_has_just_been_delivered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its worker deletes what was kept for it."""
    await scene.accept(Blob(png()))
    job = await scene.take()
    deleting, renewed, delete = asyncio.Event(), asyncio.Event(), uploads.delete_unless_kept_longer

    async def delete_later(*arguments: Any) -> None:
        deleting.set()
        await renewed.wait()
        await delete(*arguments)

    monkeypatch.setattr(uploads, "delete_unless_kept_longer", delete_later)
    drawing = asyncio.create_task(scene.draw(job))
    await deleting.wait()
    assert (await scene.row(job.id))["status"] == "delivered"
    lost = await work.renew(scene.generations, [job])
    renewed.set()
    await drawing
    assert (list(lost), await scene.kept()) == ([], {})
