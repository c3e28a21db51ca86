"""Every secret setting can stand in a file of its own, which NAME_FILE names."""

from collections.abc import Callable
from pathlib import Path

import pytest
from app.core import locations
from app.core.secret_files import secret_names
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import load_settings
from pydantic import SecretStr

SECRETS = {
    "database_direct_url": "postgresql+asyncpg://ada:one@db.internal/images",
    "database_url": "postgresql+asyncpg://ada:two@db.internal/images",
    "egress_proxy": "http://ada:three@proxy.internal:3128",
    "gemini_api_key": "a-key-of-gemini",
    "metrics_token": "a-token-of-prometheus",
    "openai_api_key": "a-key-of-openai",
    "redis_url": "redis://:four@redis.internal",
    "s3_access_key_id": "an-id",
    "s3_secret_access_key": "a-secret-of-the-bucket",
    "secret_key": "kq3TzUyPqoVw8sJc2mXhR7nLb5Gd9fAeYi4tKx1u",
    "secret_key_previous": "Wb7nRt2YcKe9uHs4ZpLq8vXj5mGf1dAo6iTkNy3E",
    "stripe_secret_key": "sk_test_a0key0of0stripe",
    "stripe_webhook_secret": "whsec_one,whsec_another",
}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of `.env`, with nothing set."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)
    monkeypatch.setattr(locations, "CHECKOUT", tmp_path)
    return tmp_path


@pytest.fixture(params=["environment", ".env"])
def set_variable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[..., None]:
    def write(name: str, value: str) -> None:
        if request.param == "environment":
            monkeypatch.setenv(name, value)
        else:
            with (folder / ".env").open("a") as file:
                file.write(f"{name}={value}\n")

    return write


def refusal() -> str:
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    return str(raised.value)


def test_all_secrets_together_are_read_from_files_without_the_line_breaks_at_their_ends(
    set_variable: Callable[..., None], folder: Path
) -> None:
    for name, secret in SECRETS.items():
        (folder / name).write_text(f"{secret}\r\n")
        set_variable(f"{name.upper()}_FILE", name)
    found = {name: getattr(load_settings(), name) for name in secret_names(Settings)}
    read = {name: value.get_secret_value() for name, value in found.items() if isinstance(value, SecretStr)}
    assert read == SECRETS, "a new secret needs a line in SECRETS"


@pytest.mark.parametrize("name", secret_names(Settings))
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "names no file that is there: it takes the path of one, and never the secret itself."),
        (b"", "names an empty file."),
        (b" \n", "names an empty file."),
        (b"caf\xe9", "(FILE) cannot be read: it is not UTF-8."),
        (b"hunter2\nhunter3", "names a file that holds more than one line, or control characters."),
        (b"hunter2\0", "names a file that holds more than one line, or control characters."),
    ],
)
def test_a_file_that_holds_no_secret_ends_the_start_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (folder / "file").write_bytes(content)
    monkeypatch.setenv(f"{name.upper()}_FILE", "file")
    assert refusal().replace(str(folder / "file"), "FILE") == f"{name.upper()}_FILE {sentence}"


@pytest.mark.parametrize("secret", ["sk-proj-1a2b3c", "/one/two+three=", "wJalr/K7MDENG", "~one/two", "s" * 5000])
def test_a_secret_in_place_of_a_path_is_never_printed(set_variable: Callable[..., None], secret: str) -> None:
    set_variable("GEMINI_API_KEY_FILE", secret)
    assert refusal().startswith("GEMINI_API_KEY_FILE ")
    assert secret[1:] not in refusal()


def test_a_file_that_is_there_and_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("GEMINI_API_KEY_FILE", str(folder))
    assert refusal() == f"GEMINI_API_KEY_FILE ({folder}) cannot be read: It is not a regular file."


@pytest.mark.parametrize("name", secret_names(Settings))
def test_a_secret_that_is_set_twice_is_refused_whatever_the_places(
    set_variable: Callable[..., None], monkeypatch: pytest.MonkeyPatch, folder: Path, name: str
) -> None:
    (folder / "file").write_text(SECRETS[name])
    set_variable(f"{name.upper()}_FILE", "file")
    monkeypatch.setenv(name.upper(), SECRETS[name])
    assert refusal() == f"{name.upper()} and {name.upper()}_FILE are both set."


def test_an_empty_variable_means_that_it_is_not_set(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / ".env").write_text("METRICS_TOKEN_FILE=nowhere\nSECRET_KEY_FILE=file\n")
    (folder / "file").write_text(SECRETS["secret_key"])
    monkeypatch.setenv("METRICS_TOKEN_FILE", "")
    monkeypatch.setenv("SECRET_KEY", " ")
    settings = load_settings()
    assert (settings.metrics_token, settings.signing_secret) == (None, SECRETS["secret_key"].encode())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("PORT_FILE", "PORT_FILE is set in .env, but is no setting"), ("SECRET_FILE", "SECRET_FILE is set in .env")],
)
def test_no_other_setting_has_a_file(folder: Path, name: str, sentence: str) -> None:
    (folder / ".env").write_text(f"{name}=file\n")
    assert refusal().startswith(sentence)


def test_what_a_file_holds_is_checked_as_the_setting_is(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "file").write_text("hunter2\n")
    monkeypatch.setenv("SECRET_KEY_FILE", "file")
    assert refusal().startswith("SECRET_KEY is shorter")
