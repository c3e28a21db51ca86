"""An account for the tests of a module, the lines logged in one, and which tests this machine cannot run."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import httpx2
import pytest
import structlog
from structlog.types import EventDict
from tests.core.small_disks import MOUNTED
from tests.harness import Account, Key, sign_up


def can_mount() -> bool:
    """Whether a process can mount a file system of its own here, without privileges."""
    if not shutil.which("unshare"):
        return False
    mount = [*MOUNTED, 'mount -t tmpfs none "$1"', "sh", tempfile.gettempdir()]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


collect_ignore = [] if can_mount() else ["test_small_disks.py"]


@pytest.fixture(scope="module")
async def account(client: httpx2.AsyncClient) -> Account:
    """An account for all tests of the module."""
    return await sign_up(client)


@pytest.fixture(scope="module")
async def key(account: Account) -> Key:
    """An API key for all tests of the module."""
    return await account.create_key()


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """The lines that are logged during the test."""
    with structlog.testing.capture_logs() as lines:
        yield lines
