"""The images that go into a generation: found where they are, made ready for a provider, and named for its row."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import and_, or_, select

from app.core.blobs import Blob
from app.core.bounds import IMAGE_BYTES_MAX
from app.core.db import DATABASE_ERRORS
from app.core.errors import Invalid, Unavailable
from app.core.fetching import FetchFailed, FetchRefused
from app.core.logs import logger
from app.core.security import is_id
from app.generations import serve, uploads
from app.generations.collaborators import Generations
from app.generations.errors import ImageNotFound
from app.generations.records import SHOWN
from app.generations.spec import Caller, GenerationSpec, SentImage, input_ids
from app.generations.uploads import UploadNotFound
from app.models import Generation
from app.providers import InputImage
from app.providers.intake import InvalidInput, TakenIn, take_in, take_in_mask

_IMAGE, _MASK = "#/images/{}", "#/mask"
_NOT_YET = "This generation is not delivered yet: wait until it is"
_NOT_OWN = "There is no such image: it must be delivered, not deleted, and of this account and environment"
_NOT_FETCHED = "URLs are not fetched here (FETCH_IMAGES); send the image itself, or upload it"
_TOO_SLOW = "The images could not be read in time; try again"


class Inputs(NamedTuple):
    """Images that can be sent to a provider, and the mask of the first of them."""

    images: Sequence[InputImage] = ()
    mask: InputImage | None = None
    ids: Sequence[str | None] = ()
    """The id of the upload or generation that each image is; None for bytes, and for a URL."""
    recorded: Sequence[Mapping[str, str]] = ()
    """For the row: of each image the `id` if it has one and the `sha256` of the bytes that go in, and the same of the
    mask, whose `role` is `mask`. Never a URL: it may hold secrets. An upload that was made for this generation alone
    has its end as `kept_until`.
    """


NO_INPUTS = Inputs()


_IS_NAMEABLE = or_(and_(*SHOWN), Generation.status.in_(("queued", "processing")))


class _NoSource(Exception):
    """There is no image where the client says that there is one; the sentence says why."""


_REFUSALS = (_NoSource, FetchRefused, FetchFailed, UploadNotFound, ImageNotFound, InvalidInput)


class _Resolved(NamedTuple):
    image: InputImage
    recorded: Mapping[str, str]


Take = Callable[[bytes], TakenIn]


async def resolve(generations: Generations, *, caller: Caller, spec: GenerationSpec, deadline: float) -> Inputs:
    """The images of the request, side by side, before `deadline` (of the event loop's clock).

    Generations and uploads must be of the caller's account and environment. Raises Invalid with each image that cannot
    be used, by its pointer, and Unavailable where too much waits or the time is over.
    """
    sent = [*spec.images, *_masks_of(spec)]
    sources = _Sources(generations, caller, deadline, await _find_own(generations, caller, sent))
    take = partial(take_in, first_frame=spec.first_frame)
    try:
        async with asyncio.timeout_at(deadline):
            images = await _side_by_side(_IMAGE, [sources.image(each, take) for each in spec.images])
            take_mask = partial(take_in_mask, size=images[0].image.size)
            masks = await _side_by_side(_MASK, [sources.image(each, take_mask) for each in _masks_of(spec)])
    except TimeoutError:
        raise Unavailable(_TOO_SLOW) from None
    recorded = [*(each.recorded for each in images), *({**each.recorded, "role": "mask"} for each in masks)]
    return Inputs(
        [each.image for each in images],
        masks[0].image if masks else None,
        input_ids(recorded),
        recorded,
    )


@dataclass(frozen=True)
class _Sources:
    """Where the images of one request come from. At most a few images of the process are in memory as a whole."""

    generations: Generations
    caller: Caller
    deadline: float
    own: Mapping[str, Generation]
    """The generations of the caller's among those that were sent, by id: delivered, or still to be."""

    async def image(self, sent: SentImage, take: Take) -> _Resolved:
        """Raises one of _REFUSALS where there is no usable image."""
        if isinstance(sent, str) and not sent.startswith(("gen_", "upl_")):
            sent = await self._fetch(sent)  # from here on it is bytes: nothing records the URL
        generations = self.generations
        async with generations.input_turns.turn(self.caller.account_id):
            content = await self._read(sent)
            taken, digest, is_as_sent = await generations.taking_in.run(partial(_take_and_hash, take, content, sent))
            if isinstance(sent, Blob) and is_as_sent:
                blob = sent
            else:
                blob = await generations.blobs.keep(taken.content)
        named = {"id": sent} if isinstance(sent, str) else {}
        return _Resolved(InputImage(blob, taken.format, taken.size), {**named, "sha256": digest})

    async def _fetch(self, url: str) -> Blob:
        fetcher = self.generations.fetcher
        if fetcher is None:
            raise _NoSource(_NOT_FETCHED)
        content = await fetcher.fetch(
            url, bytes_max=IMAGE_BYTES_MAX, deadline=self.deadline, group=self.caller.account_id
        )
        return await self.generations.blobs.keep(content)

    async def _read(self, sent: SentImage) -> bytes:
        if isinstance(sent, Blob):
            return await sent.read()
        if sent.startswith("upl_"):
            return (await uploads.open_upload(self.generations, caller=self.caller, upload_id=sent)).content
        generation = self.own.get(sent)
        if generation is None:
            raise _NoSource(_NOT_OWN)
        if generation.status != "delivered":
            raise _NoSource(_NOT_YET)
        image = serve.ServedImage(generation)
        stored = await serve.open_image(self.generations, image, 0, None, group=self.caller.account_id)
        return b"".join([chunk async for chunk in stored.chunks])


def _take_and_hash(take: Take, content: bytes, sent: SentImage) -> tuple[TakenIn, str, bool]:
    """The image, its hash, and whether it is what was sent, which was hashed as it came."""
    taken = take(content)
    if isinstance(sent, Blob) and taken.content == content:
        return taken, sent.sha256.hex(), True
    return taken, sha256(taken.content).hexdigest(), False


async def _find_own(generations: Generations, caller: Caller, sent: Sequence[SentImage]) -> Mapping[str, Generation]:
    ids = [each for each in sent if isinstance(each, str) and is_id("gen", each)]
    if not ids:
        return {}
    own = Generation.account_id == caller.account_id, Generation.environment == caller.environment
    async with generations.sessions.begin() as session:
        found = await session.scalars(select(Generation).where(Generation.id.in_(ids), *own, _IS_NAMEABLE))
        return {each.id: each for each in found}


async def _side_by_side(pointer: str, images: Sequence[Coroutine[Any, Any, _Resolved]]) -> Sequence[_Resolved]:
    """The images, in order. Raises Invalid with each that is refused, by its place; else the first other error."""
    ends = await asyncio.gather(*images, return_exceptions=True)
    refused = [(place, end) for place, end in enumerate(ends) if isinstance(end, _REFUSALS)]
    if refused:
        raise Invalid([{"pointer": pointer.format(place), "detail": str(end)} for place, end in refused])
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    return [end for end in ends if isinstance(end, _Resolved)]


def _masks_of(spec: GenerationSpec) -> Sequence[SentImage]:
    return [] if spec.mask is None else [spec.mask]


async def keep_until(generations: Generations, caller: Caller, inputs: Inputs, *, seconds: float) -> Inputs:
    """The same images, each with an id under which a job that may wait so long finds it: an upload of the account's,
    for what was sent itself or by a URL. Uploads that were named are kept at least as long; generations stay as they
    are.

    Raises UploadsFull, Invalid where an upload that was named is gone, and Unavailable where the store cannot be
    written: then nothing is left of it. What a crash leaves expires.
    """
    kept_for = timedelta(seconds=seconds + generations.lifetime.job_input_seconds)
    await _keep_named(generations, caller, inputs.recorded, kept_for)
    images = [*inputs.images, *([inputs.mask] if inputs.mask else [])]
    keeping = [
        _keep(generations, caller, image, recorded, kept_for)
        for image, recorded in zip(images, inputs.recorded, strict=True)
    ]
    ends = await asyncio.gather(*keeping, return_exceptions=True)
    kept = [end for end in ends if not isinstance(end, BaseException)]
    for end in ends:
        if isinstance(end, BaseException):
            await delete_kept(generations, kept)
            raise end
    return inputs._replace(ids=input_ids(kept), recorded=kept)


async def delete_kept(generations: Generations, recorded: Sequence[Mapping[str, str]]) -> None:
    """Deletes what was kept for a job that has ended or was not recorded, unless another job has named it since. What
    cannot be deleted now the sweep deletes, at the latest once it has expired.
    """
    kept_until = {each["id"]: datetime.fromisoformat(each["kept_until"]) for each in recorded if "kept_until" in each}
    if not kept_until:
        return
    try:
        await uploads.delete_unless_kept_longer(generations, kept_until)
    except (*DATABASE_ERRORS, Unavailable):
        logger.warning("inputs_not_deleted", exc_info=True)


async def _keep_named(
    generations: Generations, caller: Caller, recorded: Sequence[Mapping[str, str]], kept_for: timedelta
) -> None:
    ids = [each.get("id", "") for each in recorded]
    named = {each for each in ids if is_id("upl", each)}
    if not named:
        return
    gone = named.difference(await uploads.keep_longer(generations, caller=caller, ids=named, kept_for=kept_for))
    if gone:
        pointers = [_MASK if "role" in each else _IMAGE.format(place) for place, each in enumerate(recorded)]
        errors = [pointer for pointer, upload_id in zip(pointers, ids, strict=True) if upload_id in gone]
        raise Invalid([{"pointer": each, "detail": UploadNotFound.detail} for each in errors])


async def _keep(
    generations: Generations, caller: Caller, image: InputImage, recorded: Mapping[str, str], kept_for: timedelta
) -> Mapping[str, str]:
    if "id" in recorded:
        return recorded
    async with generations.input_turns.turn(caller.account_id):
        taken = TakenIn(await image.blob.read(), image.format, image.size)
        upload = await uploads.keep(generations, caller=caller, taken=taken, kept_for=kept_for)
    return {"id": upload.id, **recorded, "kept_until": upload.expires_at.isoformat()}
