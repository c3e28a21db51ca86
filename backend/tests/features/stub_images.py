"""Many images that the stub draws when they are looked at."""

import asyncio
from collections.abc import Sequence
from math import ceil
from pathlib import PurePosixPath

import httpx2
from tests.harness import Key

_IN_ONE_REQUEST = 10


async def image_paths(client: httpx2.AsyncClient, key: Key, count: int, *, size: str = "256x256") -> Sequence[str]:
    """The paths of so many new images, none of them drawn yet."""
    body = {"prompt": "A cute banana", "size": size, "n": _IN_ONE_REQUEST}
    asked = (
        client.post("/v1/images/generations", json=body, headers=key.headers)
        for _ in range(ceil(count / _IN_ONE_REQUEST))
    )
    urls = [each["url"] for answer in await asyncio.gather(*asked) for each in answer.json()["data"]]
    return [f"/v1/images/{PurePosixPath(url).name}" for url in urls[:count]]
