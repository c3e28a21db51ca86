"""litellm, as its documentation calls an OpenAI-compatible endpoint."""

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


def gemini_chat(call: loop.Call) -> loop.Answer:
    """`litellm.completion(model="gemini/...", ...)`: the images of the answer."""
    arguments = dict(call["arguments"])
    messages = [{"role": "user", "content": arguments.pop("prompt")}]
    answer = litellm.completion(api_base=f"{call['base_url']}beta", api_key=call["key"], messages=messages, **arguments)
    images = answer.choices[0].message.images
    return {"images": [{"b64_json": each["image_url"]["url"].partition("base64,")[2]} for each in images]}


def models(call: loop.Call) -> loop.Answer:
    """`litellm.get_valid_models(...)`: what the endpoint lists."""
    found = litellm.get_valid_models(
        check_provider_endpoint=True,
        custom_llm_provider="openai",
        api_base=call["base_url"].removesuffix("/v1"),
        api_key=call["key"],
    )
    return {"models": found}


loop.run(generate, gemini, gemini_chat, models)
