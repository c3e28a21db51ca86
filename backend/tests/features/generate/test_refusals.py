"""What a provider refuses or fails at: told in our words, never counted, and not a word of it is kept anywhere."""

import json
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import asyncpg
import pytest
from app.core.errors import Unavailable
from app.core.settings import Settings
from tests.conftest import Start
from tests.features.generate.painted import PROVIDER_KEY, painted, painted_by_openai
from tests.features.usage.recorded import total
from tests.harness import everything_stored
from tests.problems import check_problem
from tests.standins import gemini, openai
from tests.standins.wire import Reply, json_reply

ONCE = {"Idempotency-Key": "once"}
PROMPT = "canary-prompt-of-a-refused-banana"
WORDS = "Words of the provider"
BLOCKED = ["SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "IMAGE_SAFETY", "OTHER"]
FINISHED = [
    *("SAFETY", "IMAGE_SAFETY", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT"),
    *("BLOCKLIST", "SPII", "RECITATION", "IMAGE_RECITATION"),
]


@dataclass(frozen=True)
class Row:
    """What the provider does, how often it is asked, and what its caller is told."""

    name: str
    faults: list[Reply]
    status: int
    code: str
    tries: int = 1
    logged: set[str] = field(default_factory=set)
    retry_after: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether the caller is told not to repeat it: it may have been paid, or would be refused again."""
        return self.status != Unavailable.status or "provider_unusable" in self.logged


def _refused(name: str, reply: Reply) -> Row:
    return Row(name, [reply], 400, "content_policy_violation")


_ALERTED, _FAILED = {"provider_unusable", "request_failed"}, {"request_failed"}
_CUT = Reply(gemini.image_bytes(1024, 1024), cut_after=1000)
_TOO_LARGE = Reply(b" " * 1024 * 1024, is_endless=True)
_UNDECODABLE = gemini.with_damaged_pixels(gemini.image_bytes(1040, 1040))  # decoded to be scaled
_UNDECODABLE_WEBP = gemini.webp_without_pixels(1024, 1024)  # decoded to become a PNG
_WORDS_ONLY = gemini.candidate("STOP", {"text": WORDS})
_PER_DAY = gemini.throttled(retry_delay="3s", quota_id="GenerateRequestsPerDayPerProjectPerModel")

GEMINI = [
    *(_refused(f"prompt {reason}", gemini.blocked_prompt(reason)) for reason in BLOCKED),
    *(_refused(f"picture {reason}", gemini.candidate(reason)) for reason in FINISHED),
    _refused("words and a refusal", gemini.candidate("IMAGE_SAFETY", {"text": WORDS})),
    Row("no picture", [_WORDS_ONLY] * 2, 502, "no_image_returned", 2, _FAILED),
    Row("no candidates", [Reply(b"{}")] * 2, 502, "no_image_returned", 2, _FAILED),
    Row("a minute", [gemini.throttled(retry_delay="300s")], 503, "provider_unavailable", 1, _FAILED, "300"),
    Row("a day", [_PER_DAY], 503, "provider_unavailable", 1, _ALERTED, "60"),
    Row(
        "no permission",
        [gemini.failed(403, "PERMISSION_DENIED")],
        503,
        "provider_unavailable",
        1,
        _ALERTED,
        "60",
    ),
    Row(
        "no credentials",
        [gemini.failed(401, "UNAUTHENTICATED")],
        503,
        "provider_unavailable",
        1,
        _ALERTED,
        "60",
    ),
    Row("trouble", [gemini.failed(500, "INTERNAL")], 502, "provider_failed", 1, _FAILED),
    Row("too busy", [gemini.failed(503, "UNAVAILABLE")] * 3, 503, "provider_unavailable", 3, _FAILED, "5"),
    Row("lost", [Reply(is_reset=True)], 502, "provider_failed", 1, _FAILED),
    Row("a page", [gemini.html()], 502, "provider_failed", 1, _FAILED),
    Row("cut", [_CUT], 502, "provider_failed", 1, _FAILED),
    Row("half a picture", [gemini.drawn(gemini.image_bytes(1024, 1024)[:5000])], 502, "provider_failed"),
    Row("damaged pixels", [gemini.drawn(_UNDECODABLE)], 502, "provider_failed"),
    Row(
        "damaged pixels of another format",
        [gemini.drawn(_UNDECODABLE_WEBP, media_type="image/webp")],
        *(502, "provider_failed", 1, {"provider_image_not_decodable"}),
    ),
    Row("too large", [_TOO_LARGE], 502, "provider_failed", 1, _FAILED),
    Row("silent", [Reply(is_stuck=True)], 504, "provider_timeout", 1, _FAILED),
]
OPENAI = [
    *(
        _refused(code, openai.failed(400, code))
        for code in ("content_policy_violation", "moderation_blocked", "content_filter")
    ),
    Row("no picture", [json_reply({"data": []})] * 2, 502, "no_image_returned", 2, _FAILED),
    Row(
        "a minute",
        [openai.failed(429, "rate_limit_exceeded", headers={"Retry-After": "300"})],
        *(503, "provider_unavailable", 1, _FAILED, "300"),
    ),
    Row("spent", [openai.failed(429, "insufficient_quota")], 503, "provider_unavailable", 1, _ALERTED, "60"),
    Row(
        "no credentials",
        [openai.failed(401, "invalid_api_key")],
        503,
        "provider_unavailable",
        1,
        _ALERTED,
        "60",
    ),
    Row("trouble", [openai.failed(500, "server_error")], 502, "provider_failed", 1, _FAILED),
    Row("a page", [gemini.html()], 502, "provider_failed", 1, _FAILED),
    Row("half a picture", [openai.in_place(b"\x89PNG")], 502, "provider_failed", 1, _FAILED),
    Row("an address of our own", [openai.at("http://127.0.0.1:1/a.png")], 502, "provider_failed", 1, _FAILED),
    Row("silent", [Reply(is_stuck=True)], 504, "provider_timeout", 1, _FAILED),
]


@pytest.mark.parametrize(
    ("provider", "row"),
    [("gemini", row) for row in GEMINI] + [("openai", row) for row in OPENAI],
    ids=lambda value: getattr(value, "name", value),
)
@pytest.mark.usefixtures("short_pauses")
async def test_it_is_told_and_never_counted_and_its_words_go_nowhere(
    start: Start, settings: Settings, database: asyncpg.Connection, log: StringIO, *, provider: str, row: Row
) -> None:
    behind = painted if provider == "gemini" else painted_by_openai
    async with behind(start, generation_deadline_seconds=1 if row.status == 504 else 60) as there:
        there.provider.faults.extend(row.faults)
        headers = {**there.key.headers, **ONCE}
        refused = await there.client.post("/v1/generate", json={"prompt": PROMPT}, headers=headers)
        check_problem(refused, row.status, row.code)
        assert refused.headers.get("x-should-retry") == ("false" if row.is_final else None)
        assert refused.headers.get("retry-after") == row.retry_after
        assert len(there.provider.seen) == row.tries
        assert await total(database, there.key) == 0
        [(generation_id, status)] = await database.fetch(
            "select id, status from generations where key_id = $1", there.key.id
        )
        assert status == "failed"
        assert _kept(settings, generation_id) == []
        there.provider.faults.clear()
        again = await there.client.post("/v1/generate", json={"prompt": PROMPT}, headers=headers)
        assert (again.status_code, "idempotent-replayed" in again.headers) == (200, False), "the key is free again"
        assert await total(database, there.key) == 1
        told, written = f"{refused.headers}{refused.text}", log.getvalue()
        assert row.logged <= {json.loads(line)["event"] for line in written.splitlines()}
        stored = await everything_stored(database)
        for secret in (PROVIDER_KEY, WORDS):
            assert [secret in where for where in (told, written, stored)] == [False] * 3
        assert PROMPT not in told + written


def _kept(settings: Settings, generation_id: str) -> list[Path]:
    return list((settings.data_dir / "pictures").rglob(f"{generation_id}*"))


@pytest.mark.parametrize("provider", ["gemini", "openai"])
async def test_what_is_busy_for_a_moment_is_waited_for(
    start: Start, database: asyncpg.Connection, provider: str
) -> None:
    busy = {
        "gemini": gemini.throttled(retry_delay="0.05s"),
        "openai": openai.failed(429, "rate_limit_exceeded", headers={"retry-after-ms": "50"}),
    }
    async with (painted if provider == "gemini" else painted_by_openai)(start) as there:
        there.provider.faults.append(busy[provider])
        answer = await there.client.post("/v1/generate", json={"prompt": PROMPT}, headers=there.key.headers)
        assert (answer.status_code, len(there.provider.seen)) == (200, 2)
        assert await total(database, there.key) == 1


async def test_several_pictures_that_all_fail_are_an_error_that_frees_the_idempotency_key(
    start: Start, settings: Settings, database: asyncpg.Connection
) -> None:
    async with painted(start) as there:
        there.provider.faults.extend([gemini.blocked_prompt("SAFETY")] * 3)
        body = {"prompt": PROMPT, "n": 3}
        headers = {**there.key.headers, **ONCE}
        refused = await there.client.post("/v1/images/generations", json=body, headers=headers)
        check_problem(refused, 400, "content_policy_violation")
        rows = await database.fetch("select id, status, error from generations where key_id = $1", there.key.id)
        assert [(row["status"], row["error"]) for row in rows] == [("failed", "content_policy_violation")] * 3
        assert [_kept(settings, row["id"]) for row in rows] == [[]] * 3
        assert await total(database, there.key) == 0
        again = await there.client.post("/v1/images/generations", json=body, headers=headers)
        replay = await there.client.post("/v1/images/generations", json=body, headers=headers)
        assert (again.status_code, replay.headers.get("idempotent-replayed")) == (200, "true")
        assert replay.content == again.content
        assert await total(database, there.key) == 3
