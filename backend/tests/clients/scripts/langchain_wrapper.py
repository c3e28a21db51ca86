"""LangChain's wrapper of image generation for Python."""

import loop
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper


def generate(call: loop.Call) -> loop.Answer:
    """`DallEAPIWrapper(...).run(prompt)`: URLs, a line each."""
    arguments = dict(call["arguments"])
    prompt = arguments.pop("prompt")
    wrapper = DallEAPIWrapper(base_url=call["base_url"], api_key=call["key"], **arguments)
    return {"images": [{"url": url} for url in wrapper.run(prompt).split("\n")]}


loop.run(generate)
