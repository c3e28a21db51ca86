"""The wire types of generations."""

from datetime import datetime
from json.encoder import encode_basestring
from typing import Annotated, Protocol

from pydantic import AfterValidator, Field

from app.core.schemas import Answer, Body, Storable, Text, Time, format_time
from app.core.security import KeyEnvironment
from app.generations.spec import GenerationSpec


def _not_blank(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("must not be blank")
    return prompt


Prompt = Annotated[
    str, Field(min_length=1, max_length=4000, examples=["A cute banana"]), Storable, AfterValidator(_not_blank)
]
SizeText = Annotated[Text, Field(examples=["1024x1024"])]


class GenerationCreate(Body):
    """A picture to be made."""

    prompt: Prompt
    size: SizeText = "1024x1024"

    @property
    def spec(self) -> GenerationSpec:
        """The request, for any dialect."""
        return GenerationSpec(self.prompt, self.size)


class GenerationListed(Answer):
    """A picture that was made, as its account sees it later."""

    id: str = Field(examples=["gen_01kapn5vfe28fm63cjp43w44255s68"])
    url: str
    prompt: str
    size: str = Field(examples=["1024x1024"])
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
    def created_at(self) -> datetime: ...


class GenerationPublic(Answer):
    """A picture that was made. Whoever has the URL can see it."""

    @staticmethod
    def write(made: Written) -> bytes:
        """The JSON that this schema would write, without the model: the one answer that is given all the time."""
        prompt, created_at = encode_basestring(made.prompt), format_time(made.created_at)
        text = f'{{"id":"{made.id}","url":"{made.url}","prompt":{prompt},"created_at":"{created_at}"}}'
        return text.encode()

    id: str = Field(examples=["gen_01kapn5vfe28fm63cjp43w44255s68"])
    url: str = Field(examples=["https://images.example.com/v1/images/gen_01kapn5vfe28fm63cjp43w44255s68.png"])
    prompt: str
    created_at: Time
