"""The settings of logs and traces."""

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from app.core.url_format import split_url

LogStyle = Literal["json", "text"]


class LogSettings(BaseModel):
    """Logs and traces. The section "Logs" has every line."""

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
    otel_exporter_otlp_endpoint: str = Field(
        default="",
        description=(
            "The OpenTelemetry collector that takes traces by OTLP over HTTP, such as `http://localhost:4318`. Needs "
            "the extra `otel`. The other standard variables `OTEL_*` have their meanings, in `.env` too."
        ),
    )

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and split_url(value).scheme not in {"http", "https"}:
            raise ValueError("must begin with http:// or https://")
        return value
