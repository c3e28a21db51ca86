"""Metrics for the operator's Prometheus, right over all workers of one server.

Every metric is declared here, with its name, its labels and its meaning; docs/monitoring.md has the same table. Labels
have few values: routes of the application, models and routes of the catalogue, codes of errors; never what a client
sends.
"""

import asyncio

from prometheus_client import generate_latest

from app.core.metrics.billing import BillingMetrics
from app.core.metrics.families import Families
from app.core.metrics.requests import ProcessMetrics, RequestMetrics
from app.core.metrics.shared import are_shared, registry_of_all_workers
from app.core.metrics.work import DatabaseMetrics, ImageMetrics, JobMetrics, LimitMetrics, PoolMetrics
from app.core.metrics.worker import WorkerMetrics

_REFRESH_SECONDS = 1


class Metrics:
    """The metrics of this process. What it counts is added up in Python, and shown within a second."""

    def __init__(self) -> None:
        self.families = Families()
        self.requests = RequestMetrics(self.families)
        self.process = ProcessMetrics(self.families)
        self.images = ImageMetrics(self.families)
        self.jobs = JobMetrics(self.families)
        self.database = DatabaseMetrics(self.families)
        self.limits = LimitMetrics(self.families)
        self.pools = PoolMetrics(self.families)
        self.worker = WorkerMetrics(self.families)
        self.billing = BillingMetrics(self.families)

    async def keep_fresh(self) -> None:
        """Hands what was counted to prometheus_client once a second, and sees how late the event loop is for it."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                due = loop.time() + _REFRESH_SECONDS
                await asyncio.sleep(_REFRESH_SECONDS)
                self.process.loop_lag.observe(max(0.0, loop.time() - due))
                self.families.refresh()
        finally:
            self.families.refresh()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format: those of other workers as they were within the last second."""
        self.families.refresh()
        return generate_latest(registry_of_all_workers() if are_shared() else self.families.registry)
