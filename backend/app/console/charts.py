"""The bars of the usage chart: their sizes and texts, for the template that draws them as SVG."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate

from app.features.usage.service import Share

_HEIGHT = 200  # in units of the SVG, as all lengths here
_DAY_WIDTH = 10
_GAP = 2


@dataclass(frozen=True)
class Series:
    """The images that one key delivered, or without a key id, those of all the keys without a series of their own."""

    key_id: str | None
    name: str
    environment: str | None
    images: int


@dataclass(frozen=True)
class Bar:
    """The rectangle for the images of one series on one day. `series` is its index in `Chart.series`."""

    series: int
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Day:
    """The images of one day, in the order of `Chart.series`."""

    date: date
    images: Sequence[int]

    @property
    def total(self) -> int:
        return sum(self.images)


@dataclass(frozen=True)
class Chart:
    """The series from the most to the fewest images, the bars of all days, and the same numbers for a table."""

    series: Sequence[Series]
    bars: Sequence[Bar]
    days: Sequence[Day]
    maximum: int
    """The number of images at the upper end of the vertical axis."""

    @property
    def width(self) -> int:
        return len(self.days) * _DAY_WIDTH

    @property
    def total(self) -> int:
        return sum(series.images for series in self.series)

    @property
    def busiest(self) -> Day:
        return max(self.days, key=lambda day: day.total)


def draw_chart(shares: Sequence[Share], *, first: date, last: date) -> Chart:
    """The chart of the days from `first` to `last`: one stack of bars a day, with the largest series at the bottom."""
    series = _series(shares)
    index = {each.key_id: number for number, each in enumerate(series)}
    images: defaultdict[date, list[int]] = defaultdict(lambda: [0] * len(series))
    for share in shares:
        images[share.date][index[share.key_id]] += share.images
    days = [Day(day, images[day]) for day in (first + timedelta(days=n) for n in range((last - first).days + 1))]
    maximum = _round_up(max(day.total for day in days))
    bars = [bar for number, day in enumerate(days) for bar in _stack(number, day, series, maximum=maximum)]
    return Chart(series, bars, days, maximum)


def _series(shares: Sequence[Share]) -> Sequence[Series]:
    """A series for each key, from the most to the fewest images; that of all other keys is the last."""
    totals: defaultdict[str | None, int] = defaultdict(int)
    for share in shares:
        totals[share.key_id] += share.images
    key_of = {share.key_id: share for share in shares}
    order = sorted(totals, key=lambda key_id: (key_id is None, -totals[key_id], key_id or ""))
    return [
        Series(key_id, key_of[key_id].key_name or "All other keys", key_of[key_id].environment, totals[key_id])
        for key_id in order
    ]


def _stack(number: int, day: Day, series: Sequence[Series], *, maximum: int) -> Sequence[Bar]:
    levels = [_HEIGHT * level / maximum for level in accumulate(day.images, initial=0)]
    return [
        Bar(
            index,
            number * _DAY_WIDTH + _GAP / 2,
            round(_HEIGHT - levels[index + 1], 2),
            _DAY_WIDTH - _GAP,
            round(levels[index + 1] - levels[index], 2),
            f"{day.date:%-d %b}, {series[index].name}: {count:,}",
        )
        for index, count in enumerate(day.images)
        if count
    ]


def _round_up(count: int) -> int:
    """The next even number of one or two significant digits (4, 38, 1,200), so that its half is a whole number."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return max(2, -(-count // (2 * unit)) * 2 * unit)
