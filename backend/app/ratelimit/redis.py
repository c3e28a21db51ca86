"""Buckets and slots in Redis, shared by all processes and machines."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b, sha1
from importlib import resources
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.core.logs import logger
from app.core.unreachable import reason_unreachable
from app.ratelimit import MICROSECONDS, Slot, Take, TakeResult, decide
from app.ratelimit.batches import Argument, Batch, Queue, RedisUnavailable

_SCRIPT = resources.files("app.ratelimit").joinpath("decide.lua").read_bytes()
_SCRIPT_SHA = sha1(_SCRIPT, usedforsecurity=False).hexdigest()  # the name by which Redis knows it
_CLUSTER = "+cluster"
_CLIENT_OPTIONS: dict[str, Any] = {
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,
    "socket_connect_timeout": None,
    "protocol": 2,  # with 3, and with a name for the driver, a new connection costs two more round trips
    "driver_info": None,
}
_CONNECTIONS_MAX = 4  # one is used; a second while a broken one is closed
_CONNECT_SECONDS = 1.0
_UNRELEASED_MAX = 100_000
_HASHES_CACHED_MAX = 65_536

Result = TypeVar("Result")
Client = Redis | RedisCluster
_ScriptReply = list[int] | Exception  # the exception may also be that a node of a cluster cannot be reached


def open_redis(url: str) -> Client:
    """A client without retries and timeouts of its own: the limiter decides how long anything may take.

    `redis+cluster://` and `rediss+cluster://` name one node of a Redis Cluster; the client finds the others.
    """
    scheme, _, location = url.partition("://")
    if scheme.endswith(_CLUSTER):
        return RedisCluster.from_url(f"{scheme.removesuffix(_CLUSTER)}://{location}", **_CLIENT_OPTIONS)
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS_MAX, **_CLIENT_OPTIONS
    )
    return Redis.from_pool(pool)


async def ping_redis(url: str) -> None:
    """Returns if Redis answers within a second. Raises RedisUnavailable."""
    client = open_redis(url)
    try:
        with _raising_redis_unavailable():
            await _within(_CONNECT_SECONDS, client.ping())
    finally:
        await client.aclose()


class RedisLimiter:
    """A limiter whose state is in Redis, by the clock of Redis.

    Calls that wait at the same moment share one round trip, in one script for each group, which decides them in the
    order of arrival. Only one round trip is under way at a time: calls that arrive meanwhile, and those of a group that
    has too many, go with the next.

    `take` and `give_back` raise RedisUnavailable if Redis has not decided within `timeout_seconds`; a script that Redis
    starts after that time does nothing (except in a cluster). Names in Redis are hashes keyed with `secret`, so that no
    address, email or id can be read there. `clock`, in seconds, replaces that of Redis.
    """

    is_degraded = False

    def __init__(
        self, client: Client, *, secret: bytes, timeout_seconds: float, clock: Callable[[], float] | None = None
    ) -> None:
        self._client = client
        self._secret = blake2b(secret, digest_size=32, person=b"ratelimit").digest()
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._hash = lru_cache(_HASHES_CACHED_MAX)(self._hash_uncached)
        self._unreleased: deque[tuple[Slot, str]] = deque(maxlen=_UNRELEASED_MAX)
        self._queue = Queue()
        self._sender: asyncio.Task[None] | None = None
        self._clock_lead_max: int | None = None  # how far the clock of Redis is ahead of ours at most, if known

    async def take(self, takes: Sequence[Take], *, group: str, slot: Slot | None = None) -> TakeResult:
        batch = self._open_batch(group)
        arguments: list[Argument] = ["take", len(takes)]
        for take in takes:
            arguments += self._bucket(batch, take), take.increment, take.limit.burst_tolerance
        if slot is None:
            arguments.append(0)
        else:
            arguments += slot.number, self._held_slots(batch, slot), slot.slots, slot.seconds * MICROSECONDS, *slot.ids
        now, tats, no_free_slot = await batch.add_awaited(arguments, buckets=len(takes))
        return decide(list(zip(takes, tats, strict=True)), now=now, no_free_slot=no_free_slot)

    async def give_back(self, takes: Sequence[Take], *, group: str) -> None:
        batch = self._open_batch(group)
        arguments: list[Argument] = ["give_back", len(takes)]
        for take in takes:
            arguments += self._bucket(batch, take), take.increment
        await batch.add_awaited(arguments, buckets=None)

    def release(self, slot: Slot, *, group: str) -> None:
        batch = self._open_batch(group)
        batch.add(["release", self._held_slots(batch, slot), slot.number, *slot.ids])
        batch.released.append((slot, group))

    def release_later(self, slot: Slot, *, group: str) -> None:
        """Releases a slot once Redis has decided a call, as is done with every release that Redis did not decide."""
        self._unreleased.append((slot, group))

    async def connect(self) -> None:
        """Returns once Redis answers, within a second, on a connection that later calls will use.

        Connecting takes more time than deciding, and no call should have to wait for it. Raises RedisUnavailable.
        """
        with _raising_redis_unavailable():
            await _within(_CONNECT_SECONDS, self._client.ping())

    async def close(self) -> None:
        """Sends what waits, and closes the connections."""
        if self._sender is not None:
            await self._sender
        await self._client.aclose()

    def _open_batch(self, group: str) -> Batch:
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_queue())
        return self._queue.open_batch(f"nb:{{{self._hash(group)}}}:")

    def _bucket(self, batch: Batch, take: Take) -> int:
        return batch.key_index(f"{take.name}:{self._hash(take.subject)}")

    def _held_slots(self, batch: Batch, slot: Slot) -> int:
        return batch.key_index(f"running:{self._hash(slot.subject)}")

    def _hash_uncached(self, identifier: str) -> str:
        return blake2b(identifier.encode(), key=self._secret, digest_size=15).hexdigest()

    async def _send_queue(self) -> None:
        while self._queue:
            batches = self._queue.pop_first()
            try:
                with _raising_redis_unavailable():
                    replies = await _within(self._timeout_seconds, self._send(batches))
                for batch, reply in zip(batches, replies, strict=True):
                    if isinstance(reply, Exception) or not reply:
                        self._fail([batch], RedisUnavailable(type(reply).__name__ if reply else "late"))
                    else:
                        batch.deliver(reply)
                        if self._unreleased:
                            self._release_unreleased()
            except RedisUnavailable as error:
                self._fail((*batches, *self._queue.pop_all()), error)
            except Exception:
                logger.exception("limiter_failed")  # no caller may hang because of a defect in this code or the client
                self._fail((*batches, *self._queue.pop_all()), RedisUnavailable("defect"))

    def _release_unreleased(self) -> None:
        unreleased, self._unreleased = self._unreleased, deque(maxlen=_UNRELEASED_MAX)
        for slot, group in unreleased:
            self.release(slot, group=group)

    def _fail(self, batches: Sequence[Batch], error: RedisUnavailable) -> None:
        """Fails batches, sent or not: a call that waited behind a failed round trip does not wait for a second one."""
        for batch in batches:
            self._unreleased += batch.released
            batch.fail(error.reason)

    async def _send(self, batches: Sequence[Batch]) -> Sequence[_ScriptReply]:
        sent_at = _microseconds()
        now = "" if self._clock is None else round(self._clock() * MICROSECONDS)
        timeout = round(self._timeout_seconds * MICROSECONDS)
        deadline = "" if self._clock_lead_max is None else sent_at + self._clock_lead_max + timeout
        # Every node of a cluster has a clock of its own, and the lead of one says nothing about the others.
        times = (now, "" if self._clock or isinstance(self._client, RedisCluster) else deadline)
        replies = await self._evaluate("EVALSHA", _SCRIPT_SHA, batches, times)
        unknown = [batch for batch, reply in zip(batches, replies, strict=True) if isinstance(reply, NoScriptError)]
        if unknown:
            repeated = iter(await self._evaluate("EVAL", _SCRIPT, unknown, times))
            replies = [next(repeated) if isinstance(reply, NoScriptError) else reply for reply in replies]
        decided_at = [reply[0] for reply in replies if not isinstance(reply, Exception) and reply]
        self._clock_lead_max = decided_at[-1] - sent_at if decided_at else None
        return replies

    async def _evaluate(
        self, command: str, script: str | bytes, batches: Sequence[Batch], times: tuple[Argument, Argument]
    ) -> Sequence[_ScriptReply]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for batch in batches:
                pipeline.execute_command(command, script, len(batch.keys), *batch.keys, *times, batch.arguments)
            replies: Sequence[_ScriptReply] = await pipeline.execute(raise_on_error=False)
            return replies


_REASONS = (
    (RedisClusterException, "it is no Redis Cluster"),
    (AuthenticationError, "it refuses its user or password"),
    ((TimeoutError, RedisTimeoutError), "it does not answer in time"),
)


@contextmanager
def _raising_redis_unavailable() -> Iterator[None]:
    try:
        yield
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        raise RedisUnavailable(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Of the error; for the client of a cluster, of the one by which it found no node of a cluster."""
    cause = error.__cause__ if isinstance(error, RedisClusterException) else error
    reasons = (reason for kind, reason in _REASONS if isinstance(cause, kind))
    return next(reasons, None) or reason_unreachable(cause or error)


async def _within(seconds: float, work: Awaitable[Result]) -> Result:
    """The result of the work. Cancels it after `seconds`, and raises TimeoutError.

    The time is waited for in two halves. In a busy process the timer may be due while the answer is there and unread;
    the second half reads it. So a process that is always busy does not conclude that Redis is slow.
    """
    task = asyncio.ensure_future(work)
    try:
        for _ in range(2):
            done, _pending = await asyncio.wait({task}, timeout=seconds / 2)
            if done:
                return task.result()
    finally:
        task.cancel()
    raise TimeoutError


def _microseconds() -> int:
    return time.monotonic_ns() // 1000
