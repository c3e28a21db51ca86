"""Images that go into asynchronous generations, over HTTP: sent, kept, shown, sent on, and gone."""

import asyncio

import asyncpg
from tests.features.generate.test_editing import refusals, upload
from tests.features.jobs.application import EDITS, IMAGE, Jobs
from tests.features.sent_images import data_url, mask_png, png
from tests.harness import looks
from tests.problems import check_problem
from tests.standins.forms import read_form
from tests.standins.gemini import image_bytes
from tests.standins.openai import in_place

FULL = """
    insert into uploads (id, account_id, environment, format, width, height, bytes, expires_at)
    values ($1, $2, 'live', 'png', 1, 1, 1073741824, now() + interval '1 day')
"""


async def uploads(jobs: Jobs) -> list[str]:
    """The ids of the account's uploads, oldest first."""
    return [each["id"] for each in (await jobs.show("/v1/uploads")).json()][::-1]


async def test_the_provider_gets_the_images_and_nothing_is_left_of_those_that_were_sent(jobs: Jobs) -> None:
    drawn = await jobs.until(await jobs.accepted(), "delivered")
    uploaded = await upload(jobs.client, jobs.key, png(colour="teal"))
    gate = jobs.hold(in_place(image_bytes(1536, 1024)))
    images = [data_url(png()), drawn["id"], uploaded]
    path = await jobs.accepted(images=images, mask=data_url(mask_png(96, 64)), size="auto")
    await jobs.asked()
    sent = [each.content for each in read_form(jobs.provider.seen[-1])[1]]
    first, *kept = await uploads(jobs)
    assert (first, len(kept)) == (uploaded, 2)
    shown = (await jobs.show(path)).json()
    assert shown["size"] == "1536x1024", "auto is decided at once"
    assert [each["id"] for each in shown["images"]][1:] == [drawn["id"], uploaded]
    assert shown["images"][0]["id"] in kept
    refused = await jobs.ask(images=[shown["id"]])
    assert refusals(refused) == {"#/images/0": "This generation is not delivered yet: wait until it is"}
    gate.set()
    await jobs.until(path, "delivered")
    assert sent[:3] == [png(), IMAGE, png(colour="teal")]
    for _ in looks():
        if await uploads(jobs) == [uploaded]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("what was sent is kept")


async def test_a_job_whose_image_was_deleted_says_so_and_one_that_finds_no_room_is_refused(
    jobs: Jobs, jobs_database: asyncpg.Connection
) -> None:
    uploaded = await upload(jobs.client, jobs.key, png())
    await jobs.fill()
    path = await jobs.accepted(images=[uploaded])
    await jobs.client.delete(f"/v1/uploads/{uploaded}", headers=jobs.key.headers)
    await jobs_database.execute(FULL, f"upl_{'0' * 30}", jobs.account.account_id)
    check_problem(await jobs.ask(images=[data_url(png())]), 409, "uploads_full")
    assert (await jobs.ask(EDITS)).json()["error"]["code"] == "uploads_full"
    await jobs_database.execute("delete from uploads where id = $1", f"upl_{'0' * 30}")
    jobs.let_draw()
    shown = await jobs.until(path, "failed")
    assert (shown["error"]["code"], shown["error"]["status"]) == ("input_gone", 422)
