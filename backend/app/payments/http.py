"""How Stripe's SDK makes its calls: by httpx2, as all calls of this program leave the machine."""

import asyncio
from collections.abc import Mapping

import httpx2
from stripe import APIConnectionError, HTTPClient

from app.core.egress import Egress

CALL_SECONDS = 30.0


class Transport(HTTPClient):
    """An asynchronous client for the SDK. A call ends after CALL_SECONDS, however slowly its response comes.

    What may be repeated is decided by the SDK, which then sends the same Idempotency-Key.
    """

    name = "httpx2"

    def __init__(self, egress: Egress, *, seconds: float = CALL_SECONDS) -> None:
        super().__init__()
        self._seconds = seconds
        self._client = httpx2.AsyncClient(
            verify=egress.ssl_context(),
            proxy=egress.proxy.get_secret_value() if egress.proxy else None,
            trust_env=False,
            timeout=seconds,
        )

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._client.request(method, url, headers=dict(headers), content=post_data)
        except (httpx2.HTTPError, OSError) as error:  # of which TimeoutError is one
            raise APIConnectionError(type(error).__name__, should_retry=True) from None
        return response.content, response.status_code, response.headers

    async def sleep_async(self, secs: float) -> None:
        await asyncio.sleep(secs)

    async def close_async(self) -> None:
        await self._client.aclose()
