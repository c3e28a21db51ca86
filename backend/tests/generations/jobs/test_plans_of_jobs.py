"""What becomes of jobs of test keys, and of jobs whose model has changed while they waited."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from app.catalogue.model import Catalogue
from app.catalogue.opened import OpenCatalogue
from app.core.blobs import Blob
from app.generations import serve
from app.providers import Size
from app.storage import read_whole
from tests.features.sent_images import png
from tests.features.usage.recorded import total
from tests.generations.jobs.scene import KEYS, Scene
from tests.harness import Key

REHEARSALS: list[tuple[list[Blob | str], str, list[str | None]]] = [
    ([], "test:refuse", ["content_policy_violation"] * 3),
    ([], "test:timeout", ["provider_timeout"] * 3),
    ([], "test:unavailable", ["provider_unavailable"] * 3),
    ([], "test:fail:2", ["provider_failed", "provider_failed", None]),
    ([Blob(png())], "test:refuse:2", ["content_policy_violation", "content_policy_violation", None]),
]


async def test_what_a_test_key_rehearses_happens_to_a_job(scene: Scene) -> None:
    scene.caller = replace(scene.caller, key_id=KEYS["test"], environment="test")
    delivered = 0
    for images, prompt, errors in REHEARSALS:
        job = await scene.accept(*images, prompt=prompt, size="1024x1024", count=3)
        await scene.work()
        rows = await scene.rows(job.id)
        assert [row["error"] for row in rows] == errors, prompt
        assert [row["status"] for row in rows] == ["failed" if each else "delivered" for each in errors]
        delivered += errors.count(None)
    assert await total(scene.database, Key(KEYS["test"], "")) == delivered
    drawn = await scene.accept(size="1024x1024", count=2)
    assert [row["status"] for row in await scene.rows(drawn.id)] == ["delivered"] * 2, "the stub needs no worker"
    edited = await scene.accept(Blob(png()))
    assert [(await scene.row(edited.id))["status"], (await scene.work())["status"]] == ["queued", "delivered"]
    assert scene.provider.seen == []


def renamed(opened: OpenCatalogue, name: str, *aliases: str) -> OpenCatalogue:
    """The model has this name now, and these aliases."""
    [model], [routes] = opened.catalogue, opened.routes.values()
    catalogue = Catalogue(models={name: replace(model, name=name, aliases=aliases)}, default=name)
    return replace(opened, catalogue=catalogue, routes={name: routes}, _plans={})


def of_sizes(opened: OpenCatalogue, *sizes: Size) -> OpenCatalogue:
    """Its only route draws these sizes now."""
    [(name, [route])] = opened.routes.items()
    return replace(opened, routes={name: [replace(route, route=replace(route.route, sizes=sizes))]}, _plans={})


def by_stub(opened: OpenCatalogue) -> OpenCatalogue:
    """Its only route is the stub now."""
    [(name, _)] = opened.routes.items()
    routes = opened.plan(None, "1024x1024", "auto", "auto", "test").routes
    return replace(opened, routes={name: routes}, _plans={})


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        (lambda opened: renamed(opened, "another"), "failed", "model_not_found"),
        (lambda opened: renamed(opened, "another", "gpt-image-1"), "delivered", None),
        (lambda opened: of_sizes(opened, Size(1024, 1536)), "failed", "model_changed"),
        (by_stub, "delivered", None),
    ],
)
@pytest.mark.parametrize("images", [[], [Blob(png())]])
async def test_a_job_is_drawn_as_the_catalogue_is_when_a_worker_has_it(
    scene: Scene, change: Callable[[OpenCatalogue], OpenCatalogue], status: str, error: str | None, images: list[Blob]
) -> None:
    before = replace(scene.generations, catalogue=renamed(scene.generations.catalogue, "gpt-image-1", "nickname"))
    scene.generations = before
    job = await scene.accept(*images, size="1024x1024", model="nickname", count=2)
    [model, *_] = [row["model"] for row in await scene.rows(job.id)]
    assert model == "gpt-image-1", "an alias may mean another model by then"
    scene.generations = replace(before, catalogue=change(before.catalogue))
    await scene.work()
    rows = await scene.rows(job.id)
    assert [(row["status"], row["error"]) for row in rows] == [(status, error)] * 2
    for row in rows if status == "delivered" else ():
        image = await serve.find_image(scene.generations, generation_id=row["id"], image_format="png")
        stored = await serve.open_image(scene.generations, image, 0, None)
        assert len(b"".join([chunk async for chunk in stored.chunks])) == stored.size > 0
        is_kept = await read_whole(scene.generations.store, image.name) is not None
        assert is_kept == (row["provider"] != "stub"), "what the stub draws again is not kept"
