"""A database as the version before leaves it, filled by plain SQL: a row of every kind."""

import json
import secrets
import time
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256

import asyncpg
from app.core.security import hash_password, new_id, new_timed_id
from tests.harness import PASSWORD, Key

ONE_IMAGE, IMAGES = "/v1/generate", "/v1/images/generations"
LEASE = timedelta(minutes=2)
_PASSWORD_HASH = hash_password(PASSWORD)
_DAY_SECONDS = 86_400

_USER = """
insert into users (id, email, password_hash, is_active, generate_limit, generate_limit_per_key,
  generate_concurrency_per_key, token_generation) values ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_SESSION = "insert into browser_sessions (token_hash, user_id, expires_at) values ($1, $2, now() + interval '1 day')"
_KEY = """
insert into api_keys (id, user_id, name, environment, prefix, key_hash, revoked_at, is_suspended, generate_limit,
  generate_concurrency, last_used_at)
values ($1, $2, $3, $4, left($5, 16), sha256($5::bytea), case when $6 then now() end, $7, $8, $9, now())
"""
_GENERATION = """
insert into generations (id, key_id, prompt, size, provider, status, format, created_at, delivered_at, deleted_at)
values ($1, $2, 'A cute banana', '64x64', $3, $4, $5, now() - $6::interval,
  case when $4 = 'delivered' then now() - $6::interval end, case when $7 then now() end)
"""
_CLAIM = """
insert into claims (scope, fingerprint, generation_id, other_ids, lease_until) values ($1, $2, $3, $4, now() + $5)
"""
_COUNT = """
insert into usage select key_id, (delivered_at at time zone 'UTC')::date, count(*) from generations
where status = 'delivered' group by 1, 2
"""


def digest(*parts: str) -> bytes:
    """How the version before made scopes and fingerprints of idempotency keys."""
    return sha256(json.dumps(parts).encode()).digest()


@dataclass
class Person:
    """A user of the version before, with what it logs in with."""

    id: str = field(default_factory=lambda: new_id("usr"))
    email: str = field(default_factory=lambda: f"{secrets.token_hex(8)}@example.com")
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    token_generation: int = 3
    keys: dict[str, Key] = field(default_factory=dict)

    @property
    def account_id(self) -> str:
        return f"acc_{self.id[4:]}"


@dataclass
class Rows:
    """What was written, by name."""

    database: asyncpg.Connection
    ada: Person = field(default_factory=Person)
    bob: Person = field(default_factory=Person)
    """Disabled."""
    generations: dict[str, str] = field(default_factory=dict)

    async def write(self) -> None:
        await self._user(self.ada, limits=("600/minute", "500/minute", 7))
        await self._user(self.bob, is_active=False)
        await self._key(self.ada, "live")
        await self._key(self.ada, "test", environment="test")
        await self._key(self.ada, "revoked", is_revoked=True)
        await self._key(self.ada, "limited", limits=("5/hour", 3))
        await self._key(self.bob, "live", is_suspended=True)
        await self._every_status()
        await self._claimed()
        await self.database.execute(_COUNT)

    async def _user(
        self,
        person: Person,
        *,
        is_active: bool = True,
        limits: tuple[str | None, str | None, int | None] = (None, None, None),
    ) -> None:
        row = (person.id, person.email, _PASSWORD_HASH, is_active, *limits, person.token_generation)
        await self.database.execute(_USER, *row)
        await self.database.execute(_SESSION, sha256(person.session.encode()).digest(), person.id)

    async def _key(
        self,
        person: Person,
        name: str,
        *,
        environment: str = "live",
        is_revoked: bool = False,
        is_suspended: bool = False,
        limits: tuple[str | None, int | None] = (None, None),
    ) -> None:
        key = Key(new_id("key"), f"nb_{environment}_{secrets.token_hex(16)}")
        row = (key.id, person.id, name, environment, key.raw, is_revoked, is_suspended, *limits)
        await self.database.execute(_KEY, *row)
        person.keys[name] = key

    async def _every_status(self) -> None:
        for status in ("delivered", "processing", "failed", "lost"):
            await self.generation(status, status=status)
        await self.generation("old", days=40)
        await self.generation("jpeg", picture_format="jpeg")
        await self.generation("deleted", is_deleted=True)
        await self.generation("gemini", provider="gemini")
        await self.generation("test", key="test")
        await self.generation("of a revoked key", key="revoked")

    async def _claimed(self) -> None:
        """Requests with an idempotency key: its name is the request's."""
        for name, status, lease in (
            ("delivered once", "delivered", None),
            ("in flight", "processing", LEASE),
            ("lapsed", "processing", -LEASE),
        ):
            await self.generation(name, status=status)
            await self.claim(name, lease=lease)
        others = [await self.generation(f"three {number}") for number in range(3)][1:]
        await self.claim("three 0", others=others)

    async def generation(
        self,
        name: str,
        *,
        key: str = "live",
        provider: str = "stub",
        status: str = "delivered",
        picture_format: str = "png",
        days: int = 0,
        is_deleted: bool = False,
    ) -> str:
        """Writes one, of ada's, and returns its id."""
        made = new_timed_id("gen", now=time.time() - days * _DAY_SECONDS)
        row = (made, self.ada.keys[key].id, provider, status, picture_format, timedelta(days=days), is_deleted)
        await self.database.execute(_GENERATION, *row)
        self.generations[name] = made
        return made

    async def claim(self, name: str, *, lease: timedelta | None = None, others: list[str] | None = None) -> None:
        """Writes the claim of the request of this name, whose idempotency key that is too."""
        route, count = (IMAGES, 1 + len(others)) if others else (ONE_IMAGE, 1)
        scope = digest(self.ada.id, "live", route, name.replace(" ", "-"))
        fingerprint = digest("A cute banana", "64x64", "png", str(count), "False")
        await self.database.execute(_CLAIM, scope, fingerprint, self.generations[name], others, lease)
