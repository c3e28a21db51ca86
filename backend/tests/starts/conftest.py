"""Data of an embedded PostgreSQL that has been made and migrated once, to be copied: a start on it is quick."""

import shutil
from pathlib import Path

import pytest
from app import migrations
from app.core.embedded import embedded_postgres


@pytest.fixture(scope="session")
def data_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "data"
    with embedded_postgres(folder) as url:
        migrations.upgrade(url)
    return folder


@pytest.fixture
def data_dir(data_template: Path, tmp_path: Path) -> Path:
    """A DATA_DIR in which the server has run before."""
    return shutil.copytree(data_template, tmp_path / "data", ignore=shutil.ignore_patterns("postgres.lock"))
