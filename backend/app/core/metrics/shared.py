"""Metrics of several worker processes as one: each writes to a folder, and the sums of all are read from there."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from wsgiref.simple_server import WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app, multiprocess, start_http_server, values
from prometheus_client.values import MultiProcessValue

from app.core.metrics.families import NAMESPACE
from app.core.metrics.requests import WORKER_RESTARTS
from app.core.server_settings import ServerSettings
from app.core.settings import ConfigurationError

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported


@contextmanager
def shared_by_workers() -> Iterator["WorkersMetrics"]:
    """Processes that are started inside the `with` share their metrics: each shows those of all.

    Raises ConfigurationError where no temporary folder can be made.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix="nanobanana-metrics-")
    except OSError as error:
        raise ConfigurationError(f"No temporary folder can be made: {error.strerror}.") from None
    with temporary as folder:
        os.environ[_FOLDER] = folder
        try:
            yield WorkersMetrics()
        finally:
            del os.environ[_FOLDER]


def are_shared() -> bool:
    """Whether this process shares its metrics: one that was started inside `shared_by_workers`."""
    return values.ValueClass is not values.MutexValue


def registry_of_all_workers() -> CollectorRegistry:
    """The metrics of all processes that share them with this one."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry


class WorkersMetrics:
    """What the parent of the workers adds to their metrics."""

    def __init__(self) -> None:
        name, meaning = WORKER_RESTARTS
        name = f"{NAMESPACE}_{name}"
        self._restarts = MultiProcessValue()("counter", name, f"{name}_total", [], [], meaning)

    def worker_was_replaced(self, pid: int) -> None:
        """Counts it, and forgets its gauges. What it has counted stays."""
        self.forget_worker(pid)
        self._restarts.inc(1)

    def forget_worker(self, pid: int) -> None:
        """Forgets the gauges of a worker that is gone."""
        multiprocess.mark_process_dead(pid)


Page = Callable[[], tuple[HTTPStatus, Mapping[str, object]]]
"""Its status and its JSON; called in a thread."""
_NO_PAGES: Mapping[str, Page] = {}


@contextmanager
def shown_on_port(
    settings: ServerSettings, registry: CollectorRegistry, pages: Mapping[str, Page] = _NO_PAGES
) -> Iterator[None]:
    """Inside the `with`, METRICS_PORT shows these metrics, if it is set, and the pages by their paths. Raises
    ConfigurationError where the address cannot be had.
    """
    if settings.metrics_port is None:
        yield
    else:
        with served_on(settings.metrics_host, settings.metrics_port, registry, pages):
            yield


@contextmanager
def served_on(
    host: str, port: int, registry: CollectorRegistry, pages: Mapping[str, Page] = _NO_PAGES
) -> Iterator[None]:
    """Inside the `with`, a thread answers every GET on this address: with the page of its path, or the metrics.

    Raises ConfigurationError where the address cannot be had.
    """
    try:
        server, thread = start_http_server(port, host, registry)
        server.set_app(_with_pages(make_wsgi_app(registry), pages))
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "That is no name of a host"
        raise ConfigurationError(
            f"Cannot show metrics on {host}:{port}: {reason}. Choose another with METRICS_HOST and METRICS_PORT."
        ) from None
    try:
        yield
    finally:
        _close(server)
        thread.join()


def _with_pages(metrics: WSGIApplication, pages: Mapping[str, Page]) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = pages.get(environ["PATH_INFO"])
        if page is None:
            return metrics(environ, start_response)
        status, body = page()
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/json")])
        return [json.dumps(body).encode()]

    return answer


def _close(server: WSGIServer) -> None:
    server.shutdown()
    server.server_close()
