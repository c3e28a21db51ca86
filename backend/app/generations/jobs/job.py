"""What is asked of a job, and what a worker takes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from app.core.images import ImageFormat
from app.core.security import KeyEnvironment
from app.generations.ledger.queue import IdempotencyClaim, Lease, PendingRecord, Queueing, Recorded
from app.generations.spec import Delivered, GenerationSpec

EXPIRES_SECONDS_MAX = 20 * 60 * 60
"""How long a job may wait at most: less than the day for which its Idempotency-Key and its images are kept."""


@dataclass(frozen=True, slots=True)
class JobTerms:
    """How a job may wait."""

    job_class: Literal["now", "batch"] = "now"
    """`batch` is taken up while nothing of `now` waits."""
    expires_seconds: float = EXPIRES_SECONDS_MAX


class Queued(NamedTuple):
    """A request that has just been recorded, and waits for a worker."""

    record: PendingRecord
    terms: JobTerms
    created_at: datetime
    inputs: Sequence[str | None]
    """As in Delivered."""


class Accepted(NamedTuple):
    """A request that is on disk. `id` is that of its first image."""

    id: str
    is_replay: bool = False
    delivered: Delivered | None = None
    """Its images, where the stub draws them: they are delivered as soon as it is on disk."""
    queued: Queued | None = None
    """The request, where it waits for a worker and is no replay."""


def options_of(spec: GenerationSpec, *, may_pay_twice: bool, claim: IdempotencyClaim | None) -> Mapping[str, Any]:
    """What a row keeps of a request beside its columns: what its worker needs, and its claim, also for a requeue."""
    asked = {
        "background": None if spec.background == "auto" else spec.background,
        "compression": spec.compression,
        "first_frame": spec.first_frame or None,
        "may_pay_twice": may_pay_twice or None,
        "scope": claim and claim.scope.hex(),
        "fingerprint": claim and claim.fingerprints[0].hex(),
    }
    return {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Job:
    """A request that a worker has taken."""

    ids: Sequence[str]
    account_id: str
    environment: KeyEnvironment
    key_id: str
    prompt: str
    size: str
    format: ImageFormat
    model: str
    provider: str
    quality: str
    list_price: int
    price: int
    inputs: Sequence[Mapping[str, str]]
    options: Mapping[str, Any]
    job_class: Literal["now", "batch"]
    attempts: int
    """This one included."""
    lease: Lease
    created_at: datetime
    expires_at: datetime

    @property
    def id(self) -> str:
        return self.ids[0]

    @property
    def spec(self) -> GenerationSpec:
        """What was asked for, with the images that go in by their ids."""
        named = [each["id"] for each in self.inputs if "role" not in each]
        masks = [each["id"] for each in self.inputs if "role" in each]
        return GenerationSpec(
            self.prompt,
            self.size,
            format=self.format,
            count=len(self.ids),
            model=self.model,
            quality=self.quality,
            background=self.options.get("background", "auto"),
            compression=self.options.get("compression"),
            images=named,
            mask=masks[0] if masks else None,
            first_frame=self.options.get("first_frame", False),
        )

    @property
    def record(self) -> PendingRecord:
        """What settles it."""
        scope = self.options.get("scope")
        return PendingRecord(
            self.ids,
            self.key_id,
            0,
            self.prompt,
            self.size,
            self.format,
            self.model,
            self.provider,
            lease=self.lease,
            claim=None if scope is None else IdempotencyClaim(bytes.fromhex(scope), ()),
            queueing=Queueing(self.job_class, 0, self.attempts),
            price=self.price,
        )

    @property
    def recorded(self) -> Recorded:
        return Recorded(self.ids, self.created_at)


def jobs_of(rows: Sequence[Any], *, job_class: Literal["now", "batch"], seconds: float) -> Sequence[Job]:
    """The jobs of these rows, which `take_jobs.sql` returns in order of request and image."""
    requests: dict[str, list[Any]] = {}
    for row in rows:
        requests.setdefault(row["request_id"], []).append(row)
    return [_job(images, job_class, seconds) for images in requests.values()]


def _job(images: Sequence[Any], job_class: Literal["now", "batch"], seconds: float) -> Job:
    row = images[0]
    lease: UUID = row["lease"]
    return Job(
        ids=[each["id"] for each in images],
        inputs=json.loads(row["inputs"] or "[]"),
        options=json.loads(row["options"] or "{}"),
        job_class=job_class,
        lease=Lease(lease, seconds),
        **{name: row[name] for name in _COLUMNS},
    )


_COLUMNS = (
    *("account_id", "environment", "key_id", "prompt", "size", "format", "model", "provider", "quality"),
    *("list_price", "price", "attempts", "created_at", "expires_at"),
)
