"""Traces by OpenTelemetry's SDK, exported by OTLP over HTTP. `tracing.py` imports this module, if traces are on."""

import asyncio
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.core.logs import logger
from app.core.tracing import Attributes

_CLOSE_SECONDS = 1.0
_W3C = {b"traceparent": "traceparent", b"tracestate": "tracestate"}
_QUIET_LIBRARIES = ("opentelemetry", "urllib3", "requests")  # `traces_not_exported` says it once a minute


class OpenTelemetry:
    """Traces for one collector, of a TracerProvider of its own: no library adds spans, and none is told of ours. The
    variables OTEL_* have their standard meanings.
    """

    def __init__(self, endpoint: str) -> None:
        for library in _QUIET_LIBRARIES:
            logging.getLogger(library).setLevel(logging.CRITICAL)
        given = OTELResourceDetector().detect().attributes
        resource = Resource.create({} if "service.name" in given else {"service.name": "nanobanana"})
        url = None if "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in os.environ else f"{endpoint.rstrip('/')}/v1/traces"
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Exporter(OTLPSpanExporter(url))))
        self._tracer = self._provider.get_tracer("nanobanana")
        self._w3c = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator["_Span"]:
        """As in Tracing."""
        with self._begun(name, trace.SpanKind.INTERNAL, None) as span:
            span.describe(attributes)
            yield span

    @contextmanager
    def request_span(self, name: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator["_Span"]:
        """As in Tracing."""
        carrier = {_W3C[header]: value.decode("latin-1") for header, value in headers if header in _W3C}
        with self._begun(name, trace.SpanKind.SERVER, self._w3c.extract(carrier, Context())) as span:
            yield span

    @contextmanager
    def _begun(self, name: str, kind: trace.SpanKind, context: Context | None) -> Iterator["_Span"]:
        # An exception's text may quote what a caller sent, so OpenTelemetry is not to record it.
        with self._tracer.start_as_current_span(
            name, context, kind, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield _Span(span)
            except BaseException as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(trace.StatusCode.ERROR)
                raise

    async def close(self) -> None:
        """As in Tracing."""
        loop, is_closed = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the process did not wait for it
                loop.call_soon_threadsafe(is_closed.set)

        threading.Thread(target=shut_down, name="close-traces", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await is_closed.wait()


class _Span:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def describe(self, attributes: Attributes, *, name: str | None = None) -> None:
        """As in Span."""
        self._span.set_attributes({key: value for key, value in attributes.items() if value is not None})
        if name is not None:
            self._span.update_name(name)


class _Exporter(SpanExporter):
    """Says in our own words, which quote nobody, that spans were not taken."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called by the processor's thread."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            logger.warning("traces_not_exported")
        return result

    def shutdown(self) -> None:
        """Ends an export that is being repeated."""
        self._exporter.shutdown()
