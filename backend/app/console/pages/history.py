"""History: the account's generations and what each was made from, below what waits, is drawn or has just failed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Self

from fastapi.responses import HTMLResponse
from pydantic import Field

from app.console.dependencies import LoggedInSession
from app.console.image_inputs import takes_of
from app.console.rendering import Page
from app.core.schemas import QueryInt
from app.core.security import is_id
from app.features.dependencies import CurrentGenerations, Session
from app.generations import records
from app.generations.records import ListedGeneration
from app.web.pagination import PAGE_SIZE_MAX, PageQuery, split_page
from app.web.query import query_of

page = Page("/history", template="history.html", label="History")

_UNFINISHED = 24
_UNDELIVERED = 24
_UNDELIVERED_SHOWN_FOR = timedelta(days=1)
_GENERATIONS = 24  # fills the last row of the grid, whether it has two, three or four columns


@dataclass(frozen=True)
class Sources:
    """What a generation was made from: the images that can be looked at, and in words all others."""

    images: Sequence[ListedGeneration]
    others: Sequence[str]

    @classmethod
    def of(cls, made: ListedGeneration, shown: Mapping[str, ListedGeneration]) -> Self:
        """The sources of one that was made, of which those in `shown` can be looked at."""
        images = [shown[each] for each in made.inputs if each is not None and each in shown]
        others = Counter(_kind_of(each) for each in made.inputs if each not in shown)
        return cls(images, [kind if count == 1 else f"{kind} ({count})" for kind, count in others.items()])


def _kind_of(source: str | None) -> str:
    return "a deleted image" if source is not None and is_id("gen", source) else "an upload"


class HistoryQuery(PageQuery):
    """Which part of the history."""

    limit: QueryInt = Field(default=_GENERATIONS, ge=1, le=PAGE_SIZE_MAX)


@page.router.get(page.path)
async def show_history(
    session: LoggedInSession,
    query: Annotated[HistoryQuery, query_of(HistoryQuery)],
    generations: CurrentGenerations,
    database: Session,
) -> HTMLResponse:
    """Show the generations of all the account's keys, newest first; on the first page those too that have not ended,
    and those of the last day that ended without an image.
    """
    account_id = session.user.account_id
    find_all = partial(records.find_all, generations, database, account_id=account_id, environments=["live", "test"])
    unfinished: Sequence[ListedGeneration] = []
    undelivered: Sequence[ListedGeneration] = []
    if query.after is None:  # before what is delivered: what ends between the two is shown twice, and not left out
        unfinished = await find_all(before_id=None, limit=_UNFINISHED + 1, statuses=records.UNFINISHED)
        since = generations.clock.now() - _UNDELIVERED_SHOWN_FOR
        newest_undelivered = await find_all(before_id=None, limit=_UNDELIVERED, statuses=records.UNDELIVERED)
        undelivered = [each for each in newest_undelivered if each.created_at >= since]
    found = await find_all(before_id=query.after.id if query.after else None, limit=query.limit + 1)
    newest, older = split_page(found, query=query)
    ids = {source for each in newest for source in each.inputs if source is not None}
    shown = await records.find_some(generations, database, account_id=account_id, ids=ids)
    return session.render(
        page.template,
        unfinished=unfinished[:_UNFINISHED],
        has_more_unfinished=len(unfinished) > _UNFINISHED,
        undelivered=undelivered,
        now=generations.clock(),
        generations=[(each, Sources.of(each, shown)) for each in newest],
        older=older,
        can_edit=any(takes_of([each]).images for each in generations.catalogue.catalogue),
    )
