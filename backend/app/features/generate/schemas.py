"""The wire types of generations."""

import json
from collections.abc import Sequence
from datetime import datetime
from json.encoder import encode_basestring
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from app.catalogue.model import REFERENCES_MAX
from app.catalogue.prices import format_amount
from app.core.errors import ApiError
from app.core.images import ImageFormat
from app.core.long_text import ImageText, LongText
from app.core.schemas import Answer, Body, Storable, Text, Time, format_time
from app.core.security import KeyEnvironment
from app.features.terms import ExpiresIn, IsAsync, JobClass
from app.generations.jobs.state import GenerationState
from app.generations.spec import GenerationSpec
from app.models import GenerationStatus


def not_blank(prompt: str) -> str:
    """The prompt. Raises ValueError for one of white space alone."""
    if not prompt.strip():
        raise ValueError("must not be blank")
    return prompt


Prompt = Annotated[
    str, Field(min_length=1, max_length=4000, examples=["A cute banana"]), Storable, AfterValidator(not_blank)
]
SizeText = Annotated[Text, Field(examples=["1024x1024"])]
ModelName = Annotated[str, Field(min_length=1, max_length=200, examples=["nano-banana"]), Storable]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max"]


def _beside_images(mask: str | LongText, info: ValidationInfo) -> str | LongText:
    if info.data.get("images") is None:
        raise ValueError("needs images: it is a mask of the first of them")
    return mask


class GenerationCreate(Body):
    """An image to be made."""

    prompt: Prompt
    size: SizeText = "1024x1024"
    model: ModelName | None = Field(default=None, description="A model of `GET /v1/models`. By default the first.")
    quality: Quality = Field(
        default="auto", description="A quality of the model; without an effect where the model has none."
    )
    images: Annotated[list[ImageText], Field(min_length=1, max_length=REFERENCES_MAX)] | None = Field(
        default=None,
        description=(
            "Images to change or to draw from: a `data:` URL, the id of an upload or of a generation of yours, or an "
            "`https` URL. With them `size` may be `auto`: the shape of the first."
        ),
        examples=[["gen_01kapn5vfe28fm63cjp43w44255s68"]],
    )
    mask: Annotated[ImageText, AfterValidator(_beside_images)] | None = Field(
        default=None, description="Where the first of the images may change: where this one is transparent."
    )
    first_frame: bool = Field(default=False, description="Take the first frame of an animation instead of refusing it.")
    is_async: IsAsync = None
    expires_in: ExpiresIn = None
    job_class: JobClass = None

    @property
    def spec(self) -> GenerationSpec:
        """The request, for any dialect, without its images."""
        return GenerationSpec(self.prompt, self.size, model=self.model, quality=self.quality)


Price = Annotated[
    str,
    Field(
        description="What this image costs once it is delivered; while nothing is charged, what the model's list says.",
        examples=["0.05"],
    ),
]
Currency = Annotated[str | None, Field(description="Of the price; null where no model has one.", examples=["USD"])]


class InputPublic(Answer):
    """An image that another one was made from."""

    id: str | None = Field(
        description="The upload or the generation; null for an image that was sent itself, or by its URL.",
        examples=["gen_01kapn5vfe28fm63cjp43w44255s68"],
    )


Inputs = Annotated[
    Sequence[InputPublic] | None,
    BeforeValidator(lambda ids: [{"id": each} for each in ids] or None),
    Field(validation_alias="inputs", description="What it was made from; null where no image went in."),
]


class ProblemPublic(Answer):
    """Why an image was not made: the problem document that a synchronous call would have been answered."""

    type: Literal["about:blank"] = "about:blank"
    title: str = Field(examples=["Bad Request"])
    status: int = Field(examples=[400])
    code: str = Field(examples=["content_policy_violation"])
    detail: str = Field(validation_alias="sentence", examples=["The provider refuses to draw this prompt"])


ShownUrl = Annotated[str | None, Field(description="Null until it is delivered.")]


class GenerationListed(Answer):
    """A generation, as its account sees it later."""

    id: str = Field(examples=["gen_01kapn5vfe28fm63cjp43w44255s68"])
    url: ShownUrl = Field(validation_alias="shown_url")
    prompt: str
    model: str = Field(examples=["nano-banana"])
    size: str = Field(examples=["1024x1024"])
    quality: str = Field(examples=["auto"])
    format: ImageFormat
    price: Price
    currency: Currency
    environment: KeyEnvironment
    key_id: str = Field(examples=["key_28fm63cjp43w44255s68"])
    created_at: Time
    images: Inputs
    status: GenerationStatus
    started_at: Time | None = Field(description="When a provider was asked for it; null for one that waits for none.")
    delivered_at: Time | None
    expires_at: Time | None = Field(description="Until when it may wait for a worker; null unless it is asynchronous.")
    error: ProblemPublic | None = Field(description="Why it was not delivered; null for what was, or has not ended.")


class OutputPublic(Answer):
    """One image of a request."""

    id: str = Field(examples=["gen_01kapn5vfe28fm63cjp43w44255s68"])
    url: ShownUrl
    status: GenerationStatus
    error: ProblemPublic | None


def _quoted(text: str | None) -> str:
    """Of text in which nothing needs escaping."""
    return "null" if text is None else f'"{text}"'


def _time(at: datetime | None) -> str:
    return "null" if at is None else f'"{format_time(at)}"'


def _problem(error: ApiError | None) -> str:
    return "null" if error is None else ProblemPublic.model_validate(error).model_dump_json()


class GenerationShown(GenerationListed):
    """A generation, with its place in the queue and each of its images."""

    @staticmethod
    def write(found: GenerationState) -> bytes:
        """The JSON that this schema would write, without pydantic: the answer of every asynchronous call."""
        outputs = ",".join(
            f'{{"id":"{each.id}","url":{_quoted(each.url)},"status":"{each.status}","error":{_problem(each.error)}}}'
            for each in found.outputs
        )
        text = (
            f'{{"id":"{found.id}","url":{_quoted(found.shown_url)},"prompt":{encode_basestring(found.prompt)},'
            f'"model":"{found.model}","size":"{found.size}","quality":"{found.quality}","format":"{found.format}",'
            f'"price":"{found.price}","currency":{_quoted(found.currency)},"environment":"{found.environment}",'
            f'"key_id":"{found.key_id}","created_at":{_time(found.created_at)},'
            f'"images":{_written(found.inputs) if found.inputs else "null"},"status":"{found.status}",'
            f'"started_at":{_time(found.started_at)},"delivered_at":{_time(found.delivered_at)},'
            f'"expires_at":{_time(found.expires_at)},"error":{_problem(found.error)},'
            f'"position":{"null" if found.position is None else found.position},"outputs":[{outputs}]}}'
        )
        return text.encode()

    position: int | None = Field(description="Roughly its place in the queue, 1 for the next; null unless `queued`.")
    outputs: Sequence[OutputPublic] = Field(description="The images of the request, in order.")


class Written(Protocol):
    """What an answer is written from."""

    @property
    def id(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def prompt(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def size(self) -> str: ...

    @property
    def quality(self) -> str: ...

    @property
    def format(self) -> ImageFormat: ...

    @property
    def price(self) -> int: ...

    @property
    def created_at(self) -> datetime: ...

    @property
    def inputs(self) -> Sequence[str | None]: ...


def _written(ids: Sequence[str | None]) -> str:
    return json.dumps([{"id": each} for each in ids], separators=(",", ":"))


class GenerationPublic(Answer):
    """An image that was made. Whoever has the URL can see it."""

    @staticmethod
    def write(made: Written, *, currency: str | None) -> bytes:
        """The JSON that this schema would write, without pydantic: the one answer that is given all the time."""
        prompt, created_at = encode_basestring(made.prompt), format_time(made.created_at)
        quoted_currency = f'"{currency}"' if currency else "null"
        money = f'"price":"{format_amount(made.price)}","currency":{quoted_currency}'
        text = (
            f'{{"id":"{made.id}","url":"{made.url}","prompt":{prompt},"model":"{made.model}","size":"{made.size}",'
            f'"quality":"{made.quality}","format":"{made.format}",{money},"created_at":"{created_at}",'
            f'"images":{_written(made.inputs) if made.inputs else "null"}}}'
        )
        return text.encode()

    id: str = Field(examples=["gen_01kapn5vfe28fm63cjp43w44255s68"])
    url: str = Field(examples=["https://images.example.com/v1/images/gen_01kapn5vfe28fm63cjp43w44255s68.png"])
    prompt: str
    model: str = Field(examples=["nano-banana"])
    size: str = Field(examples=["1024x1024"])
    quality: str = Field(examples=["auto"])
    format: ImageFormat
    price: Price
    currency: Currency
    created_at: Time
    images: Inputs
