"""Responses of a provider are bounded by their bytes over the process, however many there are."""

import asyncio
from contextlib import AsyncExitStack

import httpx2
from app.providers.response_memory import ResponseMemory, Share
from tests.providers.remote import OpenUpstream, Serve
from tests.standins.wire import Reply

TURNS = 5  # of the event loop, in which whatever can go on does


async def is_waiting(task: "asyncio.Task[None] | asyncio.Task[Share]") -> bool:
    for _ in range(TURNS):
        await asyncio.sleep(0)
    return not task.done()


async def test_responses_wait_for_bytes_and_not_for_a_number(serve: Serve, open_upstream: OpenUpstream) -> None:
    url = await serve(lambda seen: Reply(bytes(int(seen.target[1:]))))
    upstream, held = open_upstream(held_bytes_max=300_000), list[int]()
    leave, entered = asyncio.Event(), asyncio.Semaphore(0)

    async def call(size: int) -> None:
        async with upstream.call(httpx2.Request("GET", f"{url}/{size}")) as response:
            held.append(len(response.content))
            entered.release()
            await leave.wait()
            held.remove(size)

    async with asyncio.TaskGroup() as group:
        for size in [1000] * 50 + [100_000] * 5:
            group.create_task(call(size))
        for _ in range(52):
            await entered.acquire()
        assert sum(held) <= 300_000
        assert (held.count(1000), held.count(100_000)) == (50, 2)
        leave.set()
        for _ in range(3):
            await entered.acquire()


async def test_a_response_of_unknown_length_holds_more_as_it_grows(serve: Serve, open_upstream: OpenUpstream) -> None:
    url = await serve(lambda _: Reply(bytes(64 * 1024), is_endless=True))
    upstream = open_upstream(held_bytes_max=3 * 1024 * 1024, bytes_max=8 * 1024 * 1024, attempts_max=1)

    async def call() -> None:
        async with upstream.call(httpx2.Request("GET", url)):
            raise AssertionError("it has no end")

    outcomes = await asyncio.gather(*(call() for _ in range(4)), return_exceptions=True)
    assert [type(each).__name__ for each in outcomes] == ["Retry"] * 4  # each was too large, and none waited for ever


async def test_where_all_wait_for_more_the_first_goes_on() -> None:
    budget = ResponseMemory(10)
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(budget.hold(5)) for _ in range(2)]
        growing = asyncio.create_task(first.grow(8))
        assert await is_waiting(growing)
        also = asyncio.create_task(second.grow(1))
        assert not await is_waiting(growing)
        assert await is_waiting(also)
        third = asyncio.create_task(stack.enter_async_context(budget.hold(1)))
        assert await is_waiting(third)
        also.cancel()
        assert await is_waiting(third)
    third.cancel()


async def test_what_a_cancelled_response_waited_for_is_free() -> None:
    budget = ResponseMemory(10)
    async with budget.hold(10):
        waiting = [asyncio.create_task(_held(budget, 10)) for _ in range(3)]
        assert await is_waiting(waiting[0])
        waiting[0].cancel()
    waiting[1].cancel()  # in the turn in which it is served
    await asyncio.wait_for(waiting[2], 10)
    async with budget.hold(10):
        pass


async def _held(budget: ResponseMemory, size: int) -> None:
    async with budget.hold(size):
        pass
