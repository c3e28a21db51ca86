"""How the C library takes memory from the system, and returns it."""

import ctypes

LARGE_BYTES = 2 * 1024 * 1024

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8  # M_... of <malloc.h>
_KEPT_BYTES = 64 * 1024 * 1024


def return_large_blocks_when_freed() -> None:
    """Makes every later allocation of at least LARGE_BYTES a mapping of its own, which is unmapped when it is freed.
    Smaller ones, of which an image makes several, lie in one heap for all threads, which keeps 64 MiB of what is freed.

    By default glibc has a heap for each thread, and raises the threshold to the size of the first large block that is
    freed. From then on images lie in every heap between small blocks that stay, and the process grows. With a mapping
    for each image it does not, and a third of its processor time goes into new pages. Does nothing without glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_ARENA_MAX, 1)
