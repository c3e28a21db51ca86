"""What Google's interface adds to the service that it shares: its requests as specs."""

from collections.abc import Collection, Sequence
from typing import cast

from app.catalogue.model import Catalogue, Model
from app.catalogue.ratios import size_of
from app.core.errors import UnsupportedParameter
from app.core.images import ImageFormat
from app.features.gemini.schemas import (
    COMPRESSION_MAX,
    ContentGenerate,
    GoogleModel,
    ImageConfig,
    OutputOptions,
    Parameters,
    Predict,
)
from app.generations.spec import GenerationSpec, SentImage

KNOWN_NAME = "gemini-2.5-flash-image"
"""The name by which clients of Google's know an image model."""

IMAGE_CONFIG, PARAMETERS = "#/generationConfig/imageConfig", "#/parameters"
"""Where a request says which ratio and size its images are to have."""

_LIKE_THE_IMAGE = "auto"


def check_honoured(sent: ContentGenerate) -> None:
    """Raises UnsupportedParameter for several candidates, and for an answer without an image."""
    config = sent.generation_config
    if config is None:
        return
    if config.candidate_count not in {None, 1}:
        raise UnsupportedParameter("candidateCount", "There is one candidate for each call; use :predict for several")
    modalities = config.response_modalities
    if modalities and "IMAGE" not in {each.upper() for each in modalities}:
        sentence = "Only images are made here: responseModalities must have IMAGE, or be left out"
        raise UnsupportedParameter("responseModalities", sentence)


def content_spec(
    sent: ContentGenerate, prompt: str, images: Sequence[SentImage], *, model: str, catalogue: Catalogue
) -> GenerationSpec:
    """The request of `generateContent`, for any dialect. An image that goes in gives it its shape unless it names one.

    Raises Invalid where the model has no such size.
    """
    asked = (sent.generation_config and sent.generation_config.image_config) or ImageConfig()
    size = _LIKE_THE_IMAGE
    if asked.aspect_ratio is not None or not images:
        size = size_of(
            catalogue.get(model),
            aspect_ratio=asked.aspect_ratio,
            image_size=asked.image_size,
            pointer=IMAGE_CONFIG,
        )
    return GenerationSpec(prompt, size, model=model, as_bytes=True, images=images)


def prediction_spec(sent: Predict, *, model: str, catalogue: Catalogue) -> GenerationSpec:
    """The request of `predict`, for any dialect. Raises Invalid where the model has no such size."""
    [instance], parameters = sent.instances, sent.parameters or Parameters()
    size = size_of(
        catalogue.get(model),
        aspect_ratio=parameters.aspect_ratio,
        image_size=parameters.sample_image_size,
        pointer=PARAMETERS,
    )
    output = parameters.output_options or OutputOptions()
    image_format = cast(ImageFormat, (output.mime_type or "image/png").removeprefix("image/"))
    quality = output.compression_quality
    return GenerationSpec(
        instance.prompt,
        size,
        image_format,
        parameters.sample_count or 1,
        as_bytes=True,
        model=model,
        compression=None if image_format == "png" or quality == COMPRESSION_MAX else quality,
    )


def names_failed(sent: Predict) -> bool:
    """Whether the response is to say of each image that could not be made why."""
    return bool(sent.parameters and sent.parameters.include_rai_reason)


def list_models(catalogue: Catalogue, among: Collection[str] | None) -> Sequence[GoogleModel]:
    """Each model, or each of a plan's, by its name and by its other names, the default one first. Where names of
    Google's that are nobody's mean the default model, one of them is among its names: some clients offer nothing else.
    """
    models = catalogue.models_for(among)
    names = {name: model for model in models for name in (model.name, *model.aliases)}
    if catalogue.has_built_in_aliases and catalogue.default in names:
        names.setdefault(KNOWN_NAME, catalogue.find(KNOWN_NAME))
    return [_listed(name, model) for name, model in names.items()]


def find_model(catalogue: Catalogue, name: str, among: Collection[str] | None) -> GoogleModel:
    """The model of this name or other name. Raises ModelNotFound."""
    model = catalogue.find(name, among=among)
    return _listed(model.name, model)


def _listed(name: str, model: Model) -> GoogleModel:
    return GoogleModel(name=f"models/{name}", display_name=model.title)
