"""Compressed bodies: no more of them is decompressed than the bound allows."""

import gzip
import tracemalloc

from app.providers.encodings import decompressed

_MEGABYTE = 1024 * 1024


def test_a_body_of_exactly_the_bound_is_decompressed_and_a_larger_one_is_refused() -> None:
    content = gzip.compress(bytes(1000))
    assert decompressed(content, ["gzip"], bytes_max=1000) == bytes(1000)
    assert decompressed(content, ["gzip"], bytes_max=999) is None


def test_a_body_that_would_fill_the_memory_takes_no_more_than_the_bound() -> None:
    bomb = gzip.compress(bytes(64 * _MEGABYTE), 1)
    for content, encodings in ((bomb, ["gzip"]), (gzip.compress(bomb), ["gzip", "gzip"])):
        tracemalloc.start()
        assert decompressed(content, encodings, bytes_max=_MEGABYTE) is None
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * _MEGABYTE
