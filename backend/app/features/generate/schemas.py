"""The wire types of generations."""

import re
from datetime import datetime
from json.encoder import encode_basestring
from typing import Annotated, Protocol

from pydantic import AfterValidator, Field

from app.core.schemas import Answer, Body, Text, Time, format_time
from app.core.security import KeyEnvironment
from app.features.generate.studio import Wish
from app.providers import Size

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)


def _not_blank(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("must not be blank")
    return prompt


def read_size(text: str) -> Size:
    """The size; 0x0 for what is none, which every provider refuses with the list of what is possible."""
    match = _SIZE.fullmatch(text)
    return Size(int(match[1]), int(match[2])) if match else Size(0, 0)


Prompt = Annotated[Text, Field(min_length=1, max_length=4000, examples=["A cute banana"]), AfterValidator(_not_blank)]
SizeText = Annotated[Text, Field(examples=["1024x1024"])]


class GenerationCreate(Body):
    """A picture to be made."""

    prompt: Prompt
    size: SizeText = "1024x1024"

    @property
    def wish(self) -> Wish:
        """What it comes to."""
        return Wish(self.prompt, read_size(self.size))


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
