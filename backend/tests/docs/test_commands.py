"""docs/commands.md has every command with all its options, and each of its examples prints what it says."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import click
from app.cli import main
from tests.docs.commands_page import PAGE, comparable, examples, fill
from tests.version_before.history import connected

RUN_ELSEWHERE = {
    "nanobanana serve": "tests/test_cli.py",
    "nanobanana work": "tests/starts/test_work.py",
    "nanobanana reload": "tests/test_cli_reload.py",
    "nanobanana images copy --to s3": "tests/features/generate/test_moving_images.py",
    "nanobanana billing sync": "tests/payments/test_cli_sync.py",
    "nanobanana backup backup/database.dump": "tests/starts/test_backup.py",
    "nanobanana restore backup/database.dump": "tests/starts/test_backup.py",
}
"""Commands that need a running server or a bucket, and the tests that run them."""

_HEADINGS: list[str] = re.findall(r"^### `nanobanana (.*)`$", PAGE, re.MULTILINE)


def _commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, *names, name)
        else:
            yield " ".join((*names, name)), command


def _heading_of(command: str) -> str:
    """The heading of this command; of two that differ in a word there may be one: `accounts disable|enable`."""
    [found] = [each for each in _HEADINGS if re.fullmatch(_pattern(each), command)]
    return found


def _pattern(heading: str) -> str:
    return " ".join(f"(?:{word})" for word in heading.split() if re.fullmatch(r"[a-z][a-z-]*(\|[a-z-]+)*", word))


def test_every_command_stands_in_the_page_with_all_its_options() -> None:
    for name, command in _commands(main):
        options = {each for parameter in command.params for each in parameter.opts if each.startswith("--")}
        assert set(re.findall(r"--[a-z-]+", _heading_of(name))) == options, name
    assert len(_HEADINGS) == len({_heading_of(name) for name, _ in _commands(main)})


def test_each_example_of_the_page_prints_what_it_says(new_database_url: str, tmp_path: Path) -> None:
    async def begin() -> None:
        async with connected(new_database_url) as database:
            await fill(database)

    asyncio.run(begin())
    run = examples()
    assert set(re.findall(r"^```bash\n(.*)\n```$", PAGE, re.MULTILINE)) == set(RUN_ELSEWHERE)
    assert {re.sub(r"^\w+=\w+ ", "", each.command).split()[0] for each in run} == {"nanobanana"}
    for example in run:
        assert comparable(example.run(tmp_path, new_database_url)) == comparable(example.output), example.command
