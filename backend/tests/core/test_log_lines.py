"""Lines for people: one for each event, whatever its values hold."""

import asyncio
import logging
import re
from io import StringIO

import pytest
from app.core.log_requests import log_request
from app.core.logs import configure_logging, logger, logging_with
from app.core.settings import Settings


@pytest.fixture
def text(log: StringIO) -> StringIO:
    """The program's output as text; `log` puts the handlers back."""
    configure_logging("DEBUG", style="text")
    [handler] = logging.root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(log)
    return log


def test_a_line_has_time_level_event_and_fields_and_a_stack_its_own_lines(text: StringIO) -> None:
    with logging_with(route="first"):
        logger.warning("store_unavailable", store="s3", reason="no such bucket")
    try:
        int("a secret")
    except ValueError:
        logger.exception("ledger_failed")
    warning, error, frame = text.getvalue().splitlines()
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} ", warning)
    assert warning[13:] == 'warning  store_unavailable route=first store=s3 reason="no such bucket"'
    assert error[13:] == "error    ledger_failed type=builtins.ValueError"
    assert frame.startswith("    at ")
    assert "a secret" not in text.getvalue()


def test_no_value_can_look_like_another_line_or_colour_the_terminal(text: StringIO) -> None:
    forged = 'x\n12:00:00.000 error    server_stopped \r\x1b[31m\u2028\x85"'
    logger.warning("odd", value=f"{forged}\ud800", nested={"deep": [forged]})
    logger.warning("odd", value="x account=another")
    logger.warning(forged)
    logging.getLogger("a.library").warning("about %s", forged)
    written = text.getvalue()
    assert written.count("\n") == len(written.splitlines()) == 4
    assert " account=another" not in written.replace('"x account=another"', "")
    assert written.replace("\n", "").isprintable()


async def test_the_line_of_a_request_is_text_too(text: StringIO) -> None:
    named = "info", "GET", "/v1/keys", None, None, None, "203.0.113.7", "invalid_token", None
    log_request("req_1", named, 401, 0.00123)
    await asyncio.sleep(0)
    assert text.getvalue()[13:] == (
        "info     request GET /v1/keys client=203.0.113.7 code=invalid_token status=401 ms=1.23 request_id=req_1\n"
    )


@pytest.mark.parametrize(
    ("given", "style"),
    [
        ({}, "text"),
        ({"environment": "production"}, "json"),
        ({"log_format": "json"}, "json"),
        ({"environment": "production", "log_format": "text"}, "text"),
    ],
)
def test_lines_are_json_in_production_and_text_in_development(given: dict[str, str], style: str) -> None:
    assert Settings(**{"secret_key": None, **given}).log_style == style
