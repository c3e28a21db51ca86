"""How this process takes memory from the system, and gives it back."""

import ctypes

LARGE_BYTES = 256 * 1024

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of <malloc.h>


def give_back_what_is_large() -> None:
    """From now on whatever has at least LARGE_BYTES is a mapping of its own, which ends when it is freed.

    Left to itself glibc takes the first picture that is freed for a sign that such pieces should be kept: then they lie
    in the heap of whichever thread made them, between small ones that stay, and the process grows. Does nothing where
    there is no glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
