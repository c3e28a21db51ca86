"""The package that is installed contains the files of the console."""

import zipfile
from importlib import import_module
from pathlib import Path

import pytest


def test_the_wheel_holds_every_template_and_static_file(
    backend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(backend)
    wheel = tmp_path / import_module("flit_core.buildapi").build_wheel(str(tmp_path))
    console = backend / "app" / "console"
    files = {str(each.relative_to(backend)) for name in ("templates", "static") for each in (console / name).iterdir()}
    assert len(files) > 15
    assert files <= set(zipfile.ZipFile(wheel).namelist())
