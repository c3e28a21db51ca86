"""What tests of a running `nanobanana serve` share."""


def url_of(said: str) -> str:
    """The URL in what the server printed at its start."""
    return said.partition("NanoBanana is at ")[2].split()[0]
