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


@dataclass(frozen=True)
class Refused:
    """A situation in the operator's words, what makes it in a checkout with an empty DATA_DIR, and the sentence, in
    which DATA_DIR stands for that folder's path.
    """

    situation: str
    sentence: str
    make: Callable[[Path, Path], object] = lambda _checkout, _data_dir: None
    settings: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    command: str = "serve"

    @property
    def row(self) -> str:
        return f"| {self.situation} | {self.sentence} |"


def secret_unusable(reason: str) -> str:
    return f"The secret in DATA_DIR/secret_key cannot be read or made ({reason}): mend that, or set SECRET_KEY."


def embedded_failed(reason: str) -> str:
    return f"The embedded PostgreSQL in DATA_DIR failed: {reason}."


def replace(folder: Path, make: Callable[[Path], object]) -> None:
    folder.rmdir()
    make(folder)


def env_file(content: bytes) -> Callable[[Path, Path], object]:
    return lambda checkout, _: (checkout / ".env").write_bytes(content)


def other_files(_checkout: Path, data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "lost+found").mkdir()


def of_another_version(_checkout: Path, data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "PG_VERSION").write_text("17\n")


def closed_env_file(checkout: Path, _data_dir: Path) -> None:
    (checkout / ".env").touch(mode=0)


REFUSED = (
    Refused("`DATA_DIR` is a file", secret_unusable("Not a directory"), lambda _, data: replace(data, Path.touch)),
    Refused(
        "`DATA_DIR` is a link to nothing",
        secret_unusable("Not a directory"),
        lambda _, data: replace(data, lambda link: link.symlink_to("nothing")),
    ),
    Refused(
        "`DATA_DIR` cannot be written",
        secret_unusable("Permission denied"),
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
        secret_unusable("No space left on device"),
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
    Refused(
        "`migrate` without a `DATABASE_URL`",
        "DATABASE_URL is not set. `nanobanana serve` migrates its own PostgreSQL by itself.",
        command="migrate",
    ),
)


@contextmanager
def taken_port() -> Iterator[str]:
    """A loopback port that somebody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield str(server.getsockname()[1])
