"""Images as clients name them."""

import re
from base64 import b64decode

from app.core.errors import Invalid
from app.generations.collaborators import Generations
from app.generations.spec import SentImage


async def read_sent_image(generations: Generations, text: str, *, pointer: str) -> SentImage:
    """What the text names. Raises Invalid."""
    if text.startswith(("upl_", "gen_")):
        return text
    if text.startswith("data:"):
        return await generations.blobs.keep(b64decode(text.partition(",")[2]))
    own = re.fullmatch(re.escape(generations.public_url) + r"/v1/images/(gen_[a-z0-9]+)\.[a-z]+", text)
    if own:
        return own[1]
    if text.startswith("https://"):
        return text
    raise Invalid([{"pointer": pointer, "detail": "Must be a data: URL, an id or an https URL"}])
