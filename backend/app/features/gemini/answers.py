"""Responses with images in Google's format."""

from app.core.images import MEDIA_TYPES
from app.features.gemini.schemas import (
    Candidate,
    ContentGenerated,
    DrawnContent,
    DrawnData,
    DrawnPart,
    Predicted,
    Prediction,
    PromptFeedback,
)
from app.features.image_answers import PLACE
from app.generations.spec import Delivered
from app.providers import ContentRefused

BLOCKED = ContentGenerated(prompt_feedback=PromptFeedback())
"""The response for what the provider refuses to draw: nothing is counted."""


def content_frame(delivered: Delivered) -> str:
    """The response with the image, which stands where PLACE is."""
    data = DrawnData(mime_type=MEDIA_TYPES[delivered.format], data=PLACE)
    drawn = Candidate(content=DrawnContent(parts=[DrawnPart(inline_data=data)]))
    answer = ContentGenerated(candidates=[drawn], model_version=delivered.model, response_id=delivered.id)
    return answer.model_dump_json(exclude_none=True)


def prediction_frame(delivered: Delivered, *, names_failed: bool) -> str:
    """The response with the images, each where a PLACE is, and with those that could not be made if it is to name
    them.
    """
    made = Prediction(mime_type=MEDIA_TYPES[delivered.format], bytes_base64_encoded=PLACE)
    predictions = [made] * len(delivered.ids)
    for failed in delivered.errors if names_failed else ():
        predictions.insert(failed.index, Prediction(rai_filtered_reason=f"It could not be made: {failed.code}"))
    return Predicted(predictions=predictions).model_dump_json(exclude_none=True)


def refused_prediction(*, names_failed: bool) -> Predicted:
    """The response for what the provider refuses to draw: nothing is counted."""
    return Predicted(predictions=[Prediction(rai_filtered_reason=ContentRefused.detail)] if names_failed else [])
