"""The wire types of generations."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from app.core.schemas import Answer, Body, Text, Time
from app.providers import Size

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", re.ASCII)


def _not_blank(prompt: str) -> str:
    if not prompt.strip():
        raise ValueError("must not be blank")
    return prompt


def _shaped_like_a_size(text: str) -> str:
    if not _SIZE.fullmatch(text):
        raise ValueError("must be WIDTHxHEIGHT in pixels, such as 1024x1024")
    return text


class GenerationCreate(Body):
    """A picture to be made."""

    prompt: Annotated[
        Text, Field(min_length=1, max_length=4000, examples=["A cute banana"]), AfterValidator(_not_blank)
    ]
    size: Annotated[Text, Field(max_length=11, examples=["1024x1024"]), AfterValidator(_shaped_like_a_size)] = (
        "1024x1024"
    )

    @property
    def pixels(self) -> Size:
        width, _, height = self.size.partition("x")
        return Size(int(width), int(height))


class GenerationPublic(Answer):
    """A picture that was made. Whoever has the URL can see it."""

    id: str = Field(examples=["gen_01kapn5vfe28fm63cjp43w44255s68"])
    url: str = Field(examples=["https://images.example.com/v1/images/gen_01kapn5vfe28fm63cjp43w44255s68.png"])
    prompt: str
    created_at: Time
