"""Where `.env` is read and where data is kept: in a checkout, or for an installed program elsewhere."""

from pathlib import Path

from platformdirs import user_data_path


def find_checkout(package: Path) -> Path | None:
    """The root of the checkout that holds the package's folder as `backend/app`; None for an installed package.

    A checkout has a `.env.example` in its root and a `pyproject.toml` beside the package. Neither alone is enough: an
    unpacked source distribution has the second, and the folder that it lies in may be any.
    """
    root = package.parents[1]
    marks = (root / ".env.example", root / "backend" / "pyproject.toml")
    return root if package.parent.name == "backend" and all(mark.is_file() for mark in marks) else None


CHECKOUT = find_checkout(Path(__file__).resolve().parents[1])
"""The root of the checkout that this program runs from, or None."""


def base_folder() -> Path:
    """The folder where `.env` is read, and from which a relative DATA_DIR counts."""
    return CHECKOUT or Path.cwd()


def default_data_dir() -> Path:
    """The folder for data where DATA_DIR is not set: `.data` in the checkout, else the platform's for this user.

    Raises RuntimeError for a user without a home folder.
    """
    return CHECKOUT / ".data" if CHECKOUT else user_data_path("nanobanana", appauthor=False)
