"""What clients of chat completions send and expect."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from app.catalogue.ratios import AspectRatio, ImageSize
from app.core.images import MEDIA_TYPES
from app.core.long_text import ImageText, LongText
from app.core.schemas import Answer, Body
from app.features.generate.schemas import ModelName
from app.features.openai.schemas import ImageUrl
from app.generations.spec import Delivered

SENTENCE = 'This model draws images: ask with "modalities": ["image", "text"], and it draws your last message.'
"""The answer to a request for text."""


class _Sent(Body):
    """A part of a request. What it has besides is for models that write: it is ignored."""

    model_config = ConfigDict(extra="ignore")


class ChatPart(_Sent):
    """A part of a message: a text or an image."""

    type: str = Field(description="`text`, `image_url` or `image`.", examples=["text"])
    text: str | None = Field(default=None, examples=["A cute banana"])
    image_url: ImageUrl | None = None
    url: ImageText | None = Field(default=None, description="Of an `image`, as LangChain sends an answer's image back.")


def _as_parts(content: object) -> object:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str | LongText) else content


def _text_or_parts(schema: dict[str, Any]) -> None:
    """Documents what `_as_parts` takes."""
    parts = {"type": schema.pop("type"), "items": schema.pop("items")}
    schema["anyOf"] = [{"type": "string"}, parts, {"type": "null"}]


class ChatMessage(_Sent):
    """A message of the conversation."""

    role: str = Field(examples=["user"])
    content: Annotated[list[ChatPart], BeforeValidator(_as_parts)] = Field(
        default_factory=list,
        description="A text, or parts.",
        examples=["A cute banana"],
        json_schema_extra=_text_or_parts,
    )
    images: list[ChatPart] | None = Field(default=None, description="Of an answer: its images.")


class ChatImageConfig(_Sent):
    """The shape of the image."""

    aspect_ratio: AspectRatio | None = None
    image_size: ImageSize | None = None


class ChatCompletionCreate(_Sent):
    """A conversation whose last message of the user is a prompt."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    model: ModelName | None = None
    modalities: list[str] | None = Field(
        default=None,
        description="With `image` an image is drawn. Without this member it depends on the model.",
        examples=[["image", "text"]],
    )
    image_config: ChatImageConfig | None = None
    n: Annotated[int, Field(ge=1)] | None = Field(default=None, description="1.")
    stream: bool | None = None


class ImageMade(Answer):
    """An image of an answer."""

    class Url(Answer):
        """Where it is: in the URL itself."""

        url: str = Field(examples=["data:image/png;base64,..."])

    type: Literal["image_url"] = "image_url"
    index: int = 0
    image_url: Url


class MessageMade(Answer):
    """The answer: an image, or a sentence."""

    role: Literal["assistant"] = "assistant"
    content: str
    images: Sequence[ImageMade] | None = Field(default=None, description="Left out where nothing was drawn.")


class Choice(Answer):
    """The one answer that there is."""

    index: int = 0
    message: MessageMade
    finish_reason: Literal["stop"] = "stop"


class TokenUsage(Answer):
    """Tokens are not counted: images are."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class ChatCompletion(Answer):
    """An answer."""

    id: str = Field(
        description="Of an image, the id of its generation.", examples=["gen_01kapn5vfe28fm63cjp43w44255s68"]
    )
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Seconds since 1970.", examples=[1_795_000_000])
    model: str = Field(examples=["nano-banana"])
    choices: Sequence[Choice]
    usage: TokenUsage = TokenUsage()


def image_completion(delivered: Delivered, *, content: str) -> ChatCompletion:
    """The answer with the delivered image, whose base64 is `content`."""
    url = f"data:{MEDIA_TYPES[delivered.format]};base64,{content}"
    message = MessageMade(content="", images=[ImageMade(image_url=ImageMade.Url(url=url))])
    created = int(delivered.created_at.timestamp())
    return ChatCompletion(id=delivered.id, created=created, model=delivered.model, choices=[Choice(message=message)])


def sentence_completion(answer_id: str, *, model: str, created: int) -> ChatCompletion:
    """The answer to a request for text."""
    return ChatCompletion(
        id=answer_id, created=created, model=model, choices=[Choice(message=MessageMade(content=SENTENCE))]
    )
