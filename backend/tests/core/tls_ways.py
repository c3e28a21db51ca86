"""Ways to a database that take the request for TLS as PostgreSQL does: with a certificate, or by refusing it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Literal

from sqlalchemy.engine import make_url
from tests.core.database_ways import Way, refusal
from tests.standins.listening import listening

Login = Literal["encrypted", "plain"]

_HEAD_BYTES = 8
_REQUEST_FOR_TLS = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
_PROTOCOL = "postgresql"  # as ALPN names it
_NOT_ALLOWED = "28000"


class TLSWay(Way):
    """Speaks TLS with who asks for it, where it has a `context`, and with everybody from the start where it is direct.
    Logins of the kind that it `refuses` end as by pg_hba.conf; the others are led to the database.
    """

    def __init__(
        self, database_url: str, context: SSLContext | None, *, is_direct: bool = False, refuses: Login | None = None
    ) -> None:
        super().__init__(database_url)
        self._context, self._is_direct, self._refuses = context, is_direct, refuses
        if context is not None:
            context.set_alpn_protocols([_PROTOCOL])
        self.asked = 0
        """How often TLS was asked for."""
        self.logins = Counter[Login]()
        """Those that have begun, with a handshake before them or without one."""

    def url_at(self, host: str, query: str, *, password: str | None = None) -> str:
        """The URL by this name of the host, with these parameters: with the password of the database, or another."""
        url = make_url(self.url).set(drivername="postgresql", host=host, query={})
        url = url if password is None else url.set(password=password)
        return f"{url.render_as_string(hide_password=False)}?{query}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """As of any way."""
        async with listening(self._lead, port=self._port, tls=self._context if self._is_direct else None):
            yield

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, begun: bytes = b"") -> None:
        begun = begun or await reader.readexactly(_HEAD_BYTES)
        if begun == _REQUEST_FOR_TLS:
            self.asked += 1
            writer.write(b"N" if self._context is None else b"S")
            if self._context is not None:
                await writer.start_tls(self._context)
            begun = await reader.readexactly(_HEAD_BYTES)
        spoken = writer.get_extra_info("ssl_object")
        assert spoken is None or spoken.selected_alpn_protocol() == _PROTOCOL, "which a direct one must say"
        login: Login = "plain" if spoken is None else "encrypted"
        self.logins[login] += 1
        if login == self._refuses:
            writer.write(refusal(_NOT_ALLOWED))
            await writer.drain()
        else:
            await super()._lead(reader, writer, begun=begun)
