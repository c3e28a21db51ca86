"""What happened to the images of jobs, step by step, as a trigger of the tests' own database writes it down."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import asyncpg

ENDS = {"delivered", "failed", "lost", "cancelled"}
PICKED_UP_WITHIN = timedelta(seconds=5)
"""Of the moment from which nobody works on it any more: the end of its lease, or before that the step back."""

_TRAIL = """
create table trail (
  n bigserial primary key, id text, request_id text, key_id text, prompt text, was text, became text, error text,
  was_until timestamptz, was_sent bool, is_sent bool, may_pay_twice bool, at timestamptz default clock_timestamp());
create index on trail (key_id);
create function note_step() returns trigger language plpgsql as $$ begin
  if tg_op = 'INSERT' then
    insert into trail (id, request_id, key_id, prompt, became, is_sent)
      values (new.id, new.request_id, new.key_id, new.prompt, new.status, false);
  elsif (old.status, old.sent_at) is distinct from (new.status, new.sent_at)
      or new.status = 'processing' and old.lease is distinct from new.lease then
    insert into trail (id, request_id, key_id, was, became, error, was_until, was_sent, is_sent, may_pay_twice) values (
      new.id, new.request_id, new.key_id, old.status, new.status, new.error, old.lease_until, old.sent_at is not null,
      new.sent_at is not null, coalesce((new.options -> 'may_pay_twice')::bool, false));
  end if;
  return null;
end $$;
create trigger trail after insert or update on generations for each row execute function note_step();
create table over_most (account_id text, running int);
create function note_most() returns trigger language plpgsql as $$ begin
  insert into over_most values (new.account_id, new.running);
  return null;
end $$;
create trigger most after update on lanes for each row when (new.running > {most}) execute function note_most();
"""
_REMOVED = """
drop trigger trail on generations; drop trigger most on lanes; drop function note_step, note_most;
drop table trail, over_most;
"""
_STEPS = "select * from trail where key_id = any($1) order by n"
_LEGAL = {
    (None, "queued"),
    (None, "processing"),
    ("queued", "processing"),
    ("queued", "cancelled"),
    ("processing", "processing"),
    ("processing", "queued"),
    *(("processing", end) for end in ENDS),
}


class Image(NamedTuple):
    """What became of one image: how often it was marked as sent, and how it ended."""

    steps: Sequence[asyncpg.Record]

    @property
    def is_job(self) -> bool:
        return str(self.steps[0]["became"]) == "queued"

    @property
    def request_id(self) -> str:
        return str(self.steps[0]["request_id"])

    @property
    def prompt(self) -> str:
        return str(self.steps[0]["prompt"])

    @property
    def status(self) -> str:
        return str(self.steps[-1]["became"])

    @property
    def sends(self) -> int:
        """How often it may have been handed to a provider."""
        marks = [step for step in self.steps if step["is_sent"] and not step["was_sent"]]
        return len(marks) if self.is_job else 1


async def leave_trail(database: asyncpg.Connection, *, most: int) -> None:
    """From now on every step is written down, and every lane that has more than `most` running."""
    await database.execute(_TRAIL.replace("{most}", str(most)))


async def remove_trail(database: asyncpg.Connection) -> None:
    """Nothing is written down any more."""
    await database.execute(_REMOVED)


async def images_of(database: asyncpg.Connection, key_ids: Iterable[str]) -> Mapping[str, Image]:
    """By id, all that was recorded for these keys."""
    steps: dict[str, list[asyncpg.Record]] = defaultdict(list)
    for step in await database.fetch(_STEPS, list(key_ids)):
        steps[step["id"]].append(step)
    return {each: Image(taken) for each, taken in steps.items()}


def wrong_steps(images: Mapping[str, Image]) -> Iterable[str]:
    """Every step that nobody may take, as sentences."""
    for name, image in images.items():
        ends = [step["became"] for step in image.steps if step["became"] in ENDS]
        if len(ends) != 1:
            yield f"{name} has ended {len(ends)} times: {', '.join(ends)}"
        for step in image.steps:
            was, became = step["was"], step["became"]
            if (was, became) not in _LEGAL:
                yield f"{name} was {was} and became {became}"
            if image.is_job and step["was_sent"] and became in {"queued", "cancelled"} and not step["may_pay_twice"]:
                yield f"{name} was sent and became {became}"
            if image.is_job and became == "lost" and not step["was_sent"]:
                yield f"{name} was not sent and is lost"


def taken_after_revocation(images: Mapping[str, Image]) -> Iterable[str]:
    """The images that a worker has taken after the waiting ones of their key were cancelled with it, as sentences."""
    steps = sorted((step for image in images.values() for step in image.steps), key=lambda step: int(step["n"]))
    revoked: set[str] = set()
    for step in steps:
        if step["error"] == "key_revoked" and step["was"] == "queued":
            revoked.add(step["key_id"])
        if (step["was"], step["became"]) == ("queued", "processing") and step["key_id"] in revoked:
            yield f"{step['id']} was taken after its key was revoked"


def long_waits(images: Mapping[str, Image], outages: Sequence[tuple[datetime, datetime]]) -> Iterable[str]:
    """The jobs that were taken up late after nobody worked on them any more, as sentences; without the time in which
    there was no database.
    """
    for name, image in images.items():
        for back, then in pairwise(image.steps):
            if (back["was"], back["became"], then["became"]) == ("processing", "queued", "processing"):
                begin, end = min(back["was_until"], back["at"]), then["at"]
                away = sum((max(min(end, b) - max(begin, a), timedelta(0)) for a, b in outages), timedelta(0))
                if end - begin - away > PICKED_UP_WITHIN:
                    yield f"{name} waited {end - begin} for another worker"
