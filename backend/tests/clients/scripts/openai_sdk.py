"""OpenAI's SDK for Python, as its documentation calls it."""

import base64
import io
from typing import Any

import loop
import openai


def _sdk(call: loop.Call) -> openai.OpenAI:
    return openai.OpenAI(base_url=call["base_url"], api_key=call["key"])


def generate(call: loop.Call) -> loop.Answer:
    """`client.images.generate(...)`."""
    answer = _sdk(call).images.generate(**call["arguments"])
    return {"images": [each.model_dump(exclude_none=True) for each in answer.data or []]}


def later(call: loop.Call) -> loop.Answer:
    """The same with `Prefer: respond-async`, then `client.get(...)` of the generation until it has ended."""
    sdk = _sdk(call)
    accepted: Any = sdk.images.generate(**call["arguments"], extra_headers={"Prefer": "respond-async"})
    shown: Any = {"status": "queued"}
    while shown["status"] in {"queued", "processing"}:
        shown = sdk.get(f"/generations/{accepted.id}", cast_to=object, options={"params": {"wait": 30}})
    return {"images": [{"url": each["url"]} for each in shown["outputs"]]}


def stream(call: loop.Call) -> loop.Answer:
    """`client.images.generate(stream=True, ...)`: its events, in order."""
    events: Any = _sdk(call).images.generate(stream=True, **call["arguments"])
    return {"events": [{"type": each.type, "b64_json": each.b64_json} for each in events]}


def edit(call: loop.Call) -> loop.Answer:
    """`client.images.edit(...)`."""
    answer = _sdk(call).images.edit(**_with_files(call["arguments"]))
    return {"images": [each.model_dump(exclude_none=True) for each in answer.data or []]}


def edit_stream(call: loop.Call) -> loop.Answer:
    """`client.images.edit(stream=True, ...)`: its events, in order."""
    events: Any = _sdk(call).images.edit(stream=True, **_with_files(call["arguments"]))
    return {"events": [{"type": each.type, "b64_json": each.b64_json} for each in events]}


def _with_files(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with files instead of base64: a list if there are several, and open ones `as_stream`."""
    rest = {name: value for name, value in arguments.items() if name not in {"images", "mask", "as_stream"}}
    images: list[Any] = [("in.png", base64.b64decode(each), "image/png") for each in arguments["images"]]
    if arguments.get("as_stream"):
        images = [io.BytesIO(content) for _, content, _ in images]
    if "mask" in arguments:
        rest["mask"] = base64.b64decode(arguments["mask"])
    return {**rest, "image": images if len(images) > 1 else images[0]}


def models(call: loop.Call) -> loop.Answer:
    """`client.models.list()`: all ids."""
    return {"models": [each.id for each in _sdk(call).models.list()]}


def model(call: loop.Call) -> loop.Answer:
    """`client.models.retrieve(...)`: its id."""
    return {"models": [_sdk(call).models.retrieve(**call["arguments"]).id]}


loop.run(generate, later, stream, edit, edit_stream, models, model)
