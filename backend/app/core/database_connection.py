"""One connection to PostgreSQL: to the first host that can be used, with a deadline on everything it does."""

import asyncio
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext
from typing import Any

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.exceptions import InvalidAuthorizationSpecificationError

from app.core.database_url import DatabaseParameters, Host, KeepAlive

ANSWER_SECONDS_MAX = 4.5
"""How long a server may be silent about one statement: a little longer than its own statement_timeout."""

_CLOSE_SECONDS = 0.5
_NOT_ALLOWED = "28000"  # such as: no entry for this host without TLS
_WAITS_FOR_STANDBY = "SyncRepWaitForLSN"  # the function of PostgreSQL that warns: the text would be translated


class NotReplicatedError(ConnectionError):
    """The server has committed, and not waited for a standby to have it: the wait was cancelled. After a failover, what
    was committed may not be there.
    """


class SettingsNotKeptError(ConnectionError):
    """The connection does not keep what was set for its session, as behind a pooler in transaction mode."""


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """What a connection is for. `settings` are set after connecting, since a pooler refuses them in the start; where
    they are verified, they are then read back. `answer_seconds` is None for statements that may take long.

    `is_shared` is for a pooler in transaction mode, where a session lasts for one transaction: nothing is set, and no
    statement stays prepared.
    """

    settings: Mapping[str, str]
    is_verified: bool = False
    is_shared: bool = False
    answer_seconds: float | None = ANSWER_SECONDS_MAX


class Connection(asyncpg.Connection):
    """A connection that is dropped as soon as a statement on it is late or cancelled.

    The driver would ask the server over a second connection to cancel the statement, and wait for the result: with a
    server that is silent, for ever. The server ends the statement by its own timeout.

    A commit that did not wait for a standby (`pg_cancel_backend` does that) is only a warning to the driver: here
    NotReplicatedError is raised, and the connection dropped.
    """

    def __init__(self, protocol: Any, transport: asyncio.Transport, *others: Any) -> None:
        super().__init__(protocol, transport, *others)
        self._socket = transport.get_extra_info("socket")
        self._is_replicated = True
        self.add_log_listener(self._notice)

    async def execute(self, *arguments: Any, **options: Any) -> str:
        """As of the driver, with the guarantee of this class."""
        status: str = await super().execute(*arguments, **options)
        self._raise_if_not_replicated()
        return status

    async def fetch(self, *arguments: Any, **options: Any) -> Any:
        """As of the driver, with the guarantee of this class."""
        rows = await super().fetch(*arguments, **options)
        self._raise_if_not_replicated()
        return rows

    def _notice(self, _: object, message: Any) -> None:
        if getattr(message, "server_source_function", None) == _WAITS_FOR_STANDBY:
            self._is_replicated = False

    def _raise_if_not_replicated(self) -> None:
        if not self._is_replicated:
            self.terminate()
            raise NotReplicatedError

    def _cancel_current_command(self, *_: object) -> None:
        asyncio.get_running_loop().call_soon(self.terminate)

    async def close(self, **_: Any) -> None:
        """Says goodbye, and waits half a second at most for the server to do the same."""
        try:
            await super().close(timeout=_CLOSE_SECONDS)
        except TimeoutError:
            self.terminate()

    def keep_alive(self, options: KeepAlive) -> None:
        """Has the kernel find out that the other end is gone, also where nothing is sent."""
        sock = self._socket
        if sock is None or sock.family == socket.AF_UNIX:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(options.is_on))
        for name, value in (
            ("TCP_KEEPIDLE", options.idle_seconds),
            ("TCP_KEEPINTVL", options.interval_seconds),
            ("TCP_KEEPCNT", options.count),
            ("TCP_USER_TIMEOUT", options.user_timeout_ms),
        ):
            if hasattr(socket, name):  # not on every system
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class SharedConnection(Connection):
    """A connection to a pooler in transaction mode: what belongs together is in one transaction."""

    async def set_type_codec(self, *arguments: Any, **options: Any) -> None:
        async with self.transaction():
            await super().set_type_codec(*arguments, **options)


async def connect(parameters: DatabaseParameters, options: ConnectionOptions) -> Connection:
    """A connection to the first of the hosts that answers, and can be written to where that was asked for.

    All hosts are tried at the same time, each for `connect_seconds`, so that a silent one holds none up. Raises the
    error of a host where none can be used: of one that answered, rather than of one that did not.
    """
    tries = [asyncio.create_task(_connect_to(host, parameters, options)) for host in parameters.hosts]
    chosen = None
    try:
        await _first_success(tries)
        chosen = next(each for each in tries if _has_connected(each)).result()
    finally:
        for each in tries:
            each.cancel()
            each.add_done_callback(partial(_drop_unless, chosen))
    return chosen


async def _first_success(tries: Sequence[asyncio.Task[Connection]]) -> None:
    pending = set(tries)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if any(_has_connected(each) for each in done):
            return
    errors = [error for each in tries if not each.cancelled() and (error := each.exception())]
    raise min(errors, key=_silence, default=ConnectionAbortedError())  # the driver may cancel futures of its own


def _has_connected(task: asyncio.Task[Connection]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _silence(error: BaseException) -> int:
    """0 for what a server said, 1 for a host that refused, 2 for one that said nothing."""
    if getattr(error, "sqlstate", None):
        return 0
    return 2 if isinstance(error, TimeoutError) else 1


def _drop_unless(chosen: Connection | None, task: asyncio.Task[Connection]) -> None:
    if _has_connected(task) and task.result() is not chosen:
        task.result().terminate()


async def _connect_to(host: Host, parameters: DatabaseParameters, options: ConnectionOptions) -> Connection:
    async with asyncio.timeout(parameters.connect_seconds):
        connection = await _opened(host, parameters, options)
        try:
            connection.keep_alive(parameters.keep_alive)
            if not options.is_shared:
                await _set(connection, options)
        except BaseException:
            connection.terminate()
            raise
        return connection


async def _opened(host: Host, parameters: DatabaseParameters, options: ConnectionOptions) -> Connection:
    """With or without TLS, as the mode has it: `prefer` and `allow` begin with one, and fall back to the other."""
    open_with = partial(_open, host, parameters, options)
    encrypted, mode = parameters.tls.context, parameters.tls.mode
    if encrypted is None or (host.name or "").startswith("/"):
        return await open_with(None)
    if mode not in {"prefer", "allow"}:
        return await open_with(encrypted)
    first, second = (encrypted, None) if mode == "prefer" else (None, encrypted)
    try:
        return await open_with(first)
    except (OSError, InvalidAuthorizationSpecificationError) as error:
        is_refused = isinstance(error, TimeoutError | ConnectionRefusedError)
        if is_refused or getattr(error, "sqlstate", _NOT_ALLOWED) != _NOT_ALLOWED:
            raise
    return await open_with(second)


async def _open(
    host: Host, parameters: DatabaseParameters, options: ConnectionOptions, context: SSLContext | None
) -> Connection:
    return await asyncpg.connect(
        host=host.name,
        port=host.port,
        user=parameters.user,
        password=parameters.password,
        passfile=parameters.passfile,
        database=parameters.database,
        ssl=context or False,
        direct_tls=context is not None and parameters.tls.is_direct,
        server_settings=dict(parameters.startup),
        target_session_attrs=SessionAttribute.read_write if parameters.must_write else SessionAttribute.any,
        timeout=parameters.connect_seconds,
        command_timeout=options.answer_seconds,
        statement_cache_size=0 if options.is_shared else 100,  # with 0, a statement is prepared for each use
        connection_class=SharedConnection if options.is_shared else Connection,
    )


async def _set(connection: Connection, options: ConnectionOptions) -> None:
    """Sets the session's settings in one round trip. Raises SettingsNotKeptError where one of them does not hold."""
    await connection.execute("; ".join(f"set {name} = '{value}'" for name, value in options.settings.items()))
    if options.is_verified:
        columns = ", ".join(f"current_setting('{name}')" for name in options.settings)
        row = await connection.fetchrow(f"select {columns}")
        if row is None or [*row] != [*options.settings.values()]:
            raise SettingsNotKeptError


async def is_shared_by_transaction(parameters: DatabaseParameters) -> bool:
    """Whether a pooler in transaction mode stands there: it gives the server's connection to another client between two
    transactions.

    A setting of the first session shows it: a transaction of the second one sees it, or the first lacks it afterwards.
    """
    options = ConnectionOptions(settings={}, is_shared=True)
    token, read = secrets.token_hex(8), "select current_setting('nanobanana.token', true)"
    first = await connect(parameters, options)
    try:
        async with first.transaction():
            if await first.fetchval("select pg_backend_pid()") == first.get_server_pid():
                return False  # a pooler makes up a process id of its own
        await first.execute(f"set nanobanana.token = '{token}'")
        second = await connect(parameters, options)
        try:
            async with second.transaction():
                if await second.fetchval(read) == token:
                    return True
                async with first.transaction():
                    return bool(await first.fetchval(read) != token)
        finally:
            second.terminate()
    finally:
        first.terminate()
