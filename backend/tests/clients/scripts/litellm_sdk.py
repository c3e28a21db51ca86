"""litellm, as its documentation calls an OpenAI-compatible endpoint."""

import litellm
import loop


def generate(call: loop.Call) -> loop.Answer:
    """`litellm.image_generation(model="openai/...", ...)`."""
    answer = litellm.image_generation(api_base=call["base_url"], api_key=call["key"], **call["arguments"])
    images = (each.model_dump() for each in answer.data or [])
    return {"images": [{name: image[name] for name in ("url", "b64_json") if image.get(name)} for image in images]}


def models(call: loop.Call) -> loop.Answer:
    """`litellm.get_valid_models(...)`: what the endpoint lists."""
    found = litellm.get_valid_models(
        check_provider_endpoint=True,
        custom_llm_provider="openai",
        api_base=call["base_url"].removesuffix("/v1"),
        api_key=call["key"],
    )
    return {"models": found}


loop.run(generate, models)
