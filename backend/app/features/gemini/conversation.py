"""What of a conversation goes into an image: the user's last turn, and the image that it is about."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from app.catalogue.model import REFERENCES_MAX
from app.core.errors import Invalid
from app.features.gemini.schemas import PROMPT_LENGTH_MAX, Content, ContentGenerate, FileData, InlineData

_MODEL = "model"


class SentPart(NamedTuple):
    """An image of a conversation, and the JSON Pointer to it."""

    image: InlineData | FileData
    pointer: str


class Conversation(NamedTuple):
    """What is asked for in the end."""

    prompt: str
    images: Sequence[SentPart]
    """The last one of all earlier turns, which is what the user asks to change, and then those of the last turn."""


def read_conversation(sent: ContentGenerate) -> Conversation:
    """The text of the user's last turn, after the system instruction's, and its images. What follows the last turn of
    the model's is one turn of the user's. Raises Invalid where that has no text, too long a one or too many images.
    """
    turns = list(enumerate(sent.contents))
    while turns and turns[-1][1].role == _MODEL:
        turns.pop()
    start = next((place + 1 for place, turn in reversed(turns) if turn.role == _MODEL), 0)
    earlier, last = turns[:start], turns[start:]
    asked = "\n".join(text for _, turn in last for text in _texts(turn))
    if not asked.strip():
        raise Invalid([{"pointer": "#/contents", "detail": "The user's last turn must have a text"}])
    instruction = "\n".join(_texts(sent.system_instruction)) if sent.system_instruction else ""
    prompt = f"{instruction}\n\n{asked}" if instruction.strip() else asked
    images = [*list(_images(earlier))[-1:], *_images(last)]
    if len(prompt) > PROMPT_LENGTH_MAX:
        raise Invalid([{"pointer": "#/contents", "detail": f"Should have at most {PROMPT_LENGTH_MAX} characters"}])
    if len(images) > REFERENCES_MAX:
        raise Invalid([{"pointer": "#/contents", "detail": f"Should have at most {REFERENCES_MAX} images"}])
    return Conversation(prompt, images)


def _texts(turn: Content) -> Iterator[str]:
    for part in turn.parts or ():
        if part.text and not part.thought:
            yield part.text


def _images(turns: Iterable[tuple[int, Content]]) -> Iterator[SentPart]:
    for place, turn in turns:
        for number, part in enumerate(turn.parts or ()):
            pointer = f"#/contents/{place}/parts/{number}"
            if part.thought:
                continue
            if part.inline_data is not None:
                yield SentPart(part.inline_data, f"{pointer}/inlineData/data")
            if part.file_data is not None:
                yield SentPart(part.file_data, f"{pointer}/fileData/fileUri")
