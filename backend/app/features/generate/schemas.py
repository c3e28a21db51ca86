"""The wire types of generations."""

from datetime import datetime
from json.encoder import encode_basestring
from typing import Annotated, Literal, Protocol

from pydantic import AfterValidator, Field

from app.catalogue.prices import format_amount
from app.core.images import ImageFormat
from app.core.schemas import Answer, Body, Storable, Text, Time, format_time
from app.core.security import KeyEnvironment
from app.generations.spec import GenerationSpec


def not_blank(prompt: str) -> str:
    """The prompt. Raises ValueError for one of white space alone."""
    if not prompt.strip():
        raise ValueError("must not be blank")
    return prompt


Prompt = Annotated[
    str, Field(min_length=1, max_length=4000, examples=["A cute banana"]), Storable, AfterValidator(not_blank)
]
SizeText = Annotated[Text, Field(examples=["1024x1024"])]
ModelName = Annotated[Text, Field(min_length=1, max_length=200, examples=["nano-banana"])]
Quality = Literal["auto", "low", "medium", "high", "xhigh", "max"]


class GenerationCreate(Body):
    """A picture to be made."""

    prompt: Prompt
    size: SizeText = "1024x1024"
    model: ModelName | None = Field(default=None, description="A model of `GET /v1/models`. By default the first.")
    quality: Quality = Field(
        default="auto", description="A quality of the model; without an effect where the model has none."
    )

    @property
    def spec(self) -> GenerationSpec:
        """The request, for any dialect."""
        return GenerationSpec(self.prompt, self.size, model=self.model, quality=self.quality)


Price = Annotated[str, Field(description="What the model's list says for this image.", examples=["0.05"])]
Currency = Annotated[str | None, Field(description="Of the price; null where no model has one.", examples=["USD"])]


class GenerationListed(Answer):
    """A picture that was made, as its account sees it later."""

    id: str = Field(examples=["gen_01kapn5vfe28fm63cjp43w44255s68"])
    url: str
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
    def list_price(self) -> int: ...

    @property
    def created_at(self) -> datetime: ...


class GenerationPublic(Answer):
    """A picture that was made. Whoever has the URL can see it."""

    @staticmethod
    def write(made: Written, *, currency: str | None) -> bytes:
        """The JSON that this schema would write, without pydantic: the one answer that is given all the time."""
        prompt, created_at = encode_basestring(made.prompt), format_time(made.created_at)
        quoted_currency = f'"{currency}"' if currency else "null"
        money = f'"price":"{format_amount(made.list_price)}","currency":{quoted_currency}'
        text = (
            f'{{"id":"{made.id}","url":"{made.url}","prompt":{prompt},"model":"{made.model}","size":"{made.size}",'
            f'"quality":"{made.quality}","format":"{made.format}",{money},"created_at":"{created_at}"}}'
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
