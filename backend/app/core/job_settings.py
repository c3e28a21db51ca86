"""The settings of asynchronous generations: who works on them, how many at a time, and how many may wait."""

from pydantic import BaseModel, Field


class JobSettings(BaseModel):
    """Asynchronous generations, which wait in the database for a worker."""

    work: bool = Field(
        default=True,
        description="Work on asynchronous generations in the server's own processes, besides any `nanobanana work`.",
    )
    jobs_at_a_time: int = Field(
        default=32, ge=1, le=10_000, description="Asynchronous generations that one process works on at a time."
    )
    jobs_per_account: int = Field(
        default=16,
        ge=1,
        le=1_000_000,
        description=(
            "Asynchronous images of an account that may be drawn at a time, over all machines, unless its lane says "
            "otherwise; those of one key no more than it may have running."
        ),
    )
    jobs_waiting_per_account: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Asynchronous images of an account that may wait; beyond it, 429 `queue_full`.",
    )
    job_deadline_seconds: float = Field(
        default=300,
        ge=1,
        le=3600,
        description="How long an asynchronous generation may be drawn, once a worker has taken it.",
    )
    job_lease_seconds: float = Field(
        default=30,
        ge=1,
        le=600,
        description=(
            "How long a worker that has gone silent keeps an asynchronous generation. While it lives it renews this "
            "three times as often."
        ),
    )
    waiting_callers_max: int = Field(
        default=2000,
        ge=1,
        le=1_000_000,
        description=(
            "Callers that one process lets wait for asynchronous generations, besides `REQUESTS_MAX`; those of "
            "one account are at most a quarter. Beyond it, 503 `overloaded`."
        ),
    )
