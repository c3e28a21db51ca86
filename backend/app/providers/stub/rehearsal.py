"""What test keys can rehearse: prompts that make a generation fail as a real provider would make it fail."""

import re

from app.providers import (
    ContentRefused,
    DrawRequest,
    Image,
    Provider,
    ProviderError,
    ProviderFailed,
    ProviderTimeout,
    ProviderUnavailable,
    Size,
)

PROMPTS: dict[str, type[ProviderError]] = {
    "test:refuse": ContentRefused,
    "test:timeout": ProviderTimeout,
    "test:fail": ProviderFailed,
    "test:unavailable": ProviderUnavailable,
}
"""Each fails as its name says. With a number behind, such as `test:fail:2`, so many images of the request do."""

_PROMPT = re.compile(rf"({'|'.join(PROMPTS)})(?::([1-9][0-9]?))?", re.ASCII)


def is_rehearsal(prompt: str) -> bool:
    """Whether a test key's request with this prompt is to fail, or a part of its images."""
    return prompt.startswith("test:") and _PROMPT.fullmatch(prompt) is not None


class RehearsalProvider:
    """Draws as the stub does, but for the first images of a request, which fail as its prompt says.

    It takes the way of a provider that costs: its generations are recorded before they are drawn, and its images kept.
    """

    name = "rehearsal"
    is_deterministic = False

    def __init__(self, stub: Provider) -> None:
        self._stub = stub

    def refusal(self, size: Size | None) -> str | None:
        return self._stub.refusal(size)

    async def check(self) -> str:
        return "ok"

    async def draw(self, request: DrawRequest, *, deadline: float) -> Image:
        match = _PROMPT.fullmatch(request.prompt)
        if match is not None and (match[2] is None or request.place < int(match[2])):
            error = PROMPTS[match[1]]()
            raise error
        return await self._stub.draw(request, deadline=deadline)
