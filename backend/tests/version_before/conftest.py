"""Copies of one database of the version before: each test has its own."""

from collections.abc import Iterator

import pytest
from tests.harness import fresh_database
from tests.version_before.history import database_of_the_version_before
from tests.version_before.rows import Rows


@pytest.fixture(scope="session")
def version_before(server_url: str) -> Iterator[tuple[str, Rows]]:
    """The database that is copied, and what is in it."""
    with database_of_the_version_before(server_url) as there:
        yield there


@pytest.fixture
def rows(version_before: tuple[str, Rows]) -> Rows:
    """What the version before wrote."""
    return version_before[1]


@pytest.fixture
def old_database_url(server_url: str, version_before: tuple[str, Rows]) -> Iterator[str]:
    """A database as the version before left it."""
    with fresh_database(server_url, copy_of=version_before[0]) as url:
        yield url
