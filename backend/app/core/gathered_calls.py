"""Calls that are made for many callers at a time: one answers all who asked while the one before was under way."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class GatheredCalls(Generic[Question, Answer]):
    """`call` takes the questions of some callers, at most `most`, and returns the answers in that order. One runs at a
    time.
    """

    def __init__(self, call: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]], *, most: int) -> None:
        self._call = call
        self._most = most
        self._turn = asyncio.Lock()
        self._gathering: _Batch[Question, Answer] | None = None

    async def ask(self, question: Question) -> Answer:
        """The answer. Raises what the call raises that the question was part of."""
        batch = self._gathering
        if batch is None or len(batch.questions) >= self._most:
            batch = self._gathering = _Batch()
            batch.task = asyncio.create_task(self._answer(batch))
        place = len(batch.questions)
        batch.questions.append(question)
        answers = await asyncio.shield(batch.task)  # one caller who leaves takes nothing from the others
        return answers[place]

    async def _answer(self, batch: "_Batch[Question, Answer]") -> Sequence[Answer]:
        async with self._turn:
            if self._gathering is batch:
                self._gathering = None
            return await self._call(batch.questions)


class _Batch(Generic[Question, Answer]):
    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.task: asyncio.Task[Sequence[Answer]]
