"""The whole API under made-up requests, good and bad: it never fails, and always answers as documented."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import schemathesis
from schemathesis.engine import events, from_schema
from tests.conftest import Start
from tests.features.scraped import METRICS_TOKEN
from tests.harness import JSON, sign_up

SEED = 20261122
EXAMPLES = 40  # requests that are made at random for each operation, besides the ones that its schema suggests


@dataclass
class Findings:
    """What came of a run."""

    answers: list[tuple[str, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


async def credentials(client: httpx2.AsyncClient) -> JSON:
    """A credential for each security scheme of the document."""
    account = await sign_up(client)
    key = await account.create_key()
    return {
        "Login token": {"bearer": account.token},
        "API key": {"bearer": key.raw},
        "Metrics token": {"bearer": METRICS_TOKEN},
    }


def configuration(client: httpx2.AsyncClient, schemes: JSON) -> schemathesis.Config:
    return schemathesis.Config.from_dict(
        {
            "seed": SEED,
            "base-url": str(client.base_url).rstrip("/"),
            "workers": 1,
            "continue-on-failure": True,
            "generation": {"mode": "all", "max-examples": EXAMPLES, "database": "none", "deterministic": True},
            "phases": {"stateful": {"enabled": False}},
            # What a schema cannot say is refused too: a blank prompt, a cursor that no Link header gave.
            "checks": {"positive_data_acceptance": {"enabled": False}},
            "auth": {"auto-signup": False} | ({"openapi": schemes} if schemes else {}),
        }
    )


def fuzz(document: JSON, config: schemathesis.Config) -> Findings:
    """Calls every operation of the document, and checks statuses, media types, schemas and headers of the answers."""
    findings = Findings()
    for event in from_schema(schemathesis.openapi.from_dict(document, config=config)).execute():
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


@pytest.mark.parametrize("known", [True, False], ids=["with credentials", "without credentials"])
async def test_nothing_that_can_be_sent_is_a_5xx_or_gets_an_undocumented_answer(start: Start, *, known: bool) -> None:
    client = await start(metrics_token=METRICS_TOKEN)
    document = (await client.get("/openapi.json")).json()
    config = configuration(client, await credentials(client) if known else {})
    findings = await asyncio.to_thread(fuzz, document, config)
    assert findings.wrong == [], f"seed {SEED}\n\n" + "\n\n".join(findings.wrong[:10])
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    closed = {label for label, operation in operations.items() if "security" in operation}
    succeeded = {label for label, status in findings.answers if status < 300}
    assert {label for label, _ in findings.answers} == set(operations)
    assert succeeded & closed == (closed if known else set())
