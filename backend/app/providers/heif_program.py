"""A program of its own: decodes a HEIC or AVIF file from its standard input, and writes the image, upright, as JPEG to
its standard output, or as PNG where it is transparent or has more than 8 bits a sample.

Files from strangers have led libheif's bindings to write beyond their memory. Here that ends this process alone, which
has no secrets and bounded memory and time. It imports nothing of the application, so that it starts in 60 ms.
"""

import resource
import sys
from io import BytesIO
from typing import BinaryIO

import pi_heif
from PIL import AvifImagePlugin, ImageOps
from PIL import Image as Pillow

_LIMITS = {resource.RLIMIT_AS: 2 * 2**30, resource.RLIMIT_CPU: 30, resource.RLIMIT_CORE: 0}
"""Bytes and seconds. A photograph of 50 megapixels takes 400 MiB and 2 seconds."""


def main() -> None:
    """Ends with another code than 0 for a file that cannot be decoded."""
    for limit, most in _LIMITS.items():
        _, allowed = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if allowed == resource.RLIM_INFINITY else min(most, allowed), allowed))
    convert(sys.stdin.buffer.read(), sys.stdout.buffer)


def convert(content: bytes, output: BinaryIO) -> None:
    """Writes the image in the file, upright, with its colour profile. Raises whatever the decoders do."""
    image = _decoded(content)
    profile = image.info.get("icc_profile")
    if image.mode in {"RGB", "L"}:
        image.save(output, "JPEG", quality=95, subsampling=0, icc_profile=profile)
    else:
        image.save(output, "PNG", compress_level=1, icc_profile=profile)


def _decoded(content: bytes) -> Pillow.Image:
    if content[8:12] == b"avif":
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        opened = Pillow.open(BytesIO(content), formats=["AVIF"])
        return ImageOps.exif_transpose(opened)  # Pillow has the orientation from the boxes
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False
    turned: Pillow.Image = pi_heif.open_heif(content).to_pillow()
    return turned


if __name__ == "__main__":
    main()
