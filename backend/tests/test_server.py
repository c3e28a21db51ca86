"""What the running server promises to whom it serves when it is told to stop."""

import pytest
from app.core.settings import Settings
from app.server import grace_seconds


@pytest.mark.parametrize("deadline_seconds", [1, 60, 600])
def test_whatever_was_accepted_has_the_time_to_end(settings: Settings, deadline_seconds: float) -> None:
    """A body may take ten seconds to come, and a request is recorded twice: when it is admitted and when it ends."""
    record_seconds = 5
    drawn = settings.model_copy(
        update={
            "image_provider": "gemini",
            "generation_deadline_seconds": deadline_seconds,
            "record_deadline_seconds": record_seconds,
        }
    )
    assert grace_seconds(drawn) > 10 + deadline_seconds + 2 * record_seconds
    assert grace_seconds(settings) == 30
