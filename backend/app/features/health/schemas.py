"""The wire types of health."""

from typing import Literal

from app.core.schemas import Answer


class Health(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Answer):
    """The process can serve."""

    status: Literal["ready"] = "ready"
