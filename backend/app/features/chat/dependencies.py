"""What the route of chat completions depends on: a conversation that was read, and memory for its answer."""

from collections.abc import AsyncIterator
from typing import Annotated, NamedTuple

from fastapi import Depends

from app.core.byte_budget import ByteShare
from app.core.errors import Invalid
from app.features.admission import CurrentAdmission
from app.features.chat import service
from app.features.chat.schemas import ChatCompletionCreate
from app.features.dependencies import CurrentServices
from app.features.image_answers import answer_memory
from app.generations.spec import GenerationSpec, SentImage
from app.web.body import json_body


class AskedChat(NamedTuple):
    """The image that is to be made, or None for a request for text, and whether the answer is a stream."""

    spec: GenerationSpec | None
    model: str
    """The name of the model."""
    is_stream: bool


async def _asked(
    services: CurrentServices,
    admission: CurrentAdmission,
    sent: Annotated[ChatCompletionCreate, json_body(ChatCompletionCreate)],
) -> AskedChat:
    catalogue = services.generations.catalogue.catalogue
    model = catalogue.find(sent.model).name
    if not service.asks_for_image(sent, catalogue):
        await admission.give_back()
        return AskedChat(None, model, sent.stream or False)
    drawing = service.drawing_of(sent)
    images = [await _sent_image(each) for each in drawing.images]
    return AskedChat(service.spec_of(sent, drawing, images, catalogue), model, sent.stream or False)


async def _sent_image(sent: service.SentUrl) -> SentImage:
    raise Invalid([{"pointer": sent.pointer, "detail": "Images are not taken"}])


Asked = Annotated[AskedChat, Depends(_asked)]
"""What a conversation asks for. Raises what refuses it; a request for text has taken nothing from the limits."""


async def _answer_memory(
    services: CurrentServices, admission: CurrentAdmission, asked: Asked
) -> AsyncIterator[ByteShare]:
    plan = admission.plan(asked.spec) if asked.spec else None
    with answer_memory(services, plan, holds_images=asked.spec is not None) as memory:
        yield memory


AnswerMemory = Annotated[ByteShare, Depends(_answer_memory)]
"""The share of `answer_memory` that the response has."""
