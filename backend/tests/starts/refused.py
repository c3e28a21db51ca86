"""The situations in which a start ends with a sentence: how each is made, and what is printed."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.core.embedded_servers import AS_ORDINARY_USER
from tests.core.small_disks import MOUNTED

SECRET = "kq3TzUyPqoVw8sJc2mXhR7nLb5Gd9fAeYi4tKx1u"
SETTINGS_FILE = "The settings in .env cannot be read"
FULL = 'mount -t tmpfs -o size=4k,nr_inodes=1 none "$DATA_DIR" && exec "$@"'


MODELS = {"MODELS_FILE": "models.toml"}
UNREAD = "MODELS_FILE (PATH) cannot be read"
WITH_KEY = """[models.banana]

[[models.banana.routes]]
provider = "gemini"
model = "banana-1"
key = "BANANA_KEY"
"""
WITH_MISTAKES = """default = "banana"

[models.banana]
colour = "yellow"
price = 0.05

[[models.banana.routes]]
provider = "bing"
"""
IN_DOLLARS = """currency = "USD"

[models.banana]
price = "0.05"

[[models.banana.routes]]
provider = "stub"
"""
NO_FILE = "names no file that is there: it takes the path of one, and never the secret itself."
KEY_LINE = "MODELS_FILE, line 6: models.banana.routes.1.key names BANANA_KEY"


@dataclass(frozen=True)
class Refused:
    """A situation in the operator's words, what makes it in a checkout with an empty DATA_DIR, and the sentence, or a
    line for each mistake, in which DATA_DIR stands for that folder's path.
    """

    situation: str
    sentence: str
    make: Callable[[Path, Path], object] = lambda _checkout, _data_dir: None
    settings: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    command: str = "serve"

    @property
    def row(self) -> str:
        return f"| {self.situation} | {self.sentence.replace(chr(10), '<br>')} |"


def unwritable(reason: str) -> str:
    return f"DATA_DIR (PATH) cannot be written: {reason}."


def embedded_failed(reason: str) -> str:
    return f"The embedded PostgreSQL in DATA_DIR failed: {reason}."


def replace(folder: Path, make: Callable[[Path], object]) -> None:
    folder.rmdir()
    make(folder)


def env_file(content: bytes) -> Callable[[Path, Path], object]:
    return lambda checkout, _: (checkout / ".env").write_bytes(content)


def models_file(content: str, env_lines: str = "") -> Callable[[Path, Path], object]:
    """A file of models, and a `.env` that names it."""

    def make(checkout: Path, _data_dir: Path) -> None:
        (checkout / "models.toml").write_text(content)
        (checkout / ".env").write_text(f"MODELS_FILE=models.toml\n{env_lines}")

    return make


def closed_models_file(checkout: Path, _data_dir: Path) -> None:
    (checkout / "models.toml").touch(mode=0)


def empty_key_file(checkout: Path, data_dir: Path) -> None:
    models_file(WITH_KEY, "BANANA_KEY_FILE=key\n")(checkout, data_dir)
    (checkout / "key").write_text("\n")


def other_files(_checkout: Path, data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "lost+found").mkdir()


def of_another_version(_checkout: Path, data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "PG_VERSION").write_text("17\n")


def closed_env_file(checkout: Path, _data_dir: Path) -> None:
    (checkout / ".env").touch(mode=0)


REFUSED = (
    Refused("`DATA_DIR` is a file", unwritable("Not a directory"), lambda _, data: replace(data, Path.touch)),
    Refused(
        "`DATA_DIR` is a link to nothing",
        unwritable("Not a directory"),
        lambda _, data: replace(data, lambda link: link.symlink_to("nothing")),
    ),
    Refused(
        "`DATA_DIR` cannot be written",
        unwritable("Permission denied"),
        lambda _, data: data.chmod(0o500),
        prefix=AS_ORDINARY_USER,
    ),
    Refused(
        "the same, with a `SECRET_KEY`",
        "The folder DATA_DIR/pictures in DATA_DIR cannot be used: Permission denied.",
        lambda _, data: data.chmod(0o500),
        {"SECRET_KEY": SECRET},
        AS_ORDINARY_USER,
    ),
    Refused(
        "`DATA_DIR` is on a full disk",
        unwritable("No space left on device"),
        prefix=(*MOUNTED, FULL, "sh"),
    ),
    Refused(
        "`DATA_DIR` begins with the home folder of a user that is unknown",
        "DATA_DIR begins with a home folder that cannot be found",
        settings={"DATA_DIR": "~no-such-user/data"},
        command="check",
    ),
    Refused(
        "`DATA_DIR/postgres` is not the program's",
        embedded_failed("DATA_DIR/postgres holds something else than its data; move that away"),
        other_files,
    ),
    Refused(
        "a newer or older PostgreSQL wrote `DATA_DIR/postgres`",
        embedded_failed("PostgreSQL 17 wrote its data, and 18 cannot read that"),
        of_another_version,
    ),
    Refused("`.env` is in Latin-1", f"{SETTINGS_FILE}: it is not UTF-8.", env_file(b"HOST=\xe9\n"), command="check"),
    Refused(
        "`.env` has a NUL", f"{SETTINGS_FILE}: it has a NUL character in it.", env_file(b"HOST=a\0\n"), command="check"
    ),
    Refused(
        "`.env` has a line of another form",
        f"{SETTINGS_FILE}: line 2 does not look like NAME=value.",
        env_file(b"PORT=8000\nHOST\n"),
        command="migrate",
    ),
    Refused(
        "`.env` is a folder",
        f"{SETTINGS_FILE}: It is not a regular file.",
        lambda checkout, _: (checkout / ".env").mkdir(),
        command="check",
    ),
    Refused(
        "`.env` is a pipe",
        f"{SETTINGS_FILE}: It is not a regular file.",
        lambda checkout, _: os.mkfifo(checkout / ".env"),
        command="check",
    ),
    Refused(
        "`.env` is a link to nothing",
        f"{SETTINGS_FILE}: It is a symbolic link to nothing.",
        lambda checkout, _: (checkout / ".env").symlink_to("nothing"),
        command="migrate",
    ),
    Refused(
        "`.env` cannot be read",
        f"{SETTINGS_FILE}: Permission denied.",
        closed_env_file,
        prefix=AS_ORDINARY_USER,
        command="check",
    ),
    Refused(
        "a name in `.env` is no setting",
        "PROT is set in .env, but is no setting; `nanobanana settings` lists them all.",
        env_file(b"PROT=8000\n"),
        command="check",
    ),
    Refused(
        "a secret is set twice",
        "METRICS_TOKEN and METRICS_TOKEN_FILE are both set.",
        env_file(b"METRICS_TOKEN=a\nMETRICS_TOKEN_FILE=b\n"),
        command="check",
    ),
    Refused(
        "the file of a secret is missing",
        f"METRICS_TOKEN_FILE {NO_FILE}",
        env_file(b"METRICS_TOKEN_FILE=nothing\n"),
        command="check",
    ),
    Refused(
        "a setting is none of its choices",
        "LOG_LEVEL should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
        settings={"LOG_LEVEL": "chatty"},
        command="check",
    ),
    Refused(
        "a setting is no number",
        "PORT should be a valid integer, unable to parse string as an integer",
        settings={"PORT": "http"},
        command="migrate",
    ),
    Refused(
        "a URL cannot be read",
        "S3_ENDPOINT is no URL: its host or its port cannot be read",
        settings={"S3_ENDPOINT": "https://s3:port"},
        command="check",
    ),
    Refused(
        "settings of the bucket are missing",
        "IMAGE_STORE is s3, but S3_BUCKET and S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY are missing.",
        settings={"IMAGE_STORE": "s3"},
    ),
    Refused(
        "production has no secret",
        "SECRET_KEY is missing. Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'",
        settings={"ENVIRONMENT": "production"},
    ),
    Refused(
        "several workers have no Redis",
        "WORKERS is 2, but each worker would hold the limits by itself. "
        "Set REDIS_URL to a Redis that they share, or WORKERS=1.",
        settings={"WORKERS": "2"},
    ),
    Refused(
        "the port is in use",
        "Cannot listen on 127.0.0.1:PORT: Address already in use. Choose another with HOST and PORT.",
        settings={"PORT": "taken"},
    ),
    Refused(
        "`HOST` is another machine's",
        "Cannot listen on 192.0.2.1:PORT: Cannot assign requested address. Choose another with HOST and PORT.",
        settings={"HOST": "192.0.2.1"},
    ),
    Refused(
        "`HOST` is no name of a host",
        "Cannot listen on a..b:PORT: That is no name of a host. Choose another with HOST and PORT.",
        settings={"HOST": "a..b"},
    ),
    Refused("`MODELS_FILE` is missing", f"{UNREAD}: No such file or directory.", settings=MODELS),
    Refused(
        "`MODELS_FILE` is a folder",
        f"{UNREAD}: It is not a regular file.",
        lambda checkout, _: (checkout / "models.toml").mkdir(),
        MODELS,
    ),
    Refused(
        "`MODELS_FILE` is closed to us", f"{UNREAD}: Permission denied.", closed_models_file, MODELS, AS_ORDINARY_USER
    ),
    Refused(
        "`MODELS_FILE` is in Latin-1",
        f"{UNREAD}: it is not UTF-8.",
        lambda checkout, _: (checkout / "models.toml").write_bytes(b'default = "caf\xe9"\n'),
        MODELS,
    ),
    Refused(
        "`MODELS_FILE` is no TOML",
        "MODELS_FILE, it is no TOML: Invalid value (at line 1, column 11).",
        models_file("default = banana\n"),
    ),
    Refused(
        "`MODELS_FILE` has several mistakes",
        "MODELS_FILE, line 4: models.banana.colour is not a known field.\n"
        'MODELS_FILE, line 5: models.banana.price must be a decimal in quotes, such as "0.05", or a table of them.\n'
        "MODELS_FILE, line 8: models.banana.routes.1.provider must be 'gemini', 'openai' or 'stub'.",
        models_file(WITH_MISTAKES),
    ),
    Refused("`MODELS_FILE` names a key that is not set", f"{KEY_LINE}, which is not set.", models_file(WITH_KEY)),
    Refused(
        "such a key is set twice",
        f"{KEY_LINE}, but BANANA_KEY and BANANA_KEY_FILE are both set.",
        models_file(WITH_KEY, "BANANA_KEY=a\nBANANA_KEY_FILE=key\n"),
    ),
    Refused(
        "the file of such a key is missing",
        f"{KEY_LINE}, but BANANA_KEY_FILE {NO_FILE}",
        models_file(WITH_KEY, "BANANA_KEY_FILE=nothing\n"),
    ),
    Refused("the file of such a key is empty", f"{KEY_LINE}, but BANANA_KEY_FILE names an empty file.", empty_key_file),
    Refused(
        "a name in `.env` is no setting, and `MODELS_FILE` does not name it",
        "APPLE_KEY is set in .env, but is no setting; `nanobanana settings` lists them all.",
        models_file(WITH_KEY, "BANANA_KEY=a\nAPPLE_KEY=b\n"),
    ),
    Refused(
        "`MODELS_FILE` has another currency than the database",
        "MODELS_FILE has prices in USD, but what this deployment has recorded is in EUR. "
        "Amounts of two currencies cannot be added up: use one database for each.",
        models_file(IN_DOLLARS),
        {"DATABASE_URL": "in euros"},
    ),
    Refused(
        "the key for Stripe is of the other mode than the database",
        "STRIPE_SECRET_KEY is a key of Stripe's live mode, but what this deployment has recorded is of test mode. "
        "Set a key of test mode, or use another database for live mode.",
        settings={"DATABASE_URL": "in test mode", "STRIPE_SECRET_KEY": "sk_live_a", "STRIPE_WEBHOOK_SECRET": "whsec_a"},
    ),
    Refused(
        "so for `work`",
        "STRIPE_SECRET_KEY is a key of Stripe's test mode, but what this deployment has recorded is of live mode. "
        "Set a key of live mode, or use another database for test mode.",
        settings={"DATABASE_URL": "in live mode", "STRIPE_SECRET_KEY": "rk_test_a"},
        command="work",
    ),
    Refused(
        "`BILLING` is on without prices",
        "BILLING is on, but no model has a price: write prices and a currency to MODELS_FILE.",
        settings={"BILLING": "on"},
    ),
    Refused(
        "`TRIAL_CREDIT` is no amount",
        "TRIAL_CREDIT must be a decimal such as 5 or 0.50, with at most 6 digits after the point",
        settings={"TRIAL_CREDIT": "1e3"},
    ),
    Refused(
        "`migrate` without a `DATABASE_URL`",
        "DATABASE_URL is not set. `nanobanana serve` migrates its own PostgreSQL by itself.",
        command="migrate",
    ),
    Refused(
        "`work` without a `DATABASE_URL`",
        "DATABASE_URL is not set. `nanobanana serve` draws the asynchronous generations of its own PostgreSQL.",
        command="work",
    ),
)


@contextmanager
def taken_port() -> Iterator[str]:
    """A loopback port that somebody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield str(server.getsockname()[1])
