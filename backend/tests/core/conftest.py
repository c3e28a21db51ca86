"""Skips tests that this machine cannot run."""

import shutil
import subprocess
import tempfile

from tests.core.small_disks import MOUNTED


def can_mount() -> bool:
    """Whether a process can mount a file system of its own here, without privileges."""
    if not shutil.which("unshare"):
        return False
    mount = [*MOUNTED, 'mount -t tmpfs none "$1"', "sh", tempfile.gettempdir()]
    return subprocess.run(mount, capture_output=True, check=False).returncode == 0


collect_ignore = [] if can_mount() else ["test_small_disks.py"]
