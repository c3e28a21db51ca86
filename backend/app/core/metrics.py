"""Counters for the operator's Prometheus, added up over all workers of one server."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess

from app.core.settings import ConfigurationError

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
        self._images_by_labels: dict[tuple[str, str, str], Counter] = {}
        self._routes_open = Gauge(
            "routes_open",
            "Processes whose breaker of a route is open.",
            ["route"],
            namespace="nanobanana",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def count_images(self, model: str, route: str, outcome: str, number: int = 1) -> None:
        """Counts images that ended. `route` is empty where none was needed or tried; `outcome` is `delivered`, or the
        code of an error.
        """
        labels = model, route, outcome
        counter = self._images_by_labels.get(labels)
        if counter is None:  # finding it by its labels takes longer than counting
            counter = self._images_by_labels[labels] = self._images.labels(*labels)
        counter.inc(number)

    def set_route_state(self, route: str, state: str) -> None:
        """Records whether this process tries other routes before this one: `open` or `closed`."""
        self._routes_open.labels(route).set(state == "open")

    def text(self) -> bytes:
        """All counters in Prometheus' text format."""
        if _SHARED_FOLDER not in os.environ:
            return generate_latest(self._registry)
        all_workers = CollectorRegistry()
        multiprocess.MultiProcessCollector(all_workers)
        return generate_latest(all_workers)

    def _counter(self, name: str, meaning: str, labels: list[str] | None = None) -> Counter:
        return Counter(name, meaning, labels or [], namespace="nanobanana", registry=self._registry)
