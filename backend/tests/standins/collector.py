"""A stand-in for an OpenTelemetry collector: it takes traces by OTLP over HTTP, and shows them as a tree."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.harness import looks
from tests.standins.wire import Reply, Seen


class Node(NamedTuple):
    """A span, and those below it in the order of their starts."""

    name: str
    attributes: Mapping[str, Any]
    below: list["Node"]

    @property
    def names(self) -> list[Any]:
        """Its name, followed by those of each below it."""
        return [self.name, *(each.names if each.below else each.name for each in self.below)]


class Collector:
    """Takes what is posted to `/v1/traces`. With `gate`, it answers once that is set."""

    def __init__(self, *, gate: asyncio.Event | None = None) -> None:
        self.seen: list[Seen] = []
        self.spans: list[Span] = []
        self.resources: list[Mapping[str, Any]] = []
        self._gate = gate

    def answer(self, seen: Seen) -> Reply:
        assert (seen.method, seen.target) == ("POST", "/v1/traces")
        assert seen.headers["content-type"] == "application/x-protobuf"
        self.seen.append(seen)
        for of_resource in ExportTraceServiceRequest.FromString(seen.body).resource_spans:
            self.resources.append(_attributes(of_resource.resource))
            self.spans += [span for scope in of_resource.scope_spans for span in scope.spans]
        return Reply(gate=self._gate)

    async def trace(self, trace_id: str, parent_id: str) -> Node:
        """The tree below this span of a caller, once its root has arrived: that ends last."""
        for _ in looks():
            mine = [span for span in self.spans if span.trace_id.hex() == trace_id]
            if roots := [span for span in mine if span.parent_span_id.hex() == parent_id]:
                [root] = roots
                return _node(root, mine)
            await asyncio.sleep(0.01)
        raise AssertionError("the trace has not arrived")


def _node(span: Span, spans: list[Span]) -> Node:
    below = [each for each in spans if each.parent_span_id == span.span_id]
    below.sort(key=lambda each: each.start_time_unix_nano)
    return Node(span.name, _attributes(span), [_node(each, spans) for each in below])


def _attributes(of: Any) -> Mapping[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}
