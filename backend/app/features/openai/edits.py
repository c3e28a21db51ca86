"""The body of a request for edits: a form with files, or JSON that names images."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from fastapi import Request

from app.core.blobs import Blob
from app.core.errors import Invalid, InvalidRequest, UnsupportedMedia, UnsupportedParameter
from app.core.long_text import ImageText
from app.core.schemas import Body
from app.features.input_images import NamedInput
from app.features.openai.schemas import UNSUPPORTED, ImageEdit, ImageEditForm, ImageOptions, ImageReference
from app.features.openai.service import check_honoured
from app.web.body import JSONBody, validated_texts
from app.web.headers import header_values
from app.web.multipart import FormPart, read_multipart

_IMAGE = re.compile(r"image(?:\[[0-9]{0,2}\])?", re.ASCII)


class SentEdit(NamedTuple):
    """What is asked for, and the images that go in."""

    options: ImageOptions
    images: Sequence[NamedInput]
    mask: NamedInput | None
    whole: str
    """The place of all images together."""


@dataclass(frozen=True)
class EditBody:
    """A dependency: the request's body, of either kind.

    Raises what JSONBody and `read_multipart` raise, UnsupportedMedia for any other kind, UnsupportedParameter, and
    Invalid without an image.
    """

    bodies: ClassVar[Mapping[str, type[Body]]] = {
        "multipart/form-data": ImageEditForm,
        "application/json": ImageEdit,
    }

    async def __call__(self, request: Request) -> SentEdit:
        media_type = "".join(header_values(request, b"content-type")).partition(";")[0].strip().lower()
        if media_type not in self.bodies:
            raise UnsupportedMedia(f"Send the body as Content-Type: {' or '.join(self.bodies)}")
        if media_type == "application/json":
            return _of_json(await _json_body(request))
        return _of_form(await read_multipart(request))


_json_body = JSONBody(ImageEdit)


def _of_json(sent: ImageEdit) -> SentEdit:
    check_honoured(sent)
    images = [_named(each, f"#/images/{index}") for index, each in enumerate(sent.images)]
    return SentEdit(sent, images, _named(sent.mask, "#/mask") if sent.mask else None, "#/images")


def _named(reference: ImageReference, pointer: str) -> NamedInput:
    member = "file_id" if reference.image_url is None else "image_url"
    return NamedInput(f"{pointer}/{member}", getattr(reference, member))


def _of_form(parts: Sequence[FormPart]) -> SentEdit:
    texts: dict[str, str] = {}
    images, masks = list[ImageText | Blob](), list[ImageText | Blob]()
    for name, content in parts:
        if _IMAGE.fullmatch(name):
            images.append(content)
        elif name == "mask":
            masks.append(content)
        elif isinstance(content, Blob):
            raise UnsupportedParameter(name if name in UNSUPPORTED else None, "Only image and mask can be files")
        elif name in texts:
            raise InvalidRequest("The form has the same field twice")
        elif content:  # the SDK for Python writes None as an empty text
            texts[name] = content
    options = validated_texts(ImageOptions, texts)
    check_honoured(options)
    if len(masks) > 1:
        raise InvalidRequest("The form has more than one mask")
    if not images:
        raise Invalid([{"pointer": "#/image", "detail": "Must be there"}])
    named = [NamedInput(f"#/image/{index}", each) for index, each in enumerate(images)]
    return SentEdit(options, named, NamedInput("#/mask", masks[0]) if masks else None, "#/image")
