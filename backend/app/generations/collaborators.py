"""What every generation is made with."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from app.catalogue.opened import OpenCatalogue
from app.catalogue.routing import Plan
from app.core.bell import Bell
from app.core.blobs import BlobSpace
from app.core.clock import DatabaseClock
from app.core.db import SessionMaker
from app.core.fair_queue import FairPool, FairQueue
from app.core.fetching import Fetcher
from app.core.images import ImageFormat
from app.core.metrics import Metrics
from app.core.pool import BoundedPool, CancelScope
from app.core.settings import Settings
from app.core.shared_calls import SharedCalls
from app.generations.drawn import DrawnImages
from app.generations.ledger import Ledger
from app.generations.ledger.queue import PendingRecord
from app.generations.lifetime import Lifetime
from app.generations.places import Places
from app.generations.request_rows import RequestRows
from app.models import Generation
from app.providers import Image
from app.providers.decode import convert
from app.storage.health import MonitoredStore


@dataclass(frozen=True)
class UploadBounds:
    """How many bytes all uploads of an account may have, and how long each is kept."""

    bytes_per_account: int
    kept_for: timedelta

    @classmethod
    def of(cls, settings: Settings) -> "UploadBounds":
        """What the settings say."""
        return cls(settings.uploads_bytes_per_account, timedelta(hours=settings.upload_retention_hours))


@dataclass(frozen=True)
class Generations:
    """The collaborators of every generation.

    The stub draws in the threads of `drawing`, which scale images for viewers too; what any other provider sent, which
    is paid, is decoded in those of `decoding`; images that go in are checked in those of `taking_in`.
    `cancelled_on_disconnect` cancels work once the client of the request at hand has left; paid work stays outside.
    """

    sessions: SessionMaker
    places: Places
    request_rows: RequestRows
    ledger: Ledger
    catalogue: OpenCatalogue
    drawing: FairPool
    decoding: BoundedPool
    taking_in: BoundedPool
    store: MonitoredStore
    fetcher: Fetcher | None
    """Fetches the images that callers name by a URL; None where the settings let none be fetched."""
    blobs: BlobSpace
    """Where images that go in are kept."""
    upload_bounds: UploadBounds
    metrics: Metrics
    thumbnail_turns: FairQueue
    """Bounds how many stored images are in memory as a whole to be scaled."""
    input_turns: FairQueue
    """Bounds how many images that go in are in memory as a whole to be checked, and how many of one account."""
    public_url: str
    lifetime: Lifetime
    clock: DatabaseClock
    bell: Bell
    """Rings for jobs that wait, and for generations that have changed."""
    charges: bool = False
    """Whether images are charged, at their list price: with a test key that is 0."""
    cancelled_on_disconnect: CancelScope = nullcontext
    drawn: DrawnImages = field(default_factory=DrawnImages)
    thumbnail_calls: SharedCalls[bytes] = field(default_factory=SharedCalls)
    """The thumbnails of stored images that are being made, by name."""

    def url(self, generation_id: str, image_format: str) -> str:
        """Where anybody who knows the id sees the image."""
        return f"{self.public_url}/v1/images/{generation_id}.{image_format}"

    def price_of(self, plan: Plan) -> int:
        """What is charged for an image of this plan once it is delivered, in millionths of the currency."""
        return plan.list_price if self.charges else 0

    def shown_price(self, recorded: Generation | PendingRecord) -> int:
        """What its account sees as the price of a recorded image: what it is charged, or while nothing is charged what
        the list said.
        """
        return recorded.price if self.charges else recorded.list_price

    async def convert(
        self,
        image: Image,
        image_format: ImageFormat,
        *,
        compression: int | None = None,
        is_free: bool = False,
        group: str = "",
    ) -> Image:
        """The image in this format and, where one is given, of this compression: converted in the threads for what was
        paid, or for what the stub draws for free.

        Raises Unavailable where it has another, and too much waits to be converted.
        """
        if image.format == image_format and compression in {None, image.compression}:
            return image  # most have it: a thread would cost more than all the rest
        work = partial(convert, image, image_format, compression)
        if is_free:
            return await self.drawing.run(work, group=group)
        return await self.decoding.run(work)
