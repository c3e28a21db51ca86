"""libvips, for the two steps that take most of the time of an image: decoding a PNG, and scaling pixels down.

Both run in the calling thread alone, with its priority. libvips is reached through the C module of the wheel
pyvips-binary, since pyvips itself has no wheel (decision 25). No loader but that of PNG can be called.
"""

import os
from typing import Any

from _libvips import ffi, lib
from PIL import Image as Pillow

Box = tuple[int, int, int, int]
"""Left, top, right and bottom: the last two are outside."""

_OUT, _ROWS = b"out", 32


class VipsError(ValueError):
    """libvips refused the bytes. The error quotes none of them."""


def decode_png(content: bytes, mode: str, box: Box, size: tuple[int, int]) -> Pillow.Image:
    """`box` of a PNG whose header states 8 bits a sample and the colours of `mode`, scaled down to `size` by Lanczos'
    filter. An image with transparency must not be scaled: its transparent pixels would lend their colour.

    Raises VipsError where the pixels cannot be decoded, or are others than the header states.
    """
    source = _owned(lib.vips_source_new_from_memory(ffi.from_buffer(content), len(content)))
    image = _output(b"pngload_source", b"source", source, "access=sequential,fail_on=error")
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    area = _output(b"extract_area", b"input", image, f"left={left},top={top},width={width},height={height}")
    return _read(_scaled(area, (width, height), size), mode, size)


def shrink(image: Pillow.Image, size: tuple[int, int]) -> Pillow.Image:
    """The image scaled down to `size`, which is larger in no direction, by Lanczos' filter. It must be RGB, or RGBa: in
    RGBA transparent pixels would lend their colour.
    """
    pixels = ffi.from_buffer(image.tobytes())  # libvips reads them where they are, until this function ends
    whole = _owned(lib.vips_image_new_from_memory(pixels, len(pixels), *image.size, len(image.mode), 0))
    return _read(_scaled(whole, image.size, size), image.mode, size)


def _scaled(image: Any, before: tuple[int, int], size: tuple[int, int]) -> Any:
    if size == before:
        return image
    return _output(b"resize", b"in", image, f"scale={size[0] / before[0]!r},vscale={size[1] / before[1]!r}")


def _output(operation: bytes, name: bytes, value: Any, options: str) -> Any:
    """The image that an operation returns, with `value` as its argument `name`. No pixel is computed yet."""
    planned = _owned(lib.vips_operation_new(operation))
    argument = _gvalue(value.g_type_instance.g_class.g_type)
    lib.g_value_set_object(argument, value)
    lib.g_object_set_property(planned, name, argument)
    if lib.vips_object_set_from_string(ffi.cast("VipsObject*", planned), options.encode()):
        raise _error()
    built = _owned(lib.vips_cache_operation_build(ffi.cast("VipsOperation*", planned)))
    result = _gvalue(lib.g_type_from_name(b"VipsImage"))
    lib.g_object_get_property(built, _OUT, result)
    lib.vips_object_unref_outputs(ffi.cast("VipsObject*", built))
    image = lib.g_value_get_object(result)
    lib.g_object_ref(image)
    return _owned(image)


def _read(image: Any, mode: str, size: tuple[int, int]) -> Pillow.Image:
    """The pixels of the image. They are computed by this call, in this thread, some rows at a time."""
    region = _owned(lib.vips_region_new(ffi.cast("VipsImage*", image)))
    (width, height), length, read = size, ffi.new("size_t*"), Pillow.new(mode, size)
    for top in range(0, height, _ROWS):
        rows = min(_ROWS, height - top)
        pixels = lib.vips_region_fetch(ffi.cast("VipsRegion*", region), 0, top, width, rows, length)
        fetched = ffi.gc(pixels, lib.g_free)
        if not fetched or length[0] != width * rows * len(mode):
            raise _error()
        read.paste(Pillow.frombytes(mode, (width, rows), ffi.buffer(fetched, length[0])), (0, top))
    return read


def _owned(pointer: Any) -> Any:
    """The GObject at a pointer that owns a reference, which is given back when the result is gone. A cast of the result
    does not hold it.
    """
    if not pointer:
        raise _error()
    return ffi.gc(ffi.cast("GObject*", pointer), lib.g_object_unref)


def _gvalue(kind: int) -> Any:
    value = ffi.gc(ffi.new("GValue*"), lib.g_value_unset)
    lib.g_value_init(value, kind)
    return value


def _error() -> VipsError:
    lib.vips_error_clear()  # all threads share one buffer of messages, which would grow
    return VipsError()


def _start() -> None:
    os.environ.setdefault("VIPS_WARNING", "0")  # nothing about an image on standard error
    if lib.vips_init(b"nanobanana"):
        raise _error()
    lib.vips_cache_set_max(0)
    lib.vips_operation_block_set(b"VipsForeign", 1)
    lib.vips_operation_block_set(b"VipsForeignLoadPng", 0)


_start()
