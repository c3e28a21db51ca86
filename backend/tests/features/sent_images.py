"""Images that a client sends in."""

from base64 import b64encode
from io import BytesIO

from PIL import Image


def png(width: int = 96, height: int = 64, colour: str = "tomato") -> bytes:
    """One of one colour."""
    encoded = BytesIO()
    Image.new("RGB", (width, height), colour).save(encoded, "PNG")
    return encoded.getvalue()


def mask_png(width: int = 64, height: int = 64) -> bytes:
    """A mask whose left half may change."""
    mask, encoded = Image.new("RGBA", (width, height), "black"), BytesIO()
    mask.paste((0, 0, 0, 0), (0, 0, width // 2, height))
    mask.save(encoded, "PNG")
    return encoded.getvalue()


def data_url(content: bytes) -> str:
    """The bytes as a `data:` URL."""
    return f"data:image/png;base64,{b64encode(content).decode()}"
