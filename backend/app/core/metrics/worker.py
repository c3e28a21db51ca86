"""What a process does with asynchronous generations."""

from app.core.metrics.families import Families


class WorkerMetrics:
    """The worker of this process."""

    def __init__(self, families: Families) -> None:
        self.running = families.gauge("worker_jobs", "Asynchronous generations in the hands of workers.")
        self.taken = families.counter("worker_jobs_taken", "Asynchronous generations that workers have taken.")
        self.ended = families.counter(
            "worker_jobs_ended",
            "How workers were done with them: `delivered`, or the code of an error; `given_back`, to wait again; "
            "`left` to others or to the sweep.",
            "outcome",
            values=("delivered", "given_back", "left"),
        )
        self.leases_renewed = families.counter("worker_leases_renewed", "Leases of asynchronous generations renewed.")
        self.leases_lost = families.counter(
            "worker_leases_lost", "Leases of asynchronous generations that were over while a worker drew them."
        )
