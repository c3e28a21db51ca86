"""OpenAI's SDK for Python, as its documentation calls it."""

from typing import Any

import loop
import openai


def _sdk(call: loop.Call) -> openai.OpenAI:
    return openai.OpenAI(base_url=call["base_url"], api_key=call["key"])


def generate(call: loop.Call) -> loop.Answer:
    """`client.images.generate(...)`."""
    answer = _sdk(call).images.generate(**call["arguments"])
    return {"images": [each.model_dump(exclude_none=True) for each in answer.data or []]}


def stream(call: loop.Call) -> loop.Answer:
    """`client.images.generate(stream=True, ...)`: its events, in order."""
    events: Any = _sdk(call).images.generate(stream=True, **call["arguments"])
    return {"events": [{"type": each.type, "b64_json": each.b64_json} for each in events]}


def models(call: loop.Call) -> loop.Answer:
    """`client.models.list()`: all ids."""
    return {"models": [each.id for each in _sdk(call).models.list()]}


def model(call: loop.Call) -> loop.Answer:
    """`client.models.retrieve(...)`: its id."""
    return {"models": [_sdk(call).models.retrieve(**call["arguments"]).id]}


loop.run(generate, stream, models, model)
