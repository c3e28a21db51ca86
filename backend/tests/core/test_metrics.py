"""What metrics add up in this process, and the port that shows them."""

import errno
import os
from bisect import bisect_left
from io import StringIO

import httpx2
import pytest
from app.core.metrics import Metrics
from app.core.metrics.families import Families
from app.core.metrics.shared import served_on
from app.core.settings import ConfigurationError
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.harness import free_port

BOUNDS = (0.1, 1, 10)


def _samples(families: Families) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample that is shown, by its name and the values of its labels."""
    families.refresh()
    shown = text_string_to_metric_families(generate_latest(families.registry).decode())
    return {(sample.name, tuple(sample.labels.values())): sample.value for each in shown for sample in each.samples}


def test_a_histogram_that_is_filled_in_bulk_is_what_single_observations_would_make_it() -> None:
    families = Families()
    distribution = families.histogram("seconds", "Seconds.", "route", bounds=BOUNDS)
    values = [*(number % 13 + number / 300 for number in range(200)), *BOUNDS]
    expected = [0] * (len(BOUNDS) + 1)
    for number, value in enumerate(values):
        distribution.observe(value, "a")
        expected[bisect_left(BOUNDS, value)] += 1
        if number % 50 == 0:
            families.refresh()
    samples = _samples(families)
    for place, bound in enumerate(("0.1", "1.0", "10.0", "+Inf")):
        assert samples["nanobanana_seconds_bucket", (bound, "a")] == sum(expected[: place + 1])
    assert samples["nanobanana_seconds_count", ("a",)] == len(values)
    assert samples["nanobanana_seconds_sum", ("a",)] == pytest.approx(sum(values))


def test_what_is_counted_between_two_looks_is_shown_once() -> None:
    families = Families()
    tally = families.counter("calls", "Calls.", "limit")
    tally.begin("b")
    tally.add("a")
    tally.add("a", number=2)
    for _ in range(2):
        samples = _samples(families)
        assert (samples["nanobanana_calls_total", ("a",)], samples["nanobanana_calls_total", ("b",)]) == (3, 0)


def test_a_gauge_is_read_when_it_is_shown() -> None:
    families, values = Families(), [3.0]
    families.gauge("queue", "Waiting.").watch(lambda: values[0])
    assert _samples(families)["nanobanana_queue", ()] == 3
    values[0] = 5
    assert _samples(families)["nanobanana_queue", ()] == 5


def test_the_port_for_metrics_answers_without_a_token_and_is_closed_at_the_end() -> None:
    metrics, port = Metrics(), free_port()
    with served_on("127.0.0.1", port, metrics.families.registry):
        answer = httpx2.get(f"http://127.0.0.1:{port}/metrics")
        assert (answer.status_code, "nanobanana_build_info{" in answer.text) == (200, True)
        with pytest.raises(ConfigurationError, match=f"^Cannot show metrics on 127.0.0.1:{port}: .* METRICS_PORT"):
            served_on("127.0.0.1", port, metrics.families.registry).__enter__()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{port}/metrics")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "300.1.1.1"])
def test_a_host_for_metrics_that_cannot_be_had_is_one_sentence(host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^Cannot show metrics on {host}:1024: "):
        served_on(host, 1024, Metrics().families.registry).__enter__()


def test_a_metric_that_cannot_be_shown_keeps_no_other_from_being_shown(log: StringIO) -> None:
    class OnAFullDisk:
        pending = (1,)

        def refresh(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    families = Families()
    families.refreshing(OnAFullDisk())
    families.counter("calls", "Calls.").add()
    assert _samples(families)["nanobanana_calls_total", ()] == 1
    assert "metric_not_shown" in log.getvalue()
