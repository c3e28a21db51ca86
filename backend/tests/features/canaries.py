"""Somebody whose every word can be told from all others, wherever it turns up."""

import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx2
from tests.harness import JSON


def canary(name: str) -> str:
    return f"canary-{name}-{secrets.token_hex(12)}"


@dataclass
class Caller:
    """Somebody whose every word is a canary, and all the answers that were got."""

    client: httpx2.AsyncClient
    email: str = field(default_factory=lambda: f"{canary('email')}@example.com")
    password: str = field(default_factory=lambda: canary("password"))
    new_password: str = field(default_factory=lambda: canary("new-password"))
    wrong_password: str = field(default_factory=lambda: canary("wrong"))
    name: str = field(default_factory=lambda: canary("name"))
    prompt: str = field(default_factory=lambda: canary("prompt"))
    other: str = field(default_factory=lambda: canary("other"))
    idempotency_key: str = field(default_factory=lambda: canary("idempotency"))
    token: str = ""
    ended_tokens: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    answers: list[httpx2.Response] = field(default_factory=list)

    async def call(self, method: str, path: str, credential: str = "", **request: Any) -> httpx2.Response:
        """Sends and keeps the answer. `credential` is a token or a key."""
        headers = {"Authorization": f"Bearer {credential}"} if credential else {}
        answer = await self.client.request(method, path, **{"headers": headers, **request})
        self.answers.append(answer)
        return answer

    async def create_key(self) -> JSON:
        made: JSON = (await self.call("POST", "/v1/keys", self.token, json={"name": self.name})).json()
        self.keys.append(made["key"])
        return made

    @property
    def credentials(self) -> dict[str, str]:
        return {"email": self.email, "password": self.password}

    @property
    def never_stored(self) -> set[str]:
        return {
            self.password,
            self.new_password,
            self.wrong_password,
            self.other,
            self.idempotency_key,
            *(part for token in (self.token, *self.ended_tokens) for part in token.split(".")[1:]),
            *(k[16:] for k in self.keys),
        }

    @property
    def never_told(self) -> set[str]:
        return self.never_stored | {self.email, self.name, self.prompt}
