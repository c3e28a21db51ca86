"""litellm, as its documentation calls an OpenAI-compatible endpoint."""

import base64
import io

import litellm
import loop


def generate(call: loop.Call) -> loop.Answer:
    """`litellm.image_generation(model="openai/...", ...)`."""
    answer = litellm.image_generation(api_base=call["base_url"], api_key=call["key"], **call["arguments"])
    images = (each.model_dump() for each in answer.data or [])
    return {"images": [{name: image[name] for name in ("url", "b64_json") if image.get(name)} for image in images]}


def gemini(call: loop.Call) -> loop.Answer:
    """`litellm.image_generation(model="gemini/...", ...)`."""
    return generate({**call, "base_url": f"{call['base_url']}beta"})


def gemini_edit(call: loop.Call) -> loop.Answer:
    """`litellm.image_edit(model="gemini/...", ...)`."""
    arguments = dict(call["arguments"])
    images = [base64.b64decode(each) for each in arguments.pop("images")]
    answer = litellm.image_edit(api_base=f"{call['base_url']}beta", api_key=call["key"], image=images, **arguments)
    return {"images": [{"b64_json": each.b64_json} for each in answer.data or []]}


def gemini_chat(call: loop.Call) -> loop.Answer:
    """`litellm.completion(model="gemini/...", ...)`: the images of the answer."""
    arguments = dict(call["arguments"])
    images = [f"data:image/png;base64,{each}" for each in arguments.pop("images", ())]
    content = [{"type": "image_url", "image_url": {"url": each}} for each in images]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": arguments.pop("prompt")}]}]
    answer = litellm.completion(api_base=f"{call['base_url']}beta", api_key=call["key"], messages=messages, **arguments)
    made = answer.choices[0].message.images
    return {"images": [{"b64_json": each["image_url"]["url"].partition("base64,")[2]} for each in made]}


def edit(call: loop.Call) -> loop.Answer:
    """`litellm.image_edit(model="openai/...", ...)`, or `openrouter/...`."""
    arguments = dict(call["arguments"])
    images = [io.BytesIO(base64.b64decode(each)) for each in arguments.pop("images")]
    if "mask" in arguments:
        arguments["mask"] = io.BytesIO(base64.b64decode(arguments["mask"]))
    answer = litellm.image_edit(image=images, api_base=call["base_url"], api_key=call["key"], **arguments)
    return {"images": [{"b64_json": each.b64_json} for each in answer.data or []]}


def models(call: loop.Call) -> loop.Answer:
    """`litellm.get_valid_models(...)`: what the endpoint lists."""
    found = litellm.get_valid_models(
        check_provider_endpoint=True,
        custom_llm_provider="openai",
        api_base=call["base_url"].removesuffix("/v1"),
        api_key=call["key"],
    )
    return {"models": found}


loop.run(generate, edit, gemini, gemini_edit, gemini_chat, models)
