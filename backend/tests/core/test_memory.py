"""What this process gives back to the system."""

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import ctypes, sys
from app.core.memory import LARGE_BYTES, return_large_blocks_when_freed

class Told(ctypes.Structure):
    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Told
return_large_blocks_when_freed()
for _ in range(3):
    before = libc.mallinfo2().hblks
    piece = bytes(LARGE_BYTES)
    during = libc.mallinfo2().hblks
    del piece
    print(during - before, libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library is left to itself")
def test_large_pieces_never_stay_in_the_heap() -> None:
    """Each is a mapping of its own, the ones after the first that was freed too, and the mapping ends with it."""
    said = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["1 0"] * 3
