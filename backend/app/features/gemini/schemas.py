"""What Google's clients send and expect. Members are in camelCase, or as the protocol behind it has them: `inlineData`,
`inline_data`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app.catalogue.ratios import AspectRatio, ImageSize
from app.core.long_text import ImageText
from app.core.schemas import Answer, Body, Storable, Text
from app.features.generate.schemas import not_blank

PROMPT_LENGTH_MAX = 32_000
IMAGES_MAX = 10
COMPRESSION_MAX = 100


class GoogleBody(Body):
    """A body of Google's clients, whose versions differ: members that are not known are ignored, null is left out."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel, validate_by_alias=True, validate_by_name=True)


Item = TypeVar("Item", bound=GoogleBody)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Several = Annotated[list[Item], BeforeValidator(_as_list, json_schema_input_type=list[Item] | Item)]
"""A list, or one item alone: Google takes both."""


class InlineData(GoogleBody):
    """An image. Its type is found in its bytes."""

    data: ImageText = Field(description="Base64, of the standard or of the URL-safe alphabet.")


class FileData(GoogleBody):
    """An image by its address, or by the id of an upload or of a generation."""

    file_uri: ImageText = Field(description="`https`, a `data:` URL, or an id such as `upl_...` or `gen_...`.")


class Part(GoogleBody):
    """A part of a turn: text or an image. Other parts are ignored."""

    text: Annotated[str, Storable] | None = None
    inline_data: InlineData | None = None
    file_data: FileData | None = None
    thought: bool | None = Field(default=None, description="A part that is true here is ignored.")


class Content(GoogleBody):
    """A turn of the user's, or of the model's."""

    role: Text | None = Field(default=None, description="`model` for a turn of the model's; any other is the user's.")
    parts: Several[Part] | None = None


class ImageConfig(GoogleBody):
    """The shape and the size of the image."""

    aspect_ratio: AspectRatio | None = None
    image_size: ImageSize | None = None


class GenerationConfig(GoogleBody):
    """How to draw."""

    response_modalities: list[Text] | None = Field(default=None, description="Must have `IMAGE`, if it is there.")
    image_config: ImageConfig | None = None
    candidate_count: int | None = Field(default=None, description="1, if it is there.")


class ContentGenerate(GoogleBody):
    """An image to be made of a conversation."""

    contents: Several[Content] = Field(examples=[[{"role": "user", "parts": [{"text": "A cute banana"}]}]])
    system_instruction: Content | None = Field(default=None, description="Its text is put before the prompt.")
    generation_config: GenerationConfig | None = None


class Instance(GoogleBody):
    """What is to be drawn."""

    prompt: Annotated[
        str,
        Field(min_length=1, max_length=PROMPT_LENGTH_MAX, examples=["A cute banana"]),
        Storable,
        AfterValidator(not_blank),
    ]


class OutputOptions(GoogleBody):
    """The format of the images."""

    mime_type: Literal["image/png", "image/jpeg", "image/webp"] | None = None
    compression_quality: Annotated[int, Field(ge=0, le=COMPRESSION_MAX)] | None = None


class Parameters(GoogleBody):
    """How many to draw, and how."""

    sample_count: Annotated[int, Field(ge=1, le=IMAGES_MAX)] | None = None
    aspect_ratio: AspectRatio | None = None
    sample_image_size: ImageSize | None = None
    output_options: OutputOptions | None = None
    include_rai_reason: bool | None = Field(
        default=None, description="Whether to say of each image that could not be made why."
    )


class Predict(GoogleBody):
    """Images to be made of a prompt."""

    instances: Annotated[Several[Instance], Field(min_length=1, max_length=1, examples=[[{"prompt": "A cute banana"}]])]
    parameters: Parameters | None = None


class GoogleAnswer(Answer):
    """A response as Google's clients read it."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)


class DrawnData(GoogleAnswer):
    """The bytes of an image."""

    mime_type: str = Field(examples=["image/png"])
    data: str = Field(description="Base64.")


class DrawnPart(GoogleAnswer):
    """An image."""

    inline_data: DrawnData


class DrawnContent(GoogleAnswer):
    """The turn of the model."""

    role: Literal["model"] = "model"
    parts: Sequence[DrawnPart]


class Candidate(GoogleAnswer):
    """What was drawn."""

    content: DrawnContent
    finish_reason: Literal["STOP"] = "STOP"
    index: int = 0


class PromptFeedback(GoogleAnswer):
    """Why nothing was drawn."""

    block_reason: Literal["PROHIBITED_CONTENT"] = "PROHIBITED_CONTENT"


class UsageMetadata(GoogleAnswer):
    """Nothing is counted in tokens here."""

    prompt_token_count: int = 0
    candidates_token_count: int = 0
    total_token_count: int = 0


class ContentGenerated(GoogleAnswer):
    """An image that was made, or why none was."""

    candidates: Sequence[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: UsageMetadata = UsageMetadata()
    model_version: str | None = Field(default=None, description="The model that drew.", examples=["nano-banana"])
    response_id: str | None = Field(default=None, examples=["gen_01kapn5vfe28fm63cjp43w44255s68"])


class Prediction(GoogleAnswer):
    """An image, or why it could not be made."""

    mime_type: str | None = Field(default=None, examples=["image/png"])
    bytes_base64_encoded: str | None = None
    rai_filtered_reason: str | None = None


class Predicted(GoogleAnswer):
    """The images that were made."""

    predictions: Sequence[Prediction]


class GoogleModel(GoogleAnswer):
    """A model, as Google lists one."""

    name: str = Field(examples=["models/gemini-2.5-flash-image"])
    display_name: str = Field(examples=["Nano Banana"])
    version: str = "001"
    input_token_limit: int = 32_768
    output_token_limit: int = 32_768
    supported_generation_methods: Sequence[str] = ("generateContent", "predict")


class GoogleModelList(GoogleAnswer):
    """All models, in one page."""

    models: Sequence[GoogleModel]
