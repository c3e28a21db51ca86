"""Traces: the tree of a generation at a collector, nothing of it at a provider, and nobody waits for a collector."""

import asyncio
import os
import secrets
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from app.core import locations
from app.core.settings_loading import load_settings
from tests.conftest import Start
from tests.core.test_logs import lines_of
from tests.features.generate.painted import PROVIDER_KEY, painted
from tests.harness import PATIENCE_SECONDS, generate, looks
from tests.standins.collector import Collector
from tests.standins.wire import Reply, serving
from tests.test_cli import nanobanana_in_here

TRACE_ID, PARENT_ID = secrets.token_hex(16), secrets.token_hex(8)
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
OPTIONAL = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter",
    "app.core.otel",
    "stripe",
)  # redis imports the SDK's metrics itself
IMPORTED = f"import sys, app.cli, app.server; print([each for each in sys.modules if each.startswith({OPTIONAL!r})])"


@pytest.fixture(autouse=True)
def _spans_are_exported_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


async def test_a_generation_is_one_tree_in_the_trace_of_its_caller_and_holds_no_words(start: Start) -> None:
    collector, prompt = Collector(), f"canary-prompt-{secrets.token_hex(8)}"
    async with serving(collector.answer) as url, painted(start, otel_exporter_otlp_endpoint=url) as traced:
        key, account = traced.key, traced.account
        traced.client.headers["traceparent"] = TRACEPARENT
        answer = await generate(traced.client, key, prompt=prompt)
        assert answer.status_code == 200
        root = await collector.trace(TRACE_ID, PARENT_ID)
    steps = ["admission", "ledger.record", "provider.draw", "store.put", "ledger.settle"]
    assert root.names == ["POST /v1/generate", *steps]
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/generate",
        "http.response.status_code": 200,
        "nanobanana.request_id": answer.headers["x-request-id"],
        "nanobanana.account": account.account_id,
        "nanobanana.key": key.id,
        "nanobanana.model": answer.json()["model"],
    }
    drawn = {"route": "nano-banana", "provider": "gemini", "model": answer.json()["model"], "place": 0, "calls": 1}
    assert root.below[2].attributes.items() >= drawn.items()
    assert collector.resources[0]["service.name"] == "nanobanana"
    [asked] = [seen for seen in traced.provider.seen if seen.method == "POST"]
    assert not {"traceparent", "tracestate", "baggage"} & asked.headers.keys()
    exported = b"".join(seen.body for seen in collector.seen)
    for word in (prompt, key.raw, PROVIDER_KEY, account.email, account.token, answer.json()["id"]):
        assert word.encode() not in exported


async def test_a_failed_try_has_its_failure_and_status_and_no_text(start: Start) -> None:
    collector, words = Collector(), f"canary-words-{secrets.token_hex(8)}"
    async with serving(collector.answer) as url, painted(start, otel_exporter_otlp_endpoint=url) as traced:
        traced.provider.faults.append(Reply(words.encode(), 400))
        traced.client.headers["traceparent"] = TRACEPARENT.replace(TRACE_ID, TRACE_ID[::-1])
        assert (await generate(traced.client, traced.key)).status_code == 502
        root = await collector.trace(TRACE_ID[::-1], PARENT_ID)
    [tried] = [node for node in root.below if node.name == "provider.draw"]
    assert tried.attributes.items() >= {"failure": "request", "status": 400, "error.type": "ProviderFailed"}.items()
    assert root.attributes["error.type"] == "provider_failed"
    assert words.encode() not in b"".join(seen.body for seen in collector.seen)


async def test_a_collector_that_is_silent_delays_neither_calls_nor_the_stop(start: Start) -> None:
    collector = Collector(gate=asyncio.Event())
    async with serving(collector.answer) as url, asyncio.timeout(PATIENCE_SECONDS):
        client = await start(otel_exporter_otlp_endpoint=url)
        for _ in looks():
            assert (await client.get("/v1/keys")).status_code == 401
            if collector.seen:
                break
        assert (await client.get("/v1/keys")).status_code == 401


async def test_a_collector_that_is_not_there_is_a_line_in_our_own_words(
    start: Start, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    async with serving(lambda _: Reply()) as url:
        pass  # nobody listens there any more
    client = await start(otel_exporter_otlp_endpoint=url)
    assert (await client.get("/v1/keys")).status_code == 401
    for _ in looks():
        if "traces_not_exported" in log.getvalue():
            break
        await asyncio.sleep(0.05)
    assert "traces_not_exported" in log.getvalue()
    assert {line["logger"] for line in lines_of(log) if not line["logger"].startswith("http")} == {"nanobanana"}


def test_without_the_extra_serve_ends_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "app.core.otel", None)  # as if an import of it failed
    done = nanobanana_in_here(tmp_path, "serve", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "nanobanana: OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed. "
        "Install it with: pip install 'nanobanana[otel]'\n"
    )


def test_without_settings_for_them_no_sdk_of_traces_or_of_stripe_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_standard_variables_of_the_env_file_reach_the_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "CHECKOUT", tmp_path)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "of the environment")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS", raising=False)
    lines = ("ENDPOINT=http://127.0.0.1:4318", "HEADERS=authorization=secret")
    named = "".join(f"OTEL_EXPORTER_OTLP_{line}\n" for line in lines)
    (tmp_path / ".env").write_text(f"{named}OTEL_SERVICE_NAME=of the file\n")
    assert load_settings().otel_exporter_otlp_endpoint == "http://127.0.0.1:4318"
    assert os.environ["OTEL_EXPORTER_OTLP_HEADERS"] == "authorization=secret"
    assert os.environ["OTEL_SERVICE_NAME"] == "of the environment"
