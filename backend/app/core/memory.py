"""How the C library takes memory from the system, and returns it."""

import ctypes

LARGE_BYTES = 8 * 1024 * 1024

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of <malloc.h>


def return_large_blocks_when_freed() -> None:
    """Makes every later allocation of at least LARGE_BYTES a mapping of its own, which is unmapped when it is freed.

    By default glibc raises this threshold to the size of the first large block that is freed. From then on images lie
    in the heap of the thread that made them, between small blocks that stay, and the process grows. Does nothing
    without glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
        libc.mallopt(-1, 64 * 1024 * 1024)
        libc.mallopt(-8, 1)
