"""Settings and data are found in the checkout where there is one, and never beside the installed package."""

import pwd
from pathlib import Path

import pytest
from app.core import locations
from app.core.locations import find_checkout
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import load_settings


@pytest.fixture(autouse=True)
def an_installed_program_in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(locations, "CHECKOUT", None)
    monkeypatch.chdir(tmp_path)


def package_with(*marks: Path, package: Path) -> Path:
    package.mkdir(parents=True)
    for mark in marks:
        mark.touch()
    return package


def test_this_is_a_checkout() -> None:
    root = Path(__file__).parents[3]
    assert find_checkout(root / "backend" / "app") == root


def test_an_installed_package_is_no_checkout_whatever_lies_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    marks = (tmp_path / ".env.example", folder / "pyproject.toml")
    assert find_checkout(package_with(*marks, package=folder / "app")) is None


def test_an_unpacked_source_distribution_is_no_checkout(tmp_path: Path) -> None:
    package = package_with(tmp_path / "backend" / "pyproject.toml", package=tmp_path / "backend" / "app")
    assert find_checkout(package) is None
    (tmp_path / ".env.example").touch()
    assert find_checkout(package) == tmp_path


def test_data_of_an_installed_program_is_in_the_platforms_folder(tmp_path: Path) -> None:
    data_dir = load_settings().data_dir
    assert data_dir.is_relative_to(tmp_path / "home")
    assert data_dir.name == "nanobanana"
    assert list(tmp_path.iterdir()) == [], "asking for it makes nothing"


def test_an_installed_program_reads_the_working_folders_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9000\nDATA_DIR=data\n")
    settings = load_settings()
    assert (settings.port, settings.data_dir) == (9000, tmp_path / "data")


def test_a_user_without_a_home_folder_is_asked_for_data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(user: int) -> pwd.struct_passwd:
        raise KeyError(user)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ConfigurationError, match="DATA_DIR is not set, and this user has no home folder"):
        load_settings()
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    assert load_settings().data_dir == tmp_path / "data"
