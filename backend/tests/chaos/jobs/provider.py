"""A provider that counts what it was asked for, and the models that it draws."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

from tests.features.generate.painted import PROVIDER_KEY
from tests.harness import looks
from tests.standins.gemini import image_bytes
from tests.standins.openai import MODEL, OpenAIStandIn, failed, in_place
from tests.standins.wire import Reply, Seen, serving

PLAIN, LAVISH = "plain", "lavish"
"""Of the second model, what may have been paid is bought again."""
_DRAWING_SECONDS_MAX = 0.3
_LOOK_SECONDS = 0.02
_IMAGE = in_place(image_bytes(1024, 1024))
_FILE = """
[models.{name}]
price = "0.05"
may_pay_twice = {may_pay_twice}
[[models.{name}.routes]]
provider = "openai"
base_url = "{url}/v1"
model = "{model}"
key = "OPENAI_API_KEY"
cost = "0.042"
"""


class CountingProvider:
    """Draws each prompt in a time of its own, or once the event is set that stands for it in `gates`."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        """By prompt."""
        self.gates: dict[str, asyncio.Event] = {}
        self.fails_every = 0
        """Of so many calls one fails; with 0, none."""
        self.settings: dict[str, str] = {}
        """Of a server or worker that draws with it."""
        self._stand_in = OpenAIStandIn(api_key=PROVIDER_KEY)

    def answer(self, seen: Seen) -> Reply:
        if seen.method != "POST":
            return self._stand_in.answer(seen)
        prompt = seen.json()["prompt"]
        self.calls[prompt] += 1
        if self.fails_every and self.calls.total() % self.fails_every == 0:
            return failed(500, "server_error")
        fraction = sha256(prompt.encode()).digest()[0] / 255
        gate = self.gates.get(prompt)
        return Reply(
            _IMAGE.content,
            headers=_IMAGE.headers,
            gate=gate,
            delay_seconds=0 if gate else fraction * _DRAWING_SECONDS_MAX,
        )

    async def until_asked(self, prompt: str, *, times: int = 1) -> None:
        """Returns once it was asked for this prompt so often."""
        for _ in looks():
            if self.calls[prompt] >= times:
                return
            await asyncio.sleep(_LOOK_SECONDS)
        raise AssertionError(f"asked {self.calls[prompt]} times for {prompt}")


@asynccontextmanager
async def counting_provider(folder: Path) -> AsyncIterator[CountingProvider]:
    provider = CountingProvider()
    async with serving(provider.answer) as url:
        models = [
            _FILE.format(name=name, may_pay_twice=str(name == LAVISH).lower(), url=url, model=MODEL)
            for name in (PLAIN, LAVISH)
        ]
        path = folder / "models-of-jobs.toml"
        path.write_text("".join([f'default = "{PLAIN}"\ncurrency = "USD"\n', *models]))
        provider.settings |= {"MODELS_FILE": str(path), "OPENAI_API_KEY": PROVIDER_KEY}
        yield provider
