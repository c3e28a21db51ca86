"""The slots of a provider: how many an account gets, and whose turn it is."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from app.core.errors import Unavailable
from app.providers import CallBudget, ContentRefused
from app.providers.slots import AccountSlots

_started: list[asyncio.Task[None]] = []


@pytest.fixture(autouse=True)
async def ended() -> AsyncIterator[None]:
    """Ends what a test has left running: nothing else would, and the collector would complain of it later."""
    yield
    for task in _started:
        task.cancel()
    await asyncio.gather(*_started, return_exceptions=True)
    _started.clear()


class Drawing:
    """Images that hold a slot until they are let go, in the order in which they got it."""

    def __init__(self, slots_max: int, account_max: int) -> None:
        self._slots = AccountSlots(slots_max, account_max)
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self.begun: list[str] = []

    def ask(self, account: str, count: int = 1, budget: CallBudget | None = None) -> list[asyncio.Task[None]]:
        """Requests of one image each, or the images of one request where they share a budget."""
        tasks = [asyncio.create_task(self._hold(budget or CallBudget(account))) for _ in range(count)]
        self._tasks.setdefault(account, []).extend(tasks)
        _started.extend(tasks)
        return tasks

    async def end(self, account: str, count: int = 1) -> None:
        """The first images of the account end, one after another."""
        for _ in range(count):
            self._tasks[account].pop(0).cancel()
            await settled()

    async def _hold(self, budget: CallBudget) -> None:
        async with self._slots.hold(budget):
            self.begun.append(budget.account_id)
            await asyncio.Event().wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_account_holds_at_most_its_share_and_others_find_slots() -> None:
    drawing = Drawing(4, 2)
    drawing.ask("a", 4)
    await settled()
    drawing.ask("b", 2)
    await settled()
    assert drawing.begun == ["a", "a", "b", "b"]
    await drawing.end("b")
    assert drawing.begun == ["a", "a", "b", "b"], "a slot stays free that only this account asks for"
    await drawing.end("a")
    assert drawing.begun == ["a", "a", "b", "b", "a"]


async def test_accounts_that_wait_take_turns_however_many_images_each_has_in_line() -> None:
    drawing = Drawing(2, 2)
    drawing.ask("a", 2)
    await settled()
    for account, images in (("b", 2), ("c", 1), ("d", 1)):
        drawing.ask(account, images)
        await settled()
    drawing.begun.clear()
    for account in ("a", "a", "b", "c"):
        await drawing.end(account)
    assert drawing.begun == ["b", "c", "d", "b"]


async def test_a_request_is_refused_where_the_line_is_full_and_an_account_without_images_in_line_never_is() -> None:
    drawing = Drawing(2, 2)
    first = drawing.ask("a", 5)
    await settled()
    assert [each.done() for each in first] == [False] * 4 + [True]
    with pytest.raises(Unavailable):
        await first[4]
    [stranger, second] = drawing.ask("b", 2)
    await settled()
    assert (stranger.done(), second.done()) == (False, True)
    with pytest.raises(Unavailable):
        await second


async def test_all_images_of_a_request_are_refused_or_none_is() -> None:
    drawing = Drawing(1, 1)
    drawing.ask("a", 2)
    await settled()
    refused = drawing.ask("a", 3, CallBudget("a"))
    admitted = drawing.ask("b", 3, CallBudget("b"))
    await settled()
    assert [each.done() for each in (*refused, *admitted)] == [True] * 3 + [False] * 3


async def test_an_image_in_line_fails_at_once_when_its_budget_is_closed() -> None:
    drawing, budget = Drawing(1, 1), CallBudget("a")
    drawing.ask("b")
    await settled()
    waiting = drawing.ask("a", 2, budget)
    await settled()
    budget.close(ContentRefused())
    for each in waiting:
        with pytest.raises(ContentRefused):
            await each
    drawing.ask("c")
    await drawing.end("b")
    assert drawing.begun == ["b", "c"]


@pytest.mark.parametrize("turns", [0, 1], ids=["while it waits", "when it has just been given a slot"])
async def test_a_cancelled_image_loses_no_slot(turns: int) -> None:
    drawing = Drawing(1, 1)
    [first] = drawing.ask("a")
    await settled()
    [waiting] = drawing.ask("b")
    await settled()
    if turns:
        first.cancel()
        await asyncio.sleep(0)
    waiting.cancel()
    first.cancel()
    await settled()
    drawing.ask("c")
    await settled()
    assert drawing.begun == ["a", "c"]
