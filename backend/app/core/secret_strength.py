"""Which secrets are too weak to sign login tokens with."""

SECRET_BYTES_MIN = 32
_CHARACTERS_MIN = 10  # different ones: a secret of one repeated key has fewer
_KNOWN_SECRET_WORDS = ("secret", "change", "example", "insecure", "password", "default")
_KNOWN_SECRETS = {"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"}  # FastAPI's tutorial


def weakness_of(secret: bytes) -> str | None:
    """Why a secret is not to be signed with, as the end of a sentence; None where it is strong enough."""
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return "is not text in UTF-8"
    if len(secret) < SECRET_BYTES_MIN:
        return f"is shorter than {SECRET_BYTES_MIN} bytes"
    known = text in _KNOWN_SECRETS or any(word in text.lower() for word in _KNOWN_SECRET_WORDS)
    return "is one that others know or can guess" if known or len(set(text)) < _CHARACTERS_MIN else None
