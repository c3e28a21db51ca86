"""Google's SDK for Python, as its documentation calls it."""

import base64
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import loop
from google import genai
from google.genai import types
from PIL import Image


def _sdk(call: loop.Call) -> genai.Client:
    address = call["base_url"].removesuffix("/v1")
    return genai.Client(api_key=call["key"], http_options=types.HttpOptions(base_url=address))


def _config(config: dict[str, Any] | None) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(**config or {})


def _answer(responses: Iterable[Any]) -> loop.Answer:
    """The images of these responses, or why there is none."""
    responses = list(responses)
    if blocked := [each.prompt_feedback.block_reason.value for each in responses if each.prompt_feedback]:
        return {"blocked": blocked}
    parts = [part for each in responses for part in each.candidates[0].content.parts]
    return {"images": [{"b64_json": base64.b64encode(part.inline_data.data).decode()} for part in parts]}


def _contents(prompt: str, images: Iterable[str]) -> list[Any]:
    return [*(Image.open(BytesIO(base64.b64decode(each))) for each in images), prompt]


def generate(call: loop.Call) -> loop.Answer:
    """`client.models.generate_content(...)`, with PIL's images."""
    prompt, model, images, config = _arguments(call)
    with _sdk(call) as client:
        contents = _contents(prompt, images)
        return _answer([client.models.generate_content(model=model, contents=contents, config=_config(config))])


def stream(call: loop.Call) -> loop.Answer:
    """`client.models.generate_content_stream(...)`."""
    prompt, model, images, config = _arguments(call)
    with _sdk(call) as client:
        contents = _contents(prompt, images)
        return _answer(client.models.generate_content_stream(model=model, contents=contents, config=_config(config)))


def chat(call: loop.Call) -> loop.Answer:
    """`client.chats.create(...)`, and a second message about the first one's image."""
    prompt, model, images, config = _arguments(call)
    with _sdk(call) as client:
        chat = client.chats.create(model=model, config=_config(config))
        return _answer([chat.send_message(_contents(prompt, images)), chat.send_message("Make it blue")])


def imagen(call: loop.Call) -> loop.Answer:
    """`client.models.generate_images(...)`, which the SDK has before 3."""
    with _sdk(call) as client:
        models: Any = client.models
        made = models.generate_images(**call["arguments"]).generated_images
    return {"images": [{"b64_json": base64.b64encode(each.image.image_bytes).decode()} for each in made]}


def models(call: loop.Call) -> loop.Answer:
    """`client.models.list()`: all names."""
    with _sdk(call) as client:
        return {"models": [str(each.name).removeprefix("models/") for each in client.models.list()]}


def model(call: loop.Call) -> loop.Answer:
    """`client.models.get(...)`: its name."""
    with _sdk(call) as client:
        return {"models": [str(client.models.get(**call["arguments"]).name).removeprefix("models/")]}


def _arguments(call: loop.Call) -> tuple[str, str, list[str], dict[str, Any] | None]:
    arguments = call["arguments"]
    return arguments["prompt"], arguments["model"], arguments.get("images", []), arguments.get("config")


loop.run(generate, stream, chat, imagen, models, model)
