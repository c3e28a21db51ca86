"""Requests, connections and the process that serves them."""

import time
from collections import defaultdict

from app import __version__
from app.core.metrics.families import Families

WITHOUT_ROUTE, REFUSED = "unmatched", "refused"
"""The routes of requests that no route has, and of requests that were refused before their route was known."""
OTHER_METHOD = "other"
"""The method of requests whose method no route has, or which was not read."""

WORKER_RESTARTS = "worker_restarts", "Worker processes that died or hung, and were replaced."
"""The name and meaning of the counter to which the parent of the workers adds."""

_REQUEST_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class RequestMetrics:
    """Requests by route, method and status: never by a path, of which clients can make as many as they like."""

    def __init__(self, families: Families) -> None:
        self.seconds: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
        """How long each request took since the last look, by route, method and status. What answers requests appends to
        it: a call would cost more than all the rest.
        """
        self.pending = self.seconds
        families.refreshing(self)  # before what it adds to
        self._requests = families.counter(
            "http_requests",
            f"Requests, by how they were answered. The route is a template such as `/v1/images/{{name}}`; "
            f"`{WITHOUT_ROUTE}` where there is none, and `{REFUSED}` where it was not looked for. "
            "The status is 0 where the client hung up first.",
            *("route", "method", "status"),
        )
        self._seconds = families.histogram(
            "http_request_seconds",
            "Seconds from a request's head to the end of its response.",
            "route",
            bounds=_REQUEST_SECONDS,
        )
        self.overload_refusals = families.counter(
            "overload_refusals", "Requests refused because too many were at work."
        )
        self.in_progress = families.gauge(
            "requests_in_progress", "Requests at work: those that count against `REQUESTS_MAX`."
        )
        self.most = families.gauge("requests_max", "`REQUESTS_MAX`, of all workers together.")
        self.connections_open = families.gauge("connections_open", "Connections of clients and proxies.")
        self.connections_ended = families.counter(
            "connections_ended",
            "Connections that the server ended because of their clients: `head` and `body` (too slow), `reader` (does "
            "not read), `idle` (too many), `address` (too many of one); and `response` (the server was too slow).",
            "bound",
            values=("head", "body", "reader", "idle", "address", "response"),
        )

    def count_refused(self, status: int, method: str = OTHER_METHOD) -> None:
        """Counts one request that was answered before its route was looked for: how long it took says nothing."""
        self._requests.add(REFUSED, method, str(status))

    def refresh(self) -> None:
        answered = dict(self.seconds)
        self.seconds.clear()
        for (route, method, status), seconds in answered.items():
            self._requests.add(route, method, str(status), number=len(seconds))
            self._seconds.observe_all(seconds, route)


class ProcessMetrics:
    """The workers, and how well each keeps up."""

    def __init__(self, families: Families) -> None:
        families.gauge("workers", "Worker processes that serve.").set(1)
        families.counter(*WORKER_RESTARTS)
        families.gauge(
            "start_time_seconds", "When the oldest worker began, in seconds since 1970.", mode="livemin"
        ).set(time.time())
        families.gauge("build_info", "1, with the version of the program.", "version", mode="livemax").set(
            1, __version__
        )
        self.billing_on = families.gauge(
            "billing_on", "1 where the images of live keys are charged (`BILLING=on`).", mode="livemax"
        )
        self.loop_lag = families.histogram(
            "event_loop_lag_seconds",
            "How late the event loop of each worker runs what is due, looked at once a second.",
            bounds=_LAG_SECONDS,
        )
        self.dropped_log_lines = families.counter("log_lines_dropped", "Log lines that nobody read in time.")
