"""A deployment for all tests, and what its Prometheus has of it before any fault."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import pytest
from tests.core.conftest import can_mount
from tests.harness import fresh_database, generate, looks
from tests.ops.deployment import Deployment, deployment
from tests.ops.prometheus import Alert, dashboard_expressions

collect_ignore = [] if can_mount() else ["test_monitoring.py"]

NEEDS_A_FAULT = {
    'sum(rate(nanobanana_http_requests_total{status=~"5.."}[1m])) / sum(rate(nanobanana_http_requests_total[1m]))',
}
"""The dashboard's expressions that give nothing while nothing is wrong."""


@dataclass(frozen=True)
class Health:
    """What a Prometheus has of a server that is called, and to which nothing else has happened."""

    metrics: set[str]
    """The names of all its series."""
    without_data: set[str]
    """The dashboard's expressions that give nothing."""
    alerts: Sequence[Alert]
    firing: Sequence[Alert]


@pytest.fixture(scope="session")
def deployed_database_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database that can be made read-only, and taken away."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="session")
async def deployed(tmp_path_factory: pytest.TempPathFactory, deployed_database_url: str) -> AsyncIterator[Deployment]:
    async with deployment(tmp_path_factory.mktemp("deployed"), deployed_database_url) as deployed:
        yield deployed


@pytest.fixture(scope="session")
async def health(deployed: Deployment) -> Health:
    without_data = set(dashboard_expressions())
    for _ in looks():
        await _call(deployed)
        without_data = {each for each in without_data if not deployed.prometheus.values(each)}
        if without_data <= NEEDS_A_FAULT:
            break
        await asyncio.sleep(0.1)
    alerts = deployed.prometheus.alerts()
    firing = [each for each in alerts if deployed.prometheus.values(each.expression)]
    return Health(deployed.prometheus.metrics(), without_data, alerts, firing)


async def _call(deployed: Deployment) -> None:
    """Calls as they come every day: images, a refusal of the provider's, a path that is not there, an unknown key."""
    client = deployed.client
    answers = [
        await generate(client, deployed.key, model="picture"),
        await generate(client, deployed.test_key, prompt="test:refuse"),
        await client.get("/v1/nothing"),
        await client.get("/v1/generations", headers={"Authorization": "Bearer nobody"}),
        await client.get("/v1/generations", headers=deployed.key.headers),
    ]
    assert answers[0].status_code == 200, answers[0].text
