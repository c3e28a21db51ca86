"""The server's counters as its operator's Prometheus reads them."""

import httpx2
from prometheus_client.parser import text_string_to_metric_families

METRICS_TOKEN = "what-prometheus-sends"

Labels = tuple[tuple[str, str], ...]


async def scrape(client: httpx2.AsyncClient) -> str:
    """The text, of a server with this METRICS_TOKEN."""
    answer = await client.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
    assert answer.status_code == 200, answer.text
    return answer.text


def read(text: str) -> dict[str, dict[Labels, float]]:
    """What each counter has counted, by its labels."""
    counted: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        if family.type == "counter":
            counted[family.name] = {tuple(sorted(each.labels.items())): each.value for each in family.samples}
    return counted


async def nonzero(client: httpx2.AsyncClient, counter: str) -> dict[str, int]:
    """What a counter with one label has counted, by the label's value."""
    counted = read(await scrape(client))[f"nanobanana_{counter}"]
    return {value: int(count) for ((_, value),), count in counted.items() if count}


async def refusals(client: httpx2.AsyncClient) -> dict[tuple[str, str], int]:
    """How many calls each limit has refused, or would have: by its name and the mode."""
    of_limits = read(await scrape(client))["nanobanana_limit_refusals"]
    return {(dict(labels)["limit"], dict(labels)["mode"]): int(count) for labels, count in of_limits.items()}
