"""What is asked for, by which caller, and what the caller is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from app.core.blobs import Blob
from app.core.images import ImageFormat
from app.core.security import KeyEnvironment
from app.providers import Background
from app.ratelimit import Limit


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """The key in whose name a generation is made, as it was when it was looked up: then it was active. Two that were
    looked up at different times are not equal: what is derived from one is remembered for that one.
    """

    key_id: str
    account_id: str
    environment: KeyEnvironment
    revision: int
    """Goes up with every change of what the key may do. The ledger records nothing for a caller of another revision."""
    limit: Limit | None = None
    """Images of this key, and below of all the account's keys and at a time; None for what the settings say."""
    account_limit: Limit | None = None
    concurrency: int | None = None
    models: frozenset[str] | None = None
    """The names of the models that the account's plan has; None for all."""


SentImage = Blob | str
"""An image that goes into a generation, as it was sent: its bytes, or what names it: the id of an upload (`upl_...`) or
of a generation (`gen_...`), or a URL.
"""


@dataclass(slots=True)  # not frozen: a frozen class sets its fields one call at a time, which each request would pay
class GenerationSpec:
    """The one carrier of a request: `count` images of one prompt, and whether the answer is to hold their bytes."""

    prompt: str
    size: str
    """As it was sent, such as `1024x1024`: the catalogue says whether it is one that can be drawn."""
    format: ImageFormat = "png"
    count: int = 1
    as_bytes: bool = False
    model: str | None = None
    """As it was sent: a model's name or alias; None for the default model."""
    quality: str = "auto"
    background: Background = "auto"
    compression: int | None = None
    """Of a JPEG or WebP, 0 to 100; None for what the encoder does by itself."""
    images: Sequence[SentImage] = ()
    """Those that go in, in order. With them the size may be `auto`: the shape of the first."""
    mask: SentImage | None = None
    """Where the first of them may change: where this one is transparent."""
    first_frame: bool = False
    """Whether of an animation the first frame is taken instead of refusing it."""


@dataclass(frozen=True, slots=True)
class ImageError:
    """An image of a request that was not delivered: its place among the request's images, from 0, and why."""

    index: int
    code: str


class Delivered(NamedTuple):
    """Images that their caller was given. `id` and `url` are those of the first.

    `contents` holds their bytes, where they were asked for and are not to be read from the store. `errors` are those of
    the request's other images.
    """

    ids: Sequence[str]
    urls: Sequence[str]
    format: ImageFormat
    prompt: str
    model: str
    size: str
    quality: str
    price: int
    """Of one image, in millionths of the deployment's currency, as `Generations.shown_price` has it."""
    created_at: datetime
    is_replay: bool
    contents: Sequence[bytes]
    errors: Sequence[ImageError] = ()
    inputs: Sequence[str | None] = ()
    """The ids of the images that it was made from, in order; None for one that has none: bytes, or a URL."""

    @property
    def id(self) -> str:
        return self.ids[0]

    @property
    def url(self) -> str:
        return self.urls[0]


def input_ids(recorded: Sequence[Mapping[str, str]] | None) -> Sequence[str | None]:
    """The ids of the images that a row's `inputs` name, in order and without the mask; None for one that has no id."""
    return [each.get("id") for each in recorded or () if "role" not in each]


def image_name(generation_id: str, image_format: ImageFormat, attempts: int = 1) -> str:
    """The name under which the store keeps an image that was drawn when workers had taken its generation so often: what
    one of them stores late, overwrites nothing.
    """
    return f"{generation_id}.{image_format}" if attempts <= 1 else f"{generation_id}.{attempts}.{image_format}"


def names_of_attempts(generation_id: str, image_format: ImageFormat, attempts: int) -> Sequence[str]:
    """All names that an image may have had until then."""
    return [image_name(generation_id, image_format, each) for each in range(1, max(attempts, 1) + 1)]
