"""The size that `auto` comes to: of the sizes that there are, or of any that the stub draws."""

from collections.abc import Sequence

import pytest
from app.catalogue.breaker import Breaker
from app.catalogue.choosing import Asked, choose
from app.catalogue.model import STUB_CAPABILITIES, Model, Route
from app.catalogue.routing import OpenRoute
from app.core.metrics import Metrics
from app.providers import Size
from app.providers.gemini import GEMINI_SIZES, parse_frames
from app.providers.openai import OPENAI_SIZES, parse_sizes
from app.providers.stub import SIDE_MAX, SIDE_MIN
from tests.catalogue.routed import FakeProvider

OF_GEMINI, OF_OPENAI = list(parse_frames(GEMINI_SIZES)), parse_sizes(OPENAI_SIZES)
AUTO: list[tuple[Sequence[Size], str, str]] = [
    (OF_OPENAI, "4032x3024", "1536x1024"),
    (OF_OPENAI, "300x301", "1024x1024"),
    (OF_OPENAI, "64x2000", "1024x1536"),
    (OF_GEMINI, "1000x1000", "1024x1024"),
    (parse_sizes("2048x2048, 1024x1024, 512x512"), "3000x3000", "1024x1024"),
    ([], "1024x1024", "1024x1024"),
    ([], "4032x3024", "1184x888"),
    ([], "1080x1920", "768x1368"),
    ([], "1x1", "1024x1024"),
    ([], "20000x10", "2048x64"),
    ([], "10x1000", "64x2048"),
]


@pytest.mark.parametrize(("sizes", "shape", "expected"), AUTO)
def test_auto_is_the_size_that_is_most_like_the_first_image(sizes: Sequence[Size], shape: str, expected: str) -> None:
    route = Route(name="picture/1", provider="openai", sizes=sizes, capabilities=STUB_CAPABILITIES)
    provider = FakeProvider("first", [], [])
    opened = OpenRoute(route, provider, Breaker(route.name), Metrics())
    asked = Asked(None, "auto", "auto", "auto", "live", references=1, shape=Size.of(shape))
    size, _, routes = choose(Model(name="picture", title="Picture", routes=[route]), [opened], asked, provider)
    assert (str(size), routes) == (expected, [opened])
    assert sizes or (min(size) >= SIDE_MIN and max(size) <= SIDE_MAX)
