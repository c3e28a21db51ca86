"""Memory that the process returns to the system."""

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import ctypes, sys
from app.core.memory import LARGE_BYTES, return_large_blocks_when_freed

class MallocInfo(ctypes.Structure):
    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = MallocInfo
return_large_blocks_when_freed()
for _ in range(3):
    before = libc.mallinfo2().hblks
    block = bytes(LARGE_BYTES)
    during = libc.mallinfo2().hblks
    del block
    print(during - before, libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's threshold is set")
def test_large_blocks_are_unmapped_when_they_are_freed() -> None:
    """Each is a mapping of its own that ends when it is freed, also after the first was freed."""
    output = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == ["1 0"] * 3
