"""The series with which each alert fires, and those with which it does not: rules' tests as promtool reads them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MINUTES = 30

Series = tuple[str, str]
"""A series and its values, one a minute, in promtool's words: `0+3x30` is 0, 3, 6 and so on."""


def _distribution(name: str, *, bound: float, share_above: float) -> Sequence[Series]:
    """A hundred observations a minute, of which this share is above the bound."""
    within = round(100 * (1 - share_above))
    return [
        (f'{name}_bucket{{le="{bound}"}}', f"0+{within}x{_MINUTES}"),
        (f'{name}_bucket{{le="{2 * bound}"}}', f"0+100x{_MINUTES}"),
        (f'{name}_bucket{{le="+Inf"}}', f"0+100x{_MINUTES}"),
    ]


def _counted(name: str) -> tuple[Sequence[Series], Sequence[Series]]:
    return [(name, f"0+1x{_MINUTES}")], [(name, f"7x{_MINUTES}")]


def _shown(name: str, firing: float, quiet: float) -> tuple[Sequence[Series], Sequence[Series]]:
    return [(name, f"{firing}x{_MINUTES}")], [(name, f"{quiet}x{_MINUTES}")]


def _answered(bad: int) -> Sequence[Series]:
    return [
        ('nanobanana_http_requests_total{status="200"}', f"0+{1000 - bad}x{_MINUTES}"),
        ('nanobanana_http_requests_total{status="503"}', f"0+{bad}x{_MINUTES}"),
    ]


def _connections(used: int) -> Sequence[Series]:
    return [
        ("nanobanana_database_connections", f"{used}x{_MINUTES}"),
        ("nanobanana_database_connections_max", f"20x{_MINUTES}"),
    ]


def _jobs(*, waiting: int, running: int) -> Sequence[Series]:
    return [
        ('nanobanana_jobs_waiting{class="now"}', f"{waiting}x{_MINUTES}"),
        ('nanobanana_jobs_running{class="batch"}', f"{running}x{_MINUTES}"),
    ]


_LAG, _COMMIT = "nanobanana_event_loop_lag_seconds", "nanobanana_ledger_commit_seconds"
_UNREPORTED = "nanobanana_billing_oldest_unreported_seconds"
_TRIES = 'nanobanana_provider_tries_total{route="a",result="unusable"}'

SERIES: dict[str, tuple[Sequence[Series], Sequence[Series]]] = {
    "NanobananaDown": _shown('up{job="nanobanana",instance="a"}', 0, 1),
    "NanobananaErrors": (_answered(30), _answered(10)),
    "NanobananaOverloaded": _counted("nanobanana_overload_refusals_total"),
    "NanobananaResponseTimeouts": _counted('nanobanana_connections_ended_total{bound="response"}'),
    "NanobananaWorkerDied": _counted("nanobanana_worker_restarts_total"),
    "NanobananaEventLoopLate": (
        _distribution(_LAG, bound=0.25, share_above=0.2),
        _distribution(_LAG, bound=0.25, share_above=0.05),
    ),
    "NanobananaLogLinesDropped": _counted("nanobanana_log_lines_dropped_total"),
    "NanobananaDatabaseNotWritable": _shown("nanobanana_database_writable", 0, 1),
    "NanobananaLedgerFailures": _counted('nanobanana_ledger_failures_total{outcome="unknown"}'),
    "NanobananaCommitsSlow": (
        _distribution(_COMMIT, bound=0.5, share_above=0.2),
        _distribution(_COMMIT, bound=0.5, share_above=0.05),
    ),
    "NanobananaLocks": _counted('nanobanana_database_errors_total{sqlstate="40P01"}'),
    "NanobananaDatabasePoolFull": (_connections(20), _connections(10)),
    "NanobananaRouteUnusable": _counted(_TRIES),
    "NanobananaRouteOpen": _shown('nanobanana_routes_open{route="a"}', 2, 0),
    "NanobananaProviderCallsWaiting": _shown('nanobanana_provider_calls_waiting{route="a"}', 3, 0),
    "NanobananaJobsWaitLong": _shown('nanobanana_jobs_oldest_seconds{class="now"}', 400, 200),
    "NanobananaJobsNotTaken": (_jobs(waiting=3, running=0), _jobs(waiting=3, running=1)),
    "NanobananaJobsLost": _counted('nanobanana_jobs_ended_total{outcome="lost"}'),
    "NanobananaStoreFailing": _shown("nanobanana_store_failing", 1, 0),
    "NanobananaStoreNearlyFull": _shown('nanobanana_store_free_bytes{store="disk"}', 4e9, 6e9),
    "NanobananaSweepStopped": _counted("nanobanana_sweeps_stopped_total"),
    "NanobananaPruneStopped": _counted("nanobanana_prunes_stopped_total"),
    "NanobananaHoursUnreported": _shown(_UNREPORTED, 3700, 3500),
    "NanobananaHoursUnreportedLong": _shown(_UNREPORTED, 72_100, 3500),
    "NanobananaHoursTooOld": _shown(_UNREPORTED, 2_600_000, 3500),
    "NanobananaCustomerMissing": _shown("nanobanana_billing_accounts_without_customer", 1, 0),
    "NanobananaMeterContradicts": _counted('nanobanana_billing_meter_failures_total{reason="contradiction"}'),
    "NanobananaEntriesContradict": _counted("nanobanana_billing_entry_mismatches_total"),
    "NanobananaLimitsNotShared": _shown("nanobanana_limits_not_shared", 1, 0),
}
"""For each alert, series with which it fires, and series with which none does."""


def rule_tests(rules: Path) -> dict[str, Any]:
    """A file of tests for `promtool test rules`."""
    tests = [
        {
            "name": f"{alert} {state}",
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})' if state else "ALERTS",
                    "eval_time": f"{_MINUTES - 5}m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if state else [],
                }
            ],
        }
        for alert, both in SERIES.items()
        for state, series in zip(("fires", ""), both, strict=True)
    ]
    return {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}
