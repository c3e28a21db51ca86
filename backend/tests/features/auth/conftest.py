"""Fixtures for tests of accounts."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import argon2
import pytest
from app.core.db import create_engine
from app.core.fair_queue import FairPool
from app.core.security import TokenKey, verify_password
from app.core.settings import Settings
from app.features.auth import service
from app.features.auth.service import Accounts
from argon2 import PasswordHasher
from sqlalchemy.ext.asyncio import async_sessionmaker


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, argon2.Parameters]]:
    """Every argon2 computation of this process during the test, at production cost: its kind and its parameters."""
    done: list[tuple[str, argon2.Parameters]] = []
    make, verify = PasswordHasher.hash, PasswordHasher.verify

    def counted_hash(hasher: PasswordHasher, password: str | bytes, *, salt: bytes | None = None) -> str:
        made = make(hasher, password, salt=salt)
        done.append(("hash", argon2.extract_parameters(made)))
        return made

    def counted_verify(hasher: PasswordHasher, stored: str, password: str | bytes) -> bool:
        done.append(("verify", argon2.extract_parameters(stored)))
        return verify(hasher, stored, password)

    monkeypatch.setattr(PasswordHasher, "hash", counted_hash)
    monkeypatch.setattr(PasswordHasher, "verify", counted_verify)
    return done


@dataclass(frozen=True)
class HeldCheck:
    """The first check of a password during the test, held after it has its result and before it returns it."""

    reached: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 30)


@pytest.fixture
def held_check(monkeypatch: pytest.MonkeyPatch, free: threading.Event) -> HeldCheck:
    """A check that waits until `free` is set. Another hash meanwhile needs another application, with its own pool."""
    held = HeldCheck(free=free)

    def check(password: str, password_hash: str) -> tuple[bool, str | None]:
        verdict = verify_password(password, password_hash)
        if not held.reached.is_set():
            held.reached.set()
            assert held.free.wait(30)
        return verdict

    monkeypatch.setattr(service, "verify_password", check)
    return held


@pytest.fixture
async def accounts(settings: Settings) -> AsyncIterator[Accounts]:
    """The collaborators of the services, built as the application builds them."""
    assert settings.database_url is not None
    engine = create_engine(settings.database_url.get_secret_value(), pool_size=10)
    hashing = FairPool(threads=1, queue_max=100, name="hash")
    sessions, key = async_sessionmaker(engine, expire_on_commit=False), TokenKey.derive(settings.signing_secret)
    yield Accounts(sessions, hashing, key, 3600, settings.session_days, settings.password_bytes_min, time.time, "open")
    hashing.close()
    await engine.dispose()
