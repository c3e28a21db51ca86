"""What is installed has its pages with it."""

import zipfile
from pathlib import Path

from flit_core.wheel import make_wheel_in


def test_the_wheel_holds_every_template_and_static_file(backend: Path, tmp_path: Path) -> None:
    made = make_wheel_in(backend / "pyproject.toml", tmp_path)
    console = backend / "app" / "console"
    files = {str(each.relative_to(backend)) for name in ("templates", "static") for each in (console / name).iterdir()}
    assert len(files) > 15
    assert files <= set(zipfile.ZipFile(made.file).namelist())
