"""The bars of the usage chart, as numbers: what is drawn, how high, and what it says."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate

from app.features.usage.service import Share

HEIGHT = 200
_SLOT = 10  # the width of a day, in units of the drawing
_GAP = 2


@dataclass(frozen=True)
class Series:
    """A key, or all others together, and what it delivered in all."""

    key_id: str | None
    name: str
    environment: str | None
    images: int


@dataclass(frozen=True)
class Bar:
    """What one series delivered on one day: a rectangle, in units of the drawing."""

    series: int
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Day:
    """A day's row of the table: what each series delivered."""

    date: date
    images: Sequence[int]

    @property
    def total(self) -> int:
        return sum(self.images)


@dataclass(frozen=True)
class Chart:
    """All that is drawn."""

    series: Sequence[Series]
    bars: Sequence[Bar]
    days: Sequence[Day]
    top: int
    """The number that the drawing's full height stands for."""

    @property
    def width(self) -> int:
        return len(self.days) * _SLOT

    @property
    def total(self) -> int:
        return sum(series.images for series in self.series)

    @property
    def busiest(self) -> Day:
        return max(self.days, key=lambda day: day.total)


def draw_chart(shares: Sequence[Share], *, first: date, last: date) -> Chart:
    """The chart of the days from `first` to `last`: a stack a day, the series with the most at the bottom."""
    series = _series(shares)
    place = {each.key_id: number for number, each in enumerate(series)}
    images: defaultdict[date, list[int]] = defaultdict(lambda: [0] * len(series))
    for share in shares:
        images[share.date][place[share.key_id]] += share.images
    days = [Day(day, images[day]) for day in (first + timedelta(days=n) for n in range((last - first).days + 1))]
    top = _round_up(max(day.total for day in days))
    bars = [bar for number, day in enumerate(days) for bar in _stack(day, series, x=number * _SLOT + _GAP / 2, top=top)]
    return Chart(series, bars, days, top)


def _series(shares: Sequence[Share]) -> Sequence[Series]:
    """The keys by what they delivered, the others last."""
    totals: defaultdict[str | None, int] = defaultdict(int)
    for share in shares:
        totals[share.key_id] += share.images
    known = {share.key_id: share for share in shares}
    order = sorted(totals, key=lambda key_id: (key_id is None, -totals[key_id], key_id or ""))
    return [
        Series(key_id, known[key_id].key_name or "All other keys", known[key_id].environment, totals[key_id])
        for key_id in order
    ]


def _stack(day: Day, series: Sequence[Series], *, x: float, top: int) -> Sequence[Bar]:
    levels = [HEIGHT * level / top for level in accumulate(day.images, initial=0)]
    return [
        Bar(
            number,
            x,
            round(HEIGHT - levels[number + 1], 2),
            _SLOT - _GAP,
            round(levels[number + 1] - levels[number], 2),
            f"{day.date:%-d %b}, {series[number].name}: {count:,}",
        )
        for number, count in enumerate(day.images)
        if count
    ]


def _round_up(most: int) -> int:
    """The next even number of one or two leading digits: 4, 38 or 1,200, so that half of it is a number too."""
    unit = int(10 ** max(0, len(str(most)) - 2))
    return max(2, -(-most // (2 * unit)) * 2 * unit)
