"""What the route of chat completions depends on: a conversation that was read, and memory for its answer."""

from collections.abc import AsyncIterator
from typing import Annotated, NamedTuple

from fastapi import Depends, Request

from app.core.byte_budget import ByteShare
from app.features.admission import CurrentAdmission
from app.features.chat import service
from app.features.chat.schemas import ChatCompletionCreate
from app.features.dependencies import CurrentGenerations, CurrentServices
from app.features.image_answers import answer_memory
from app.features.keys.dependencies import fetch_caller
from app.generations.spec import GenerationSpec
from app.web.body import json_body


class AdmittedDrawing(NamedTuple):
    """The image that a conversation asks for, and the share of `answer_memory` that its answer has."""

    spec: GenerationSpec
    memory: ByteShare


class AdmittedChat(NamedTuple):
    """A conversation. It asks for an image, or else for text."""

    drawing: AdmittedDrawing | None
    is_stream: bool
    model: str = ""
    """The model's name, where it asks for text."""


async def _admitted(
    request: Request,
    services: CurrentServices,
    generations: CurrentGenerations,
    admission: CurrentAdmission,
    sent: Annotated[ChatCompletionCreate, json_body(ChatCompletionCreate)],
) -> AsyncIterator[AdmittedChat]:
    catalogue, is_stream = generations.catalogue.catalogue, sent.stream or False
    model = catalogue.get(sent.model)
    if not service.asks_for_image(sent, model):
        caller = await fetch_caller(request)  # no ledger checks the key of what is not recorded
        named = catalogue.find(sent.model, among=caller.models)
        await admission.give_back()
        yield AdmittedChat(None, is_stream, named.name)
        return
    drawing = service.drawing_of(sent)
    images = await admission.read_inputs(generations, drawing.images, images="#/messages", size="#/image_config")
    spec = service.spec_of(sent, drawing, images, model)
    with answer_memory(services, admission.plan(spec), holds_images=True) as memory:
        yield AdmittedChat(AdmittedDrawing(spec, memory), is_stream)


Admitted = Annotated[AdmittedChat, Depends(_admitted)]
"""What a conversation asks for. Raises what refuses it; a request for text has taken nothing from the limits."""
