"""How a limit is written, in settings and on the command line."""

import pytest
from app.ratelimit import Limit


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("600/minute", Limit(600, 60)),
        ("1/second", Limit(1, 1)),
        ("30/hour", Limit(30, 3600)),
        ("9/day", Limit(9, 86_400)),
    ],
)
def test_a_limit_is_a_count_and_a_window(text: str, limit: Limit) -> None:
    assert Limit.parse(text) == limit


@pytest.mark.parametrize(
    "text", ["", "600", "0/minute", "-1/minute", "1.5/minute", "600/min", "6OO/minute", "1/minute "]
)
def test_any_other_text_raises_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="must look like 600/minute"):
        Limit.parse(text)
