"""Everything that is installed with the program has a licence that allows that."""

import re
from collections.abc import Iterator
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from tests.docs.settings_pages import ROOT

ALLOWED = {
    *("MIT", "MIT-0", "MIT-CMU", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Apache-2.0", "PSF-2.0", "Unlicense"),
    # Names that packages without an SPDX expression give theirs.
    *("MIT License", "BSD License", "Apache Software License", "The Unlicense (Unlicense)"),
}
ODD = {"pyvips-binary": "LGPL-3.0-or-later", "pi-heif": "BSD-3-Clause", "certifi": "MPL-2.0"}
"""Licences of single packages, or of what is in their wheels, with the reason in docs/licences.md."""
PAGE = (ROOT / "docs" / "licences.md").read_text()


def shipped() -> Iterator[str]:
    """The packages that are locked to be installed with the program, as far as they are for this machine."""
    for line in re.findall(r"^[\w.-]+==[^\\\n]+", (ROOT / "backend" / "requirements.txt").read_text(), re.MULTILINE):
        pinned = Requirement(line)
        if pinned.marker is None or pinned.marker.evaluate():
            yield pinned.name


def licences(package: str) -> set[str]:
    """What its metadata says: the parts of its SPDX expression, its field of free text, or its classifiers."""
    said = metadata.metadata(package).json
    expression = str(said.get("license_expression") or said.get("license") or "")
    if expression and "\n" not in expression:
        return set(re.split(r" AND | OR ", expression))
    return {each.rpartition(" :: ")[2] for each in said.get("classifier", ()) if each.startswith("License ::")}


@pytest.mark.parametrize("package", list(shipped()))
def test_a_package_that_is_installed_with_the_program_has_an_allowed_licence(package: str) -> None:
    found = licences(package)
    assert found, "its metadata name no licence"
    if package in ODD:
        assert found == {ODD[package]}
        assert f"| `{package}` | {ODD[package]}" in PAGE
    else:
        assert found <= ALLOWED, "read docs/licences.md on how to add one"


def test_the_licences_that_are_looked_for_are_found() -> None:
    assert licences("pyvips-binary") == {"LGPL-3.0-or-later"}
    assert licences("greenlet") == {"MIT", "PSF-2.0"}
    assert licences("obstore") == {"MIT License"}
    assert not {"LGPL-3.0-or-later", "GPL-3.0-only"} & ALLOWED


def test_the_licence_stands_in_the_repository_and_in_the_package() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.split() == (ROOT / "backend" / "LICENSE").read_text().split()
    assert "Apache License" in text[:100]
    assert len(text) > 11_000
