"""The answer to a request for images: their URLs, their bytes in base64, or events."""

from functools import partial

from fastapi import Request, Response

from app.features.admission import Admission
from app.features.dependencies import generations_of
from app.features.generate.asynchronous import accepted_response, generate_asynchronously
from app.features.image_answers import MODEL_HEADER, PLACE, answer_in_base64
from app.features.openai.dependencies import AdmittedRequest
from app.features.openai.schemas import Image, Images
from app.features.openai.streaming import stream_answer
from app.generations.errors import AcceptedBefore
from app.generations.spec import Delivered
from app.web.headers import add_response_headers


async def images_answer(
    request: Request, admission: Admission, admitted: AdmittedRequest, *, route: str
) -> Images | Response:
    """The images as the request wants them, or a 202. Raises what `Admission.generate`, `generate_asynchronously` and
    `answer_in_base64` raise.
    """
    spec, partials, memory, terms = admitted
    if partials is not None:
        return await stream_answer(request, admission, spec, memory, partials=partials, route=route)
    try:
        if terms is None:
            delivered: Delivered | Response = await admission.generate(spec, route=route)
        else:
            delivered = await generate_asynchronously(request, admission, spec, route=route, terms=terms)
    except AcceptedBefore as before:
        delivered = await accepted_response(request, admission.caller, before.generation_id)
    if isinstance(delivered, Response):
        return delivered
    add_response_headers(request, {MODEL_HEADER: delivered.model.encode()})
    answer = partial(
        Images,
        created=int(delivered.created_at.timestamp()),
        size=delivered.size,
        output_format=delivered.format,
        quality=None if delivered.quality == "auto" else delivered.quality,
        errors=delivered.errors or None,
    )
    if not spec.as_bytes:
        return answer(data=[Image(url=url) for url in delivered.urls])
    frame = answer(data=[Image(b64_json=PLACE)] * len(delivered.ids)).model_dump_json(exclude_none=True)
    return await answer_in_base64(generations_of(request), delivered, frame, memory, when_read=admission.release)
