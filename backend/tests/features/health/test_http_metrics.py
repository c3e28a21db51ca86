"""Requests in the metrics: each is counted once, under names of which clients cannot make more."""

import asyncio
import re
import secrets
from http import HTTPStatus

import httpx2
import pytest
from app import main
from app.core.settings import Settings
from fastapi.routing import iter_route_contexts
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import Start
from tests.features.scraped import METRICS_TOKEN, read, scrape
from tests.harness import Account, generate
from tests.raw_http import head, send_raw

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
WITHOUT_A_TEMPLATE = {"unmatched", "refused"}


def _odd_requests() -> list[bytes]:
    """Requests whose paths, queries and methods nobody has sent before."""
    odd = [secrets.token_hex(8) for _ in range(6)]
    paths = [
        *("/{}", "/v1/{}", "/v1//{}", "/v1/images/{}", "/v1/images/gen_{}.png?width={}", "/v1/generations/{}"),
        *("/v1/generate/{}", "/console/{}", "/static/{}", "/docs/{}", "/metrics/{}", "/%0A{}", "/%ff{}", "/?{}"),
        *("/v1/models/{}", "/.well-known/{}", "/v1/keys/{}", "//{}", "http://{}/v1/generate"),
    ]
    methods = ["GET", "POST", "DELETE", "PROPFIND", "MKCOL", "OPTIONS"]
    targets = [(method, path.replace("{}", each)) for path in paths for method, each in zip(methods, odd, strict=True)]
    closing = [("Connection", "close"), ("Content-Length", "0")]
    good = [head(method, target, closing) for method, target in targets]
    return [*good, f"{odd[0]} {odd[1]}\r\n\r\n".encode(), head("GET", f"/{odd[2] * 2000}")]


def _requests(text: str) -> dict[tuple[str, str, str], int]:
    counted = read(text)["nanobanana_http_requests"].items()
    by_names = [(dict(labels), count) for labels, count in counted]
    return {(each["route"], each["method"], each["status"]): int(count) for each, count in by_names}


async def _send(client: httpx2.AsyncClient, requests: list[bytes]) -> None:
    for start in range(0, len(requests), 20):
        await asyncio.gather(*(send_raw(client, each) for each in requests[start : start + 20]))


async def test_odd_paths_and_methods_are_counted_once_each_under_names_that_do_not_grow(
    start: Start, settings: Settings
) -> None:
    client, requests = await start(metrics_token=METRICS_TOKEN), _odd_requests()
    await _send(client, requests)
    first = _requests(await scrape(client))
    assert sum(first.values()) == len(requests)
    await _send(client, _odd_requests())
    text = await scrape(client)
    second = _requests(text)
    assert {names: count for names, count in second.items() if names[0] != "/metrics"} == {
        names: 2 * count for names, count in first.items() if names[0] != "/metrics"
    }
    templates = {str(each.path) for each in iter_route_contexts(main.create_app(settings).routes)}
    assert {route for route, _, _ in second} <= {re.sub(r":\w+}", "}", each) for each in templates} | WITHOUT_A_TEMPLATE
    assert {method for _, method, _ in second} <= METHODS
    assert {status for _, _, status in second} <= {str(each.value) for each in HTTPStatus}
    assert "unmatched" in {route for route, _, status in second if status == "404"}
    assert {("refused", "other", "400"), ("refused", "other", "414")} <= set(second)


async def test_a_route_has_a_histogram_of_seconds_with_one_observation_for_each_request(
    start: Start, account: Account
) -> None:
    client, key = await start(metrics_token=METRICS_TOKEN), await account.create_key()
    for _ in range(3):
        assert (await generate(client, key)).status_code == 200
    assert (await generate(client, key, size="0x0")).status_code == 422
    shown = text_string_to_metric_families(await scrape(client))
    [family] = [each for each in shown if each.name == "nanobanana_http_request_seconds"]
    of_route = [each for each in family.samples if each.labels["route"] == "/v1/generate"]
    [count], [total] = ([each.value for each in of_route if each.name.endswith(end)] for end in ("_count", "_sum"))
    buckets = [each.value for each in of_route if each.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == count == 4
    assert 0 < total < 4 * 60


@pytest.mark.parametrize("metrics_token", [None, METRICS_TOKEN])
async def test_the_port_of_the_api_shows_no_metrics_without_the_token_whatever_else_is_set(
    start: Start, metrics_token: str | None
) -> None:
    client = await start(metrics_token=metrics_token, metrics_port=9464)
    assert (await client.get("/metrics")).status_code == (404 if metrics_token is None else 401)
