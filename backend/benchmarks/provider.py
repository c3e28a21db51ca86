"""A provider in a process of its own, speaking Gemini's protocol: it takes its time, or sends large pictures.

Asked for `/held`, it tells how many calls it holds, the most that it has held, and how many it
has answered.
"""

import asyncio
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from hashlib import shake_256
from io import BytesIO

import uvloop
from benchmarks.machine import Server, free_port, serving
from PIL import Image
from tests.standins import wire
from tests.standins.gemini import GeminiStandIn, drawn

API_KEY = "key-of-the-provider"


def provider(*, side: int, delay_seconds: float = 0, is_noise: bool = False) -> AbstractContextManager[Server]:
    """Draws the same square picture for everybody: one colour, or noise, which no encoder makes smaller."""
    port = free_port()
    arguments = (str(port), str(side), str(delay_seconds), "noise" if is_noise else "plain")
    return serving("benchmarks.provider", *arguments, port=port)


def settings(upstream: Server, *, side: int) -> dict[str, str]:
    """What makes a server draw with it, in its size only."""
    return {
        "IMAGE_PROVIDER": "gemini",
        "GEMINI_API_KEY": API_KEY,
        "GEMINI_BASE_URL": upstream.url,
        "GEMINI_SIZES": f"{side}x{side}=1:1/1K",
    }


async def draw(port: int, picture: bytes, delay_seconds: float) -> None:
    gemini, reply = GeminiStandIn(api_key=API_KEY), drawn(picture)
    loop, held, most, calls = asyncio.get_running_loop(), 0, 0, 0

    def leave() -> None:
        nonlocal held
        held -= 1

    def answer(seen: wire.Seen) -> wire.Reply:
        nonlocal held, most, calls
        if seen.target == "/held":
            return wire.json_reply({"now": held, "most": most, "calls": calls})
        refused = gemini.answer(seen)
        gemini.seen.clear()
        if refused.status != reply.status:
            return refused
        held += 1
        calls += seen.method == "POST"
        most = max(most, held)
        loop.call_later(delay_seconds, leave)
        return replace(reply, delay_seconds=delay_seconds)

    async with wire.serving(answer, port=port):
        await asyncio.Event().wait()


def square(side: int, kind: str) -> bytes:
    encoded = BytesIO()
    colours = shake_256(kind.encode()).digest(3 * side * side) if kind == "noise" else bytes((255, 204, 44)) * side**2
    Image.frombytes("RGB", (side, side), colours).save(encoded, "PNG")
    return encoded.getvalue()


if __name__ == "__main__":
    number, side, delay_seconds, kind = sys.argv[1:]
    uvloop.run(draw(int(number), square(int(side), kind), float(delay_seconds)))
