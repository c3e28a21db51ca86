"""Traces, as the rest of the program knows them. OpenTelemetry's SDK is imported only where they are asked for."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from importlib import import_module
from types import ModuleType
from typing import Protocol, cast

from app.core.settings import ConfigurationError, Settings

Attribute = str | int | float | bool
Attributes = Mapping[str, Attribute | None]
"""What is known of a span. None is left out. No value is a caller's or a provider's word, or a secret."""


class Span(Protocol):
    """A step of a request that is being traced."""

    def describe(self, attributes: Attributes, *, name: str | None = None) -> None:
        """Adds the attributes, and changes the name where one is given."""
        ...


class Tracing(Protocol):
    """Traces of this process. What is slow or fails in exporting them delays nothing: spans are dropped."""

    def span(self, name: str, attributes: Attributes) -> AbstractContextManager[Span]:
        """A span of what happens in the `with`, below the current one of this task. An error of it is recorded by its
        class alone.
        """
        ...

    def request_span(self, name: str, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Span]:
        """A span of a request, in the trace that its W3C `traceparent` names, else in a new one."""
        ...

    async def close(self) -> None:
        """Exports what waits, for a second at most."""
        ...


@asynccontextmanager
async def open_tracing(settings: Settings) -> AsyncIterator[Tracing | None]:
    """Traces for the collector of OTEL_EXPORTER_OTLP_ENDPOINT, closed at the end; None without one. Raises
    ConfigurationError where the extra is not installed.
    """
    module = import_sdk(settings)
    if module is None:
        yield None
        return
    tracing = cast("Tracing", module.OpenTelemetry(settings.otel_exporter_otlp_endpoint))
    try:
        yield tracing
    finally:
        await tracing.close()


def import_sdk(settings: Settings) -> ModuleType | None:
    """Imports what traces need, where they are on. Raises ConfigurationError where it is not installed."""
    if not settings.otel_exporter_otlp_endpoint:
        return None
    try:
        return import_module("app.core.otel")
    except ImportError:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed. "
            "Install it with: pip install 'nanobanana[otel]'"
        ) from None
