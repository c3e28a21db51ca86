"""What tests of accounts share."""

import argon2
import pytest
from argon2 import PasswordHasher


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, argon2.Parameters]]:
    """Every argon2 computation of this process from now on: which, and at what cost."""
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
