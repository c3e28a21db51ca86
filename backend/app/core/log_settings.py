"""The settings of logs."""

from typing import Literal

from pydantic import BaseModel, Field

LogStyle = Literal["json", "text"]


class LogSettings(BaseModel):
    """Logs. The section "Logs" has every line."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The lowest level that is logged. Probes that succeed are `DEBUG`."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto",
        description="`json`, or `text` for people to read; `auto` is `json` with `ENVIRONMENT=production`.",
    )
    log_stream: Literal["stderr", "stdout"] = Field(
        default="stderr",
        description=(
            "Where lines are written. With `stdout`, as for containers, nothing else is written there: what `serve` "
            "prints at its start goes to standard error."
        ),
    )
    log_client_address: bool = Field(
        default=True,
        description="Whether the lines of requests have the client's address, behind `TRUSTED_PROXIES`.",
    )
