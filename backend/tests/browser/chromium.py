"""The browser of the tests: the Chromium or Chrome of this machine, or one that is installed with apt-get.

python -m tests.browser.chromium            # exits with 1 if there is none
python -m tests.browser.chromium install    # installs one first, or exits with the reason why not
"""

import os
import shutil
import subprocess
import sys

_NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_HOW_TO_GET_ONE = "Install one (on Debian: sudo apt-get install chromium), or put it on the PATH, and run this again."
_INSTALL = (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"])


def find() -> str | None:
    """The path of the first Chromium or Chrome on the PATH or in its usual place; None if there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def install() -> None:
    """Installs Debian's Chromium unless there is a browser already. Raises SystemExit with the reason if it cannot."""
    if find():
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SystemExit(f"There is no Chromium or Chrome here, and only root on a Debian gets one. {_HOW_TO_GET_ONE}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if any(subprocess.run(command, env=environment, check=False).returncode for command in _INSTALL) or not find():
        raise SystemExit(f"apt-get could not install Chromium. {_HOW_TO_GET_ONE}")


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        install()
    sys.exit(not find())
