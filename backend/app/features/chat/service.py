"""What a conversation asks for: whether an image, and which."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from app.catalogue.model import Model
from app.catalogue.ratios import size_of
from app.core.errors import Invalid, UnsupportedParameter
from app.features.chat.schemas import ChatCompletionCreate, ChatImageConfig, ChatMessage
from app.features.input_images import NamedInput
from app.features.openai.schemas import Prompt
from app.generations.spec import GenerationSpec, SentImage

_MEMBERS = {"text": "text", "image_url": "image_url", "image": "url"}
"""The types of parts, with the member that each must have."""
_PROMPT: TypeAdapter[str] = TypeAdapter(Prompt)


class Drawing(NamedTuple):
    """The image that a conversation asks for."""

    prompt: str
    images: Sequence[NamedInput]


def asks_for_image(sent: ChatCompletionCreate, model: Model | None) -> bool:
    """Whether the request is for an image: its modalities say so or, where it has none, the file of its model."""
    if sent.modalities is not None:
        return "image" in sent.modalities
    return model is not None and model.chat


def drawing_of(sent: ChatCompletionCreate) -> Drawing:
    """The last message of the user: its text is the prompt, and its images go in, after the last image before it.

    Raises UnsupportedParameter for several images, and Invalid for a message that is no prompt.
    """
    if sent.n is not None and sent.n > 1:
        raise UnsupportedParameter("n", "One image is made for a request; leave n out")
    places = [place for place, message in enumerate(sent.messages) if message.role == "user"]
    if not places:
        raise Invalid([{"pointer": "#/messages", "detail": "Must hold a message of the user"}])
    last, earlier = places[-1], sent.messages[: places[-1]]
    images_before = [each for place, message in enumerate(earlier) for each in _images_of(message, place)]
    return Drawing(
        _prompt_of(sent.messages[last], pointer=f"#/messages/{last}/content"),
        [*images_before[-1:], *_images_of(sent.messages[last], last)],
    )


def spec_of(
    sent: ChatCompletionCreate, drawing: Drawing, images: Sequence[SentImage], model: Model | None
) -> GenerationSpec:
    """The request, for any dialect, made from these images: the first gives it its shape unless a ratio is asked for.
    Raises Invalid where the model has no such size.
    """
    asked, size = sent.image_config or ChatImageConfig(), "auto"
    if asked.aspect_ratio is not None or not images:
        size = size_of(
            model,
            aspect_ratio=asked.aspect_ratio,
            image_size=asked.image_size,
            pointer="#/image_config",
        )
    return GenerationSpec(drawing.prompt, size, as_bytes=True, model=sent.model, images=images)


def _images_of(message: ChatMessage, place: int) -> Iterator[NamedInput]:
    for member, parts in (("content", message.content), ("images", message.images or ())):
        for index, part in enumerate(parts):
            pointer = f"#/messages/{place}/{member}/{index}"
            if part.image_url is not None:
                yield NamedInput(f"{pointer}/image_url/url", part.image_url.url)
            elif part.type == "image" and part.url is not None:
                yield NamedInput(f"{pointer}/url", part.url)


def _prompt_of(message: ChatMessage, *, pointer: str) -> str:
    """The texts of the message, in lines. Raises Invalid where they are no prompt."""
    for index, part in enumerate(message.content):
        if part.type not in _MEMBERS or getattr(part, _MEMBERS[part.type]) is None:
            raise Invalid([{"pointer": f"{pointer}/{index}", "detail": "Must be a text, an image_url or an image"}])
    try:
        return _PROMPT.validate_python("\n".join(part.text for part in message.content if part.text))
    except ValidationError as error:
        reason = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise Invalid([{"pointer": pointer, "detail": f"The prompt is not valid: {reason}"}]) from None
