"""Passwords, tokens, API keys and identifiers: functions that do no I/O and get the time as an argument."""

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal

import jwt
from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

KeyEnvironment = Literal["live", "test"]

KEY_PREFIX_LENGTH = 16
_KEY_BEGIN = "nb_"
_KEY = re.compile(r"nb_(live|test)_[0-9a-f]{32}", re.ASCII)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32: text sorts as the numbers do
_LETTERS = frozenset(_ALPHABET)
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_LETTER_OF_BYTE = _ALPHABET.encode() * 8  # each letter stands for 8 of the 256 bytes: all are equally likely
_RANDOM_CHARACTERS = 20  # of 5 bits each
_TIME_CHARACTERS = 10
_BLOCK_IDS = 256
_random_ids: list[str] = []  # made a block at a time: one system call for each id would take 5 % of a request

# PyJWT also takes base64 with padding; without it a token has one spelling.
_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_OBJECT_BEGIN = "eyJ"  # `{"` in base64
_SESSION_TOKEN_BYTES = 32
_SESSION_TOKEN = re.compile(r"[\w-]{43}", re.ASCII)
_SESSION_TYPE = "nb-session+jwt"
_ISSUER = "nanobanana"
_CLAIMS = ("iss", "aud", "sub", "gen", "iat", "exp", "jti")
_LIFETIME_SECONDS_MAX = 3600
_CLOCK_SKEW_SECONDS = 60
_DECODING: dict[str, Any] = {
    "algorithms": ["HS256"],
    "audience": _ISSUER,
    "issuer": _ISSUER,
    "options": {
        "require": list(_CLAIMS),
        "verify_exp": False,  # `_subject` checks the times, against the clock that it is given
        "verify_iat": False,
        "verify_nbf": False,
        "strict_aud": True,
    },
}

# OWASP's floor for argon2id: 19 MiB, two passes, one lane.
_hasher = PasswordHash((Argon2Hasher(memory_cost=19_456, time_cost=2, parallelism=1),))

UNKNOWN_ACCOUNT_HASH = (
    "$argon2id$v=19$m=19456,t=2,p=1$dGhlcmUgaXMgbm8gdXNlcg$QIcsA9I6IH7mlBlwCl5rdmXGfYgxXAFLfyUqGu3qGRY"
)
"""Verified in place of an unknown account's hash, so that every login computes one hash. No password matches it."""


def hash_password(password: str) -> str:
    """An argon2id hash of the UTF-8 bytes of `password`, with a salt of its own. About 25 ms of one core."""
    return _hasher.hash(password)


def verify_password(password: str, password_hash: str) -> tuple[bool, str | None]:
    """Whether the password matches the hash, and a new hash where the parameters of the old one are out of date.

    A hash that cannot be read matches no password.
    """
    try:
        return _hasher.verify_and_update(password, password_hash)
    except UnknownHashError:
        return False, None


@dataclass(frozen=True, slots=True)
class TokenSubject:
    """The user that a login token was issued to, and the token generation then: a later one ends the token."""

    user_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class TokenKey:
    """The key that signs login tokens, derived from SECRET_KEY for this purpose alone, and those of secrets that only
    verify them.
    """

    _key: bytes
    _others: tuple[bytes, ...] = ()

    @classmethod
    def derive(cls, secret: bytes, *others: bytes) -> "TokenKey":
        """The key of the secret, which signs, and of other secrets whose tokens are accepted too."""
        key, *more = (hmac.digest(each, _SESSION_TYPE.encode(), "sha256") for each in (secret, *others))
        return cls(key, tuple(more))

    def issue(self, subject: TokenSubject, *, now: float, lifetime_seconds: int) -> str:
        """A login token that is valid for `lifetime_seconds` (at most 3,600) from `now`."""
        claims = {
            "iss": _ISSUER,
            "aud": _ISSUER,
            "sub": subject.user_id,
            "gen": subject.generation,
            "iat": int(now),
            "exp": int(now) + min(lifetime_seconds, _LIFETIME_SECONDS_MAX),
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(claims, self._key, algorithm="HS256", headers={"typ": _SESSION_TYPE})

    def read(self, token: str, *, now: float) -> TokenSubject | None:
        """The subject of a token that one of the keys signed and that is valid at `now`; None for any other text."""
        if not _TOKEN.fullmatch(token):
            return None
        for key in (self._key, *self._others):
            try:
                return _subject(jwt.decode_complete(token, key, **_DECODING), now=now)
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, ValueError, OverflowError, RecursionError, TypeError):
                break
        return None


def _subject(decoded: dict[str, Any], *, now: float) -> TokenSubject | None:
    header, claims = decoded["header"], decoded["payload"]
    issued, expires, user_id, generation = claims["iat"], claims["exp"], claims["sub"], claims["gen"]
    sound = (
        header.get("typ") == _SESSION_TYPE
        and "crit" not in header
        and type(issued) is int
        and type(expires) is int
        and issued <= now + _CLOCK_SKEW_SECONDS  # the clock of the machine that issued it may be ahead
        and now < expires <= issued + _LIFETIME_SECONDS_MAX
        and isinstance(user_id, str)
        and type(generation) is int
    )
    return TokenSubject(user_id, generation) if sound else None


def looks_like_login_token(text: str) -> bool:
    """Whether the text has the form of a login token, valid or not."""
    return text.startswith(_OBJECT_BEGIN) and _TOKEN.fullmatch(text) is not None


def new_session_token() -> str:
    """43 characters of base64url: 256 random bits of the system's generator."""
    return secrets.token_urlsafe(_SESSION_TOKEN_BYTES)


def hash_session_token(token: str) -> bytes | None:
    """The 32 bytes under which a browser session is stored; None for a text without the form of its token."""
    return sha256(token.encode()).digest() if _SESSION_TOKEN.fullmatch(token) else None


def new_api_key(environment: KeyEnvironment) -> str:
    """`nb_live_` or `nb_test_` and 32 lower-case hex characters: 128 random bits of the system's generator."""
    return f"nb_{environment}_{secrets.token_hex(16)}"


def looks_like_api_key(text: str) -> bool:
    """Whether the text begins as an API key does, valid or not."""
    return text.startswith(_KEY_BEGIN)


def hash_api_key(key: str) -> bytes | None:
    """The 32 bytes under which an API key is stored; None for a text without the form of a key."""
    return sha256(key.encode()).digest() if _KEY.fullmatch(key) else None


def new_id(prefix: str) -> str:
    """`prefix_` and 100 random bits in lower-case base32."""
    return f"{prefix}_{_random_characters()}"


def id_of(prefix: str, text: str) -> str:
    """As `new_id`, of 100 bits of the text's hash: the same for the same text."""
    letters = sha256(text.encode()).digest()[:_RANDOM_CHARACTERS].translate(_LETTER_OF_BYTE)
    return f"{prefix}_{letters.decode()}"


def new_timed_id(prefix: str, *, now: float) -> str:
    """As `new_id`, with the milliseconds of `now` in front, so that ids sort by creation time."""
    return f"{prefix}_{_base32(int(now * 1000), _TIME_CHARACTERS)}{_random_characters()}"


def time_prefix(prefix: str, at: datetime) -> str:
    """A text that sorts before every timed id of this time or later, and after every earlier one."""
    return f"{prefix}_{_base32(int(at.timestamp() * 1000), _TIME_CHARACTERS)}"


def without_random(timed_id: str) -> str:
    """A timed id without its random characters: what all ids of the same prefix and millisecond begin with."""
    return timed_id[:-_RANDOM_CHARACTERS]


def is_id(prefix: str, text: str) -> bool:
    """Whether the text has the form of an id with this prefix. Other texts need no look-up in the database."""
    body = text.removeprefix(f"{prefix}_")
    length = len(body)
    return (
        body != text and length in {_RANDOM_CHARACTERS, _RANDOM_CHARACTERS + _TIME_CHARACTERS} and set(body) <= _LETTERS
    )


def _random_characters() -> str:
    if not _random_ids:
        letters = secrets.token_bytes(_BLOCK_IDS * _RANDOM_CHARACTERS).translate(_LETTER_OF_BYTE).decode()
        starts = range(0, len(letters), _RANDOM_CHARACTERS)
        _random_ids.extend([letters[start : start + _RANDOM_CHARACTERS] for start in starts])
    return _random_ids.pop()


@lru_cache(maxsize=8)  # many ids of one moment share their time
def _base32(number: int, characters: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(5 * characters - 10, -1, -10)])
