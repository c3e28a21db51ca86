"""Buckets and leases in Redis: one truth for all processes and machines."""

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
from redis.exceptions import NoScriptError, RedisError

from app.core.logs import logger
from app.ratelimit import MICROSECONDS, Charge, Lease, Taken, decide
from app.ratelimit.batches import Batch, OutOfReach, Queue, Word

_SCRIPT = resources.files("app.ratelimit").joinpath("decide.lua").read_bytes()
_SCRIPT_SHA = sha1(_SCRIPT, usedforsecurity=False).hexdigest()  # the name by which Redis knows it
_CLUSTER = "+cluster"
_AS_THEY_ARE: dict[str, Any] = {
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": None,
    "socket_connect_timeout": None,
    "protocol": 2,  # with 3, and with a name for the driver, a new connection costs two more round trips
    "driver_info": None,
}
_CONNECTIONS_MAX = 4  # one is used; a second while a broken one is given up
_CONNECT_SECONDS = 1.0
_LEFT_MAX = 100_000
_NAMES_REMEMBERED = 65_536

Result = TypeVar("Result")
Client = Redis | RedisCluster


def open_redis(url: str) -> Client:
    """A client that never tries again by itself, and leaves it to its user how long anything may take.

    `redis+cluster://` and `rediss+cluster://` name one node of a Redis Cluster; the client finds the others.
    """
    scheme, _, rest = url.partition("://")
    if scheme.endswith(_CLUSTER):
        return RedisCluster.from_url(f"{scheme.removesuffix(_CLUSTER)}://{rest}", **_AS_THEY_ARE)
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS_MAX, **_AS_THEY_ARE
    )
    return Redis.from_pool(pool)


async def check_redis(url: str) -> None:
    """Returns if Redis answers within a second. Raises OutOfReach."""
    client = open_redis(url)
    try:
        with _told_as_out_of_reach():
            await _patiently(_CONNECT_SECONDS, client.ping())
    finally:
        await client.aclose()


class RedisLimiter:
    """A limiter whose state is in Redis and whose clock is that of Redis.

    What waits at the same moment is sent in one round trip, as one script for each group, which decides in the order of
    asking. One round trip is on its way at a time; what comes meanwhile, or is too much of one group, is the next.

    `take` and `give_back` raise OutOfReach when Redis has not decided within `timeout_seconds`; a script that it would
    begin with after that time does nothing (but for a cluster). Names in Redis are keyed hashes: whoever reads them
    learns no address, email or id. `clock`, in seconds, replaces that of Redis.
    """

    def __init__(
        self, client: Client, *, secret: bytes, timeout_seconds: float, clock: Callable[[], float] | None = None
    ) -> None:
        self._client = client
        self._secret = blake2b(secret, digest_size=32, person=b"ratelimit").digest()
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._hash = lru_cache(_NAMES_REMEMBERED)(self._hash_anew)
        self._to_be_ended: deque[tuple[Lease, str]] = deque(maxlen=_LEFT_MAX)
        self._waiting = Queue()
        self._exchange: asyncio.Task[None] | None = None
        self._ahead: int | None = None  # how far the clock of Redis is ahead of ours, at most

    async def take(self, charges: Sequence[Charge], *, group: str, lease: Lease | None = None) -> Taken:
        batch = self._batch(group)
        words: list[Word] = ["take", len(charges)]
        for charge in charges:
            words += self._bucket(batch, charge), charge.cost, charge.limit.depth
        if lease is None:
            words += 0, 0, 0, ""
        else:
            words += self._running(batch, lease), lease.places, lease.seconds * MICROSECONDS, lease.id
        now, levels, crowded = await batch.ask(words, levels=len(charges))
        return decide(charges, levels=levels, now=now, crowded=crowded)

    async def give_back(self, charges: Sequence[Charge], *, group: str) -> None:
        batch = self._batch(group)
        words: list[Word] = ["give", len(charges)]
        for charge in charges:
            words += self._bucket(batch, charge), charge.cost
        await batch.ask(words, levels=None)

    def end(self, lease: Lease, *, group: str) -> None:
        batch = self._batch(group)
        batch.tell(["end", self._running(batch, lease), lease.id])
        batch.ended.append((lease, group))

    def end_later(self, lease: Lease, *, group: str) -> None:
        """Ends a lease with the next call that Redis decides; so is what could not be ended because it did not."""
        self._to_be_ended.append((lease, group))

    async def reach(self) -> None:
        """Returns once Redis answers, within a second, on a connection that later calls will use. Raises OutOfReach.

        To connect takes more time than to decide, and no call should have to wait for it.
        """
        with _told_as_out_of_reach():
            await _patiently(_CONNECT_SECONDS, self._client.ping())

    async def close(self) -> None:
        """Sends what waits, and closes the connections."""
        if self._exchange is not None:
            await self._exchange
        await self._client.aclose()

    def _batch(self, group: str) -> Batch:
        if self._exchange is None or self._exchange.done():
            self._exchange = asyncio.create_task(self._exchange_what_waits())
        return self._waiting.last(f"nb:{{{self._hash(group)}}}:")

    def _bucket(self, batch: Batch, charge: Charge) -> int:
        return batch.key(f"{charge.name}:{self._hash(charge.who)}")

    def _running(self, batch: Batch, lease: Lease) -> int:
        return batch.key(f"running:{self._hash(lease.who)}")

    def _hash_anew(self, identifier: str) -> str:
        return blake2b(identifier.encode(), key=self._secret, digest_size=15).hexdigest()

    async def _exchange_what_waits(self) -> None:
        while self._waiting:
            batches = self._waiting.take_first()
            try:
                with _told_as_out_of_reach():
                    answers = await _patiently(self._timeout_seconds, self._send(batches))
                for batch, answer in zip(batches, answers, strict=True):
                    if isinstance(answer, Exception) or not answer:
                        self._fail([batch], OutOfReach(type(answer).__name__ if answer else "late"))
                    else:
                        batch.settle(answer)
                        if self._to_be_ended:
                            self._end_those_left()
            except OutOfReach as error:
                self._fail((*batches, *self._waiting.take_all()), error)
            except Exception:
                logger.exception("limiter_failed")  # a defect of ours or the client's must not hang whoever waits
                self._fail((*batches, *self._waiting.take_all()), OutOfReach("defect"))

    def _end_those_left(self) -> None:
        left, self._to_be_ended = self._to_be_ended, deque(maxlen=_LEFT_MAX)
        for lease, group in left:
            self.end(lease, group=group)

    def _fail(self, batches: Sequence[Batch], error: OutOfReach) -> None:
        """Also those that have not been sent: who waited behind a round trip that failed waits for no second one."""
        for batch in batches:
            self._to_be_ended += batch.ended
            batch.fail(error.reason)

    async def _send(self, batches: Sequence[Batch]) -> "Sequence[_Answer]":
        sent = _microseconds()
        now = "" if self._clock is None else round(self._clock() * MICROSECONDS)
        too_late = "" if self._ahead is None else sent + self._ahead + round(self._timeout_seconds * MICROSECONDS)
        # The nodes of a cluster have clocks of their own, which say nothing of each other's.
        times = (now, "" if self._clock or isinstance(self._client, RedisCluster) else too_late)
        answers = await self._evaluate("EVALSHA", _SCRIPT_SHA, batches, times)
        unknown = [batch for batch, answer in zip(batches, answers, strict=True) if isinstance(answer, NoScriptError)]
        if unknown:
            again = iter(await self._evaluate("EVAL", _SCRIPT, unknown, times))
            answers = [next(again) if isinstance(answer, NoScriptError) else answer for answer in answers]
        known = [answer[0] for answer in answers if not isinstance(answer, Exception) and answer]
        self._ahead = known[-1] - sent if known else None
        return answers

    async def _evaluate(
        self, command: str, script: str | bytes, batches: Sequence[Batch], times: tuple[Word, Word]
    ) -> "Sequence[_Answer]":
        async with self._client.pipeline(transaction=False) as pipeline:
            for batch in batches:
                pipeline.execute_command(command, script, len(batch.keys), *batch.keys, *times, batch.words)
            answers: Sequence[_Answer] = await pipeline.execute(raise_on_error=False)
            return answers


_Answer = list[int] | Exception  # with a cluster also that a node cannot be reached


@contextmanager
def _told_as_out_of_reach() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise OutOfReach(type(error).__name__) from error


async def _patiently(seconds: float, work: Awaitable[Result]) -> Result:
    """The result of the work. Raises TimeoutError where there is none after `seconds`, and gives it up.

    The time is waited for in two halves: a process that was busy may find its timer due and the answer there, unread.
    Then the second half reads it. A process that is busy all the time should not conclude that Redis is slow.
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
