"""The kinds of metrics. Each adds up in plain Python, and hands its sums to prometheus_client when it is refreshed: the
library takes several microseconds to find a metric by its labels and to add to it.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence, Sized
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from app.core.logs import logger

NAMESPACE = "nanobanana"

Mode = Literal["livesum", "livemin", "livemax"]
"""How the values of a gauge in the living workers of a server become one."""

disable_created_metrics()  # the library has them for one process and not for several


class Refreshed(Protocol):
    """Adds up in this process what is shown after `refresh`, which is called where `pending` is not empty."""

    @property
    def pending(self) -> Sized: ...

    def refresh(self) -> None: ...


Kind = TypeVar("Kind", bound=Refreshed)


class Tally:
    """A counter. To be called on the event loop."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._by_labels: dict[tuple[str, ...], Counter] = {}
        self.pending: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, number: float = 1) -> None:
        """Counts so many, with the values of the labels in order."""
        self.pending[labels] = self.pending.get(labels, 0) + number

    def add_from_any_thread(self, number: float) -> None:
        """The same without labels, at once."""
        self._counter.inc(number)

    def begin(self, *labels: str) -> None:
        """Shows zero for these labels: what appears with its first count was never seen to rise."""
        self._counter.labels(*labels)

    def refresh(self) -> None:
        pending, self.pending = self.pending, {}
        for labels, number in pending.items():
            counter = self._by_labels.get(labels)
            if counter is None:
                counter = self._by_labels[labels] = self._counter.labels(*labels) if labels else self._counter
            counter.inc(number)


class _SummedHistogram(Histogram):
    """Takes many observations at a time."""

    def add(self, numbers: Sequence[int], total: float) -> None:
        """How many observations come into each bucket, and their sum."""
        self._sum.inc(total)
        for bucket, number in zip(self._buckets, numbers, strict=True):
            if number:
                bucket.inc(number)


class Distribution:
    """A histogram. To be called on the event loop."""

    def __init__(self, histogram: _SummedHistogram, bounds: Sequence[float]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._by_labels: dict[tuple[str, ...], _SummedHistogram] = {}
        self.pending: dict[tuple[str, ...], list[float]] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Counts one value, with the values of the labels in order."""
        self.pending.setdefault(labels, []).append(value)

    def observe_all(self, values: list[float], *labels: str) -> None:
        """Counts these values."""
        self.pending.setdefault(labels, []).extend(values)

    def refresh(self) -> None:
        pending, self.pending = self.pending, {}
        for labels, values in pending.items():
            histogram = self._by_labels.get(labels)
            if histogram is None:
                histogram = self._by_labels[labels] = self._histogram.labels(*labels) if labels else self._histogram
            values.sort()
            ends = [0, *(bisect_right(values, bound) for bound in self._bounds), len(values)]
            histogram.add([end - start for start, end in pairwise(ends)], sum(values))


class Watched:
    """A gauge whose values are read when it is refreshed."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self.pending: dict[tuple[str, ...], Callable[[], float]] = {}
        """Its readers, by labels."""
        self._shown: dict[tuple[str, ...], float] = {}

    def watch(self, read: Callable[[], float], *labels: str) -> None:
        """Shows what `read` returns, on the event loop, without waiting."""
        self.pending[labels] = read

    def set(self, value: float, *labels: str) -> None:
        """Shows this value."""
        (self._gauge.labels(*labels) if labels else self._gauge).set(value)

    def refresh(self) -> None:
        for labels, read in self.pending.items():
            value = read()
            if self._shown.get(labels) != value:
                self._shown[labels] = value
                self.set(value, *labels)


class Declared(NamedTuple):
    """A metric as the operator sees it."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    labels: Sequence[str]
    meaning: str


class Families:
    """All metrics of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.declared: list[Declared] = []
        self._refreshed: list[Refreshed] = []

    def counter(self, name: str, meaning: str, *labels: str, values: Iterable[str] = ()) -> Tally:
        """A metric whose name has `_total` behind it. It shows zero at once for these values of its only label."""
        self._declare(f"{name}_total", "counter", meaning, labels)
        counter = Counter(name, meaning, labels, namespace=NAMESPACE, registry=self.registry)
        tally = Tally(counter)
        for each in values:
            tally.begin(each)
        return self.refreshing(tally)

    def histogram(self, name: str, meaning: str, *labels: str, bounds: Sequence[float]) -> Distribution:
        """A metric whose buckets end at these values, and above the last."""
        self._declare(name, "histogram", meaning, labels)
        histogram = _SummedHistogram(name, meaning, labels, NAMESPACE, registry=self.registry, buckets=bounds)
        return self.refreshing(Distribution(histogram, bounds))

    def gauge(self, name: str, meaning: str, *labels: str, mode: Mode = "livesum") -> Watched:
        """A metric that is one number over all workers by this mode."""
        self._declare(name, "gauge", meaning, labels)
        gauge = Gauge(name, meaning, labels, NAMESPACE, registry=self.registry, multiprocess_mode=mode)
        return self.refreshing(Watched(gauge))

    def refresh(self) -> None:
        """Hands all sums to prometheus_client, and reads the gauges. What cannot be shown is dropped, and logged: it
        must not grow.
        """
        for each in self._refreshed:
            if each.pending:
                _refresh(each)

    def refreshing(self, each: Kind) -> Kind:
        """Refreshes this too, after what was added before."""
        self._refreshed.append(each)
        return each

    def _declare(
        self, name: str, kind: Literal["counter", "histogram", "gauge"], meaning: str, labels: Sequence[str]
    ) -> None:
        self.declared.append(Declared(f"{NAMESPACE}_{name}", kind, labels, meaning))


def _refresh(each: Refreshed) -> None:
    try:
        each.refresh()
    except OSError:  # the folder that workers share is on a full disk
        logger.exception("metric_not_shown")
