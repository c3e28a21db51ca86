"""Settings are refused with a sentence, or are safe to use."""

import stat
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from annotated_types import Ge
from app.core import locations
from app.core.limit_settings import LimitSettings
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import load_settings
from pydantic.fields import FieldInfo

GOOD_SECRET = "kq3TzUyPqoVw8sJc2mXhR7nLb5Gd9fAeYi4tKx1u"
WEAK_SECRETS = [
    "k" * 31,
    "change-me-change-me-change-me-change-me",
    "your-secret-key-goes-here-0123456789ab",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "a" * 64,
]


URLS = {
    "REDIS_URL": "redis",
    "GEMINI_BASE_URL": "https",
    "OPENAI_BASE_URL": "https",
    "S3_ENDPOINT": "https",
    "PUBLIC_URL": "https",
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)
    monkeypatch.setattr(locations, "CHECKOUT", tmp_path)


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings().with_secret()
    return str(caught.value)


@pytest.mark.parametrize("secret", WEAK_SECRETS)
@pytest.mark.parametrize("environment", ["development", "production"])
@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_PREVIOUS"])
def test_a_short_or_well_known_secret_is_refused_without_being_repeated(
    monkeypatch: pytest.MonkeyPatch, secret: str, environment: str, name: str
) -> None:
    sentence = refusal(monkeypatch, **{"SECRET_KEY": GOOD_SECRET, name: secret, "ENVIRONMENT": environment})
    assert sentence.startswith(f"{name} is ")
    assert secret not in sentence


@pytest.mark.parametrize("secret", [GOOD_SECRET, ""])
def test_a_previous_secret_is_refused_beside_none_and_beside_itself(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    sentence = refusal(monkeypatch, SECRET_KEY=secret, SECRET_KEY_PREVIOUS=GOOD_SECRET)
    assert sentence.startswith("SECRET_KEY_PREVIOUS is ")
    assert GOOD_SECRET not in sentence


@pytest.mark.parametrize("secret", ["", None])
def test_production_does_not_start_without_a_secret(monkeypatch: pytest.MonkeyPatch, secret: str | None) -> None:
    given = {} if secret is None else {"SECRET_KEY": secret}
    assert refusal(monkeypatch, ENVIRONMENT="production", **given).startswith("SECRET_KEY is missing.")


def test_development_creates_a_secret_that_only_its_owner_can_read(tmp_path: Path) -> None:
    first, second = load_settings().with_secret(), load_settings().with_secret()
    kept = tmp_path / ".data" / "secret_key"
    assert first.signing_secret == second.signing_secret == kept.read_bytes()
    assert len(kept.read_bytes()) >= 32
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.parametrize("secret", WEAK_SECRETS)
def test_a_secret_in_data_dir_is_refused_for_the_same_reasons_as_the_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: str
) -> None:
    kept = tmp_path / ".data" / "secret_key"
    kept.parent.mkdir()
    kept.write_text(secret)
    of_the_file = refusal(monkeypatch)
    of_the_setting = refusal(monkeypatch, SECRET_KEY=secret)
    reason = of_the_setting.removeprefix("SECRET_KEY ").partition(".")[0]
    assert of_the_file.startswith(f"The secret in {kept} {reason}: delete the file")
    assert secret not in of_the_file
    assert kept.read_text() == secret


def test_a_good_secret_that_the_operator_wrote_to_data_dir_is_used(tmp_path: Path) -> None:
    kept = tmp_path / ".data" / "secret_key"
    kept.parent.mkdir()
    (tmp_path / "mounted").write_text(GOOD_SECRET)
    kept.symlink_to(tmp_path / "mounted")
    assert load_settings().with_secret().signing_secret == GOOD_SECRET.encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("WORKERS", "-1"),
        ("ENVIRONMENT", "staging"),
        ("LOG_LEVEL", "chatty"),
        *((name.upper(), "hunter2\udcff") for name in Settings.model_fields if name != "data_dir"),
        ("DATABASE_URL", "mysql://root:hunter2hunter2@db/nb"),
        ("REDIS_URL", "http://:hunter2hunter2@redis"),
        ("REDIS_URL", "redis://:hunter2hunter2@redis:port"),
        ("REDIS_URL", "hunter2hunter2"),
        *(
            (name, f"{scheme}://{rest}")
            for name, scheme in URLS.items()
            for rest in ("h:port", "[::1", "h:99999", "hunter2 @h", "h%zz", "h|")
        ),
        ("REDIS_TIMEOUT_MS", "9"),
        ("REQUESTS_MAX", "0"),
        ("LIMIT_PROCESSES", "0"),
        ("GENERATE_CONCURRENCY_PER_KEY", "0"),
        ("GENERATE_LIMIT_PER_ACCOUNT", "1e3/hour"),
        ("UNKNOWN_KEY_LIMIT_PER_IP", "60/minute\n60/minute"),
        ("LOGIN_LIMIT_GLOBAL", "10000000/second"),
        ("PUBLIC_URL", "images.example.com"),
        ("PUBLIC_URL", "https://images.example.com/?a=1"),
        ("PUBLIC_URL", "https://images.example.com?"),
        ("PUBLIC_URL", "https://:hunter2hunter2@images.example.com"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "https://[::1"),
        ("PUBLIC_URL", "HTTPS://images.example.com"),
        ("PUBLIC_URL", "https://images.example .com"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, everyone"),
        *(
            ("CORS_ORIGINS", origins)
            for origins in (
                "app.example.com",
                "https://app.example.com/",
                "https://app.example.com/hunter2",
                "https://App.example.com",
                "https://app.example.com:443",
                "http://app.example.com:80",
                "https://*.example.com",
                "https://hunter2@app.example.com",
                "https://b\u00fccher.example",
                "https://app.example.com https://b.example.com",
                "null",
                "*, https://app.example.com",
            )
        ),
        ("GENERATE_LIMIT_PER_KEY", "600"),
        ("GENERATE_LIMIT_PER_KEY", "0/minute"),
        ("GENERATE_LIMIT_PER_KEY", "600/fortnight"),
        ("GENERATE_LIMIT_MODE", "off"),
        ("LOGIN_TOKEN_MINUTES", "61"),
        ("PASSWORD_BYTES_MIN", "7"),
        ("DATA_DIR", "~hunter2hunter2/data"),
    ],
)
def test_an_error_names_the_invalid_setting_and_not_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    sentence = refusal(monkeypatch, **{name: value})
    assert sentence.startswith(name)
    assert "hunter2" not in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        (" * ", ("*",)),
        (
            "https://app.example.com, http://localhost:5173,http://[::1]:8443,",
            ("https://app.example.com", "http://localhost:5173", "http://[::1]:8443"),
        ),
        ("chrome-extension://abc,app://obsidian.md", ("chrome-extension://abc", "app://obsidian.md")),
    ],
)
def test_origins_are_read_as_browsers_write_them(
    monkeypatch: pytest.MonkeyPatch, text: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CORS_ORIGINS", text)
    assert load_settings().cors_origins == origins


@pytest.mark.parametrize("path", ["/images", "/images/", "//images", "/%2F", "/."])
def test_a_public_url_with_a_path_is_refused(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    sentence = refusal(monkeypatch, PUBLIC_URL=f"https://images.example.com{path}")
    assert sentence.startswith("PUBLIC_URL must look like https://images.example.com, without a path")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("environment", "processes"),
    [({}, 1), ({"WORKERS": "4"}, 4), ({"WORKERS": "4", "LIMIT_PROCESSES": "12"}, 12), ({"LIMIT_PROCESSES": ""}, 1)],
)
def test_limits_are_shared_by_the_workers_unless_there_are_more_machines(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], processes: int
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings().processes == processes


@pytest.mark.parametrize("nothing", ["", " \t"])
@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_without_a_value_has_its_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, nothing: str
) -> None:
    default = load_settings()
    (tmp_path / ".env").write_text(f"{name.upper()}='{nothing}'\n")
    assert load_settings() == default
    monkeypatch.setenv(name.upper(), nothing)
    assert load_settings() == default


def test_an_empty_variable_wins_over_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9000\n")
    monkeypatch.setenv("PORT", "")
    assert load_settings().port == 8000


def example(field: FieldInfo) -> str:
    """A value that the field takes, and that is not its default, for a choice or a number; else nothing."""
    if get_origin(field.annotation) is Literal:
        return next(str(choice) for choice in get_args(field.annotation) if choice != field.default)
    least = next((int(str(each.ge)) for each in field.metadata if isinstance(each, Ge)), None)
    return "" if least is None else str(least if least != field.default else least + 1)


EXAMPLES = {
    "security_contact": "mailto:security@example.com",
    "secret_key": GOOD_SECRET,
    "secret_key_previous": GOOD_SECRET[::-1],
    "database_url": "postgresql://localhost/n",
    "redis_url": "redis://localhost",
    "data_dir": "some folder",
    "public_url": "https://images.example.com",
    "trusted_proxies": "10.0.0.0/8, fd00::/8",
    "cors_origins": "https://app.example.com, http://localhost:3000",
    "metrics_token": "a-token",
    "gemini_base_url": "https://gemini.example.com",
    "openai_base_url": "https://openai.example.com",
    "egress_proxy": "http://proxy.example.com:3128",
    "database_direct_url": "postgresql://localhost/d",
    "s3_allow_http": "true",
    "strict_model_names": "true",
    "fetch_images": "off",
    "allow_networks": "10.2.0.0/16, fd12:3456::/48",
    "log_client_address": "false",
    "otel_exporter_otlp_endpoint": "http://localhost:4318",
    "s3_endpoint": "https://s3.example.com",
    "second_image_store": "s3",
    "work": "off",
    "trial_credit": "0.50",
    "stripe_secret_key": "sk_test_a",
    "stripe_webhook_secret": "whsec_a",
    "stripe_api_url": "https://stripe.example.com",
    "stripe_tax": "on",
    **{name: "7/day" for name in LimitSettings.model_fields if "_limit_" in name and name != "generate_limit_mode"},
}


def loaded(name: str) -> object:
    return load_settings().model_dump()[name]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_white_space_around_a_value_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    for beside in {"database_direct_url": ["database_url"], "secret_key_previous": ["secret_key"]}.get(name, []):
        monkeypatch.setenv(beside.upper(), EXAMPLES[beside])
    default = loaded(name)
    value = EXAMPLES.get(name) or example(Settings.model_fields[name]) or "a value"
    monkeypatch.setenv(name.upper(), value)
    meant = loaded(name)
    assert meant != default
    monkeypatch.setenv(name.upper(), f" \t{value} \n")
    assert loaded(name) == meant
    monkeypatch.delenv(name.upper())
    (tmp_path / ".env").write_text(f"{name.upper()} = ' {value} '  # a comment\n")
    assert loaded(name) == meant


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_choice_may_be_written_in_any_case(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    annotation = Settings.model_fields[name].annotation
    for choice in get_args(annotation) if get_origin(annotation) is Literal else ():
        for spelling in (choice.lower(), choice.upper(), choice.title()):
            monkeypatch.setenv(name.upper(), spelling)
            assert loaded(name) == choice


ENV_FILES = {
    "no UTF-8": (b"HOST=\xe9\n", "it is not UTF-8"),
    "UTF-16": ("PORT=9000\n".encode("utf-16"), "it is not UTF-8"),
    "NUL": (b"HOST=hunter2\0\n", "it has a NUL character in it"),
    "no equals sign": (b"PORT=9000\n\n# hunter2\nhunter2\n", "line 4 does not look like NAME=value"),
    "open quote": (b"PORT=9000\nHOST='hunter2\n", "line 2 does not look like NAME=value"),
}


@pytest.mark.parametrize("content", ENV_FILES)
def test_an_env_file_that_would_be_misread_is_refused_with_a_sentence(tmp_path: Path, content: str) -> None:
    written, reason = ENV_FILES[content]
    (tmp_path / ".env").write_bytes(written)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value) == f"The settings in .env cannot be read: {reason}."


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfPORT=9000\n", b"export PORT=9000\r\n", b"#\n\nPORT='9000' # nine\n"])
def test_usual_forms_of_an_env_file_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".env").write_bytes(content)
    assert load_settings().port == 9000


def test_a_name_in_the_env_file_that_is_no_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GENERATE_LIMIT_MOD=enforce\n")
    with pytest.raises(ConfigurationError, match=r"GENERATE_LIMIT_MOD is set in \.env"):
        load_settings()


def test_environment_variables_override_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9000\nHOST=10.0.0.1\n")
    monkeypatch.setenv("PORT", "9001")
    settings = load_settings()
    assert (settings.port, settings.host, settings.public_url) == (9001, "10.0.0.1", "http://10.0.0.1:9001")


@pytest.mark.parametrize(
    ("environment", "public_url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"HOST": "::1", "PORT": "80"}, "http://[::1]:80"),
        ({"HOST": "::"}, "http://localhost:8000"),
        ({"HOST": "fe80::1%eth0"}, "http://[fe80::1%eth0]:8000"),
        ({"PUBLIC_URL": "http://[::1]:8000"}, "http://[::1]:8000"),
        ({"PUBLIC_URL": "https://images.example.com/"}, "https://images.example.com"),
        ({"PUBLIC_URL": ""}, "http://127.0.0.1:8000"),
    ],
)
def test_urls_begin_with_the_operators_public_url(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], public_url: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings().public_url == public_url


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_every_usual_spelling_of_a_postgresql_url_is_understood(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://localhost/nanobanana")
    url = load_settings().database_url
    assert url is not None
    assert url.get_secret_value() == "postgresql+asyncpg://localhost/nanobanana"


def test_settings_are_frozen_and_their_repr_holds_no_value() -> None:
    settings = Settings.model_validate({"secret_key": GOOD_SECRET, "database_url": "postgresql://u:hunter2@h/n"})
    with pytest.raises(ValueError, match="frozen"):
        settings.__setattr__("port", 1)
    assert GOOD_SECRET not in f"{settings!r} {settings}"
    assert "hunter2" not in f"{settings!r} {settings}"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        *(
            (name, value, sentence)
            for name in ("OPENAI_BASE_URL", "GEMINI_BASE_URL")
            for value, sentence in (
                ("https://hunter2@api.example.com/v1", "must hold no user or password"),
                ("https://u:hunter2@api.example.com/v1", "must hold no user or password"),
                ("https://api.example.com/v1#hunter2", "must have no # in it"),
                ("https://api.example.com/v1#", "must have no # in it"),
                ("https://api.example.com/hunter2 v1", "is no URL: it has a character"),
                ("https://api.example.com:hunter2/v1", "is no URL: its host or its port"),
                ("https://[hunter2/v1", "is no URL: its host or its port"),
                ("http://api.example.com/hunter2", "must begin with https://"),
                ("api.example.com/hunter2", "must begin with https://"),
            )
        ),
        *(
            ("EGRESS_PROXY", value, "must look like http://proxy.example.com:3128")
            for value in (
                "proxy.example.com:3128",
                "socks5://u:hunter2@proxy.example.com",
                "http://proxy.example.com:3128/hunter2",
                "http://proxy.example.com?hunter2",
            )
        ),
        *(
            ("EGRESS_PROXY", value, "is no URL: its host or its port cannot be read")
            for value in (
                "http://u:hunter2@proxy.example.com:99999",
                "http://u:hunter2@[proxy",
                "http://u:hunter2@pro\u2100xy",
            )
        ),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_quoting_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name} {sentence}") as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)
