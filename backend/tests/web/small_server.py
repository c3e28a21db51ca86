"""The server's protocol under an application of a test's own, without the services."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from app.core.bounds import EdgeBounds
from app.core.metrics import Metrics
from app.core.server_settings import Network
from app.server import http_config
from app.web.connections import Connections
from app.web.overload import OverloadGuard
from app.web.prepared_refusals import PreparedRefusals
from app.web.state import WebSettings
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.harness import serving

ANY = 1_000_000


async def complete_lifespan(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    bounds: EdgeBounds | None = None,
    per_address_max: int = ANY,
    proxies: Sequence[Network] = (),
) -> None:
    """An application's whole lifespan, with the state that HttpProtocol needs."""
    refusals = await PreparedRefusals.prepare({"web": WebSettings("https://pictures.test", (), ())})
    state: dict[str, Any] = {
        "overload_guard": OverloadGuard(ANY, Metrics(), proxies=proxies),
        "connections": Connections(bounds or EdgeBounds(), Metrics(), per_address_max=per_address_max),
        "prepared_refusals": refusals,
    }
    scope["state"].update(state)
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})


@asynccontextmanager
async def small_server(application: ASGIApp, **named: Any) -> AsyncIterator[int]:
    """The port of a server of this application. `named` is what `complete_lifespan` takes."""

    async def with_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await complete_lifespan(scope, receive, send, **named)
        else:
            await application(scope, receive, send)

    async with serving(http_config(with_lifespan)) as port:
        yield port
