"""The answer to a request for images: their URLs, or their bytes in base64."""

from collections.abc import Callable
from functools import partial

from fastapi import Response

from app.core.byte_budget import ByteShare
from app.features.image_answers import PLACE, answer_in_base64
from app.features.openai.schemas import Image, Images
from app.generations.collaborators import Generations
from app.generations.spec import Delivered, GenerationSpec


async def images_answer(
    generations: Generations,
    delivered: Delivered,
    spec: GenerationSpec,
    memory: ByteShare,
    *,
    when_read: Callable[[], None],
) -> Images | Response:
    """The images as the request wants them. `when_read` is called before the last byte of an answer with bytes is sent.
    Raises what `answer_in_base64` raises.
    """
    answer = partial(
        Images,
        created=int(delivered.created_at.timestamp()),
        size=delivered.size,
        output_format=delivered.format,
        quality=None if delivered.quality == "auto" else delivered.quality,
        errors=delivered.errors or None,
    )
    if not spec.as_bytes:
        data = [Image(url=url) for url in delivered.urls]
        return answer(data=data)
    frame = answer(data=[Image(b64_json=PLACE)] * len(delivered.ids)).model_dump_json(exclude_none=True)
    return await answer_in_base64(generations, delivered, frame, memory, when_read=when_read)
