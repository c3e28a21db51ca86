"""Counters for the operator's Prometheus, added up over all workers of one server."""

import asyncio
import os
import tempfile
from collections import Counter as CounterOf
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

from app.core.settings import ConfigurationError

_COUNT_SECONDS = 1
_SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported


@contextmanager
def shared_by_workers() -> Iterator[None]:
    """Processes that are started inside the `with` share their counters: each shows the sums of all.

    Raises ConfigurationError where no temporary folder can be made.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix="nanobanana-metrics-")
    except OSError as error:
        raise ConfigurationError(f"No temporary folder can be made: {error.strerror}.") from None
    with temporary as folder:
        os.environ[_SHARED_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_SHARED_FOLDER]


class Metrics:
    """The counters of this process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.limit_refusals = self._counter(
            "limit_refusals", "Calls that a limit refused, or in mode `observe` would have.", ["limit", "mode"]
        )
        self.limit_outages = self._counter("limit_outages", "How often a process lost its shared limits.")
        self.own_decisions = self._counter("limit_own_decisions", "Calls decided by a process without shared limits.")
        self.sweeps_stopped = self._counter(
            "sweeps_stopped", "Sweeps that found implausibly many images to be too old, and deleted none."
        )
        self.prunes_stopped = self._counter(
            "prunes_stopped", "Times at which a month of generations was implausibly long due, and not dropped."
        )
        self.overload_refusals = self._counter("overload_refusals", "Requests refused because too many were at work.")
        self.dropped_log_lines = self._counter("log_lines_dropped", "Log lines that nobody read in time.")
        self.connections_ended = self._counter(
            "connections_ended", "Connections that the server ended, by what their clients did not keep.", ["bound"]
        )

        self.provider_tries = self._counter(
            "provider_tries",
            "Requests for an image at a route of the catalogue, by how they ended.",
            ["route", "result"],
        )
        self._images = self._counter(
            "images", "Images that were asked for, by how they ended.", ["model", "route", "outcome"]
        )
        self._images_to_count: CounterOf[tuple[str, str, str]] = CounterOf()
        self._is_counting_soon = False
        self._routes_open = Gauge(
            "routes_open",
            "Processes whose breaker of a route is open.",
            ["route"],
            namespace="nanobanana",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def count_images(self, model: str, route: str, outcome: str, number: int = 1) -> None:
        """Counts images that ended, within a second. `route` is empty where none was needed or tried; `outcome` is
        `delivered`, or the code of an error. To be called on the event loop.
        """
        self._images_to_count[model, route, outcome] += number
        if not self._is_counting_soon:
            self._is_counting_soon = True
            asyncio.get_running_loop().call_later(_COUNT_SECONDS, self._count_images)

    def _count_images(self) -> None:
        # Together: the library takes several microseconds to find a counter by its labels and to add to it.
        self._is_counting_soon = False
        for labels, number in self._images_to_count.items():
            self._images.labels(*labels).inc(number)
        self._images_to_count.clear()

    def set_route_state(self, route: str, state: str) -> None:
        """Records whether this process tries other routes before this one: `open` or `closed`."""
        self._routes_open.labels(route).set(state == "open")

    def text(self) -> bytes:
        """All counters in Prometheus' text format."""
        self._count_images()
        if _SHARED_FOLDER not in os.environ:
            return generate_latest(self._registry)
        all_workers = CollectorRegistry()
        multiprocess.MultiProcessCollector(all_workers)
        return generate_latest(all_workers)

    def _counter(self, name: str, meaning: str, labels: list[str] | None = None) -> Counter:
        return Counter(name, meaning, labels or [], namespace="nanobanana", registry=self._registry)
