"""The whole API under made-up requests, good and bad: it never fails, and always answers as documented."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx2
import pytest
import schemathesis
from app.providers.stub.art import draw_png
from schemathesis.engine import events, from_schema
from tests.conftest import Start
from tests.features.scraped import METRICS_TOKEN
from tests.harness import sign_up

SEED = 20261122
IS_LONG = os.environ.get("FUZZ") == "long"
EXAMPLES = 400 if IS_LONG else 5
"""Requests that are made at random for each operation, besides the ones that its schema suggests."""


@dataclass
class Findings:
    """What came of a run."""

    answers: list[tuple[str, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


async def credential(client: httpx2.AsyncClient, scheme: str) -> str:
    """A new credential of a security scheme of the document."""
    if scheme == "Metrics token":
        return METRICS_TOKEN
    account = await sign_up(client)
    return account.token if scheme == "Login token" else (await account.create_key()).raw


def with_credentials(schema: schemathesis.BaseSchema, credential: Callable[[str], str]) -> None:
    """Has every operation called with a credential of its scheme, and with a new one after a call that ended it."""

    def scheme(case: schemathesis.Case[Any], _: schemathesis.AuthContext) -> str:
        schemes = [name for each in case.operation.definition.raw.get("security", [{"": []}]) for name in each]
        return str(schemes[0])

    class Bearer:
        def get(self, case: schemathesis.Case[Any], context: schemathesis.AuthContext) -> str | None:
            needed = scheme(case, context)
            return credential(needed) if needed else None

        def set(self, case: schemathesis.Case[Any], bearer: str, _: schemathesis.AuthContext) -> None:
            case.headers["Authorization"] = f"Bearer {bearer}"

    schema.auth(cache_by_key=scheme)(Bearer)


def configuration(client: httpx2.AsyncClient, *, known: bool) -> schemathesis.Config:
    """What its schema suggests for an operation is sent by a client with credentials, and with FUZZ=long by any client:
    others are refused whatever they send.
    """
    return schemathesis.Config.from_dict(
        {
            "seed": SEED,
            "base-url": str(client.base_url).rstrip("/"),
            "workers": 1,
            "continue-on-failure": True,
            "generation": {"mode": "all", "max-examples": EXAMPLES, "database": "none", "deterministic": True},
            "phases": {"stateful": {"enabled": False}, "coverage": {"enabled": known or IS_LONG}},
            # What a schema cannot say is refused too: a blank prompt, a cursor that no Link header gave.
            "checks": {
                "positive_data_acceptance": {"enabled": False},
                "negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]},
            },
            "auth": {"auto-signup": False},
        }
    )


def fuzz(schema: schemathesis.BaseSchema) -> Findings:
    """Calls every operation of the document, and checks statuses, media types, schemas and headers of the answers."""
    findings = Findings()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            note(event.recorder, findings)
        elif isinstance(event, events.NonFatalError | events.FatalError | events.Interrupted):
            findings.wrong.append(repr(event))
    return findings


def note(recorder: Any, findings: Findings) -> None:
    for case_id, interaction in recorder.interactions.items():
        case = recorder.cases[case_id].value
        answer = interaction.response
        if answer is None:
            findings.wrong.append(f"{recorder.label}: no answer to {case.as_curl_command()}")
            continue
        findings.answers.append((recorder.label, answer.status_code))
        broken = [check for check in recorder.checks.get(case_id, []) if check.failure_info]
        findings.wrong += [f"{check.failure_info.failure}\n{case.as_curl_command()}" for check in broken]
        if answer.status_code >= 500 or not {"x-request-id", "x-content-type-options"} <= set(answer.headers):
            findings.wrong.append(f"{answer.status_code} {answer.headers}\n{case.as_curl_command()}")


@cache
def drawn_once(*, width: int, height: int) -> bytes:
    return draw_png("A cute banana", width=width, height=height)


@pytest.fixture(autouse=True)
def quick_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub draws each size once: hundreds of answers hold an image, and drawing them all would take most of the
    time.
    """

    def draw(_prompt: str, *, width: int, height: int, model: str = "") -> bytes:
        del model
        return drawn_once(width=width, height=height)

    monkeypatch.setattr("app.providers.stub.draw_png", draw)


@pytest.mark.parametrize("known", [True, False], ids=["with credentials", "without credentials"])
async def test_nothing_that_can_be_sent_is_a_5xx_or_gets_an_undocumented_answer(start: Start, *, known: bool) -> None:
    client = await start(metrics_token=METRICS_TOKEN)
    document = (await client.get("/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document, config=configuration(client, known=known))
    loop = asyncio.get_running_loop()
    if known:
        with_credentials(
            schema, lambda scheme: asyncio.run_coroutine_threadsafe(credential(client, scheme), loop).result()
        )
    findings = await asyncio.to_thread(fuzz, schema)
    assert findings.wrong == [], f"seed {SEED}\n\n" + "\n\n".join(findings.wrong[:10])
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    closed = {label for label, operation in operations.items() if "security" in operation}
    succeeded = {label for label, status in findings.answers if status < 300}
    assert {label for label, _ in findings.answers} == set(operations)
    # What the stub draws has ended when it is accepted: here nothing can be cancelled.
    closed -= {"POST /v1/generations/{generation_id}/cancel"}
    # Nor is anything sold.
    closed -= {f"POST /v1/billing/{each}" for each in ("top-ups", "subscription", "portal")}
    closed -= {"DELETE /v1/billing/subscription", "GET /v1/billing/invoices"}
    assert succeeded & closed == (closed if known else set())
