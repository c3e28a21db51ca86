"""PNGs that are written here are whole, and have the pixels and the profile that they are given."""

from io import BytesIO

import pytest
from app.providers.png import encode_png
from app.providers.structure import check_whole
from PIL import Image as Pillow


@pytest.mark.parametrize("height", [1, 63, 64, 65, 129])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("profile", [None, b"profile" * 99])
def test_an_image_is_read_back_as_it_was(mode: str, height: int, profile: bytes | None) -> None:
    image = Pillow.merge(mode, [Pillow.effect_noise((33, height), 99) for _ in mode])
    content = encode_png(image, profile)
    check_whole(content, "png")
    with Pillow.open(BytesIO(content)) as read:
        assert (read.format, read.mode, read.size, read.info.get("icc_profile")) == ("PNG", mode, image.size, profile)
        assert read.tobytes() == image.tobytes()
