"""The wire types of health."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from app.core.schemas import Answer
from app.readiness import Part


class Health(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """The process can serve."""

    status: Literal["ready"] = "ready"
    degraded: Sequence[Part] = Field(
        description="What does not work now, though most of the API does: see the log and the metrics."
    )
