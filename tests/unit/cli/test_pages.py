"""Commands that the pages show exist, with every option that is shown."""

import re
from pathlib import Path
from typing import Iterator, List, Tuple

import click
import pytest

from edgecount.cli.main import cli

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "engines").glob("*/*.md")]
# Not the user or the folder of that name before a call.
_CALL = re.compile(r"(?<![\w.-])edgecount (?!edgecount )([a-z].*)")


def shown(text: str) -> Iterator[str]:
    """What follows ``edgecount`` in code: blocks by line, and spans."""
    text = re.sub(r"\\\n\s*", " ", text)
    for line in text.splitlines():
        pieces = [line] if line.startswith("    ") else re.findall(r"`([^`]+)`", line)
        for piece in pieces:
            found = _CALL.search(piece)
            if found:
                yield re.split(r"\s#|\s\||;|&&|>", found.group(1))[0]


def resolved(words: List[str]) -> Tuple[click.Command, List[str]]:
    """The command that the words name, and the words behind it."""
    command: click.Command = cli
    while words and isinstance(command, click.Group):
        context = click.Context(command)
        below = command.get_command(context, words[0]) if words[0][:1].isalpha() else None
        if below is None:
            break
        command, words = below, words[1:]
    return command, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_of_a_page_exist(page: Path) -> None:
    for call in shown(page.read_text(encoding="utf-8")):
        command, words = resolved(call.split())
        stuck = isinstance(command, click.Group) and words
        assert not stuck, f"there is no command: edgecount {call}"
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        asked = {w.split("=")[0] for w in words if re.match(r"--[a-z]", w)}
        assert asked <= known, f"edgecount {call}: {sorted(asked - known)}"


def test_most_pages_show_commands() -> None:
    calls = [call for page in PAGES for call in shown(page.read_text(encoding="utf-8"))]
    assert len(calls) > 50
    assert {"build", "compare", "bench", "inspect", "doctor"} <= {c.split()[0] for c in calls}


def test_a_command_or_option_that_does_not_exist_would_be_found() -> None:
    (call,) = shown("    edgecount model forward head-n --slot a   # not yet\n")
    command, words = resolved(call.split())
    assert isinstance(command, click.Group)
    assert words == ["forward", "head-n", "--slot", "a"]
    assert "--fast" not in {o for p in resolved(["build"])[0].params for o in p.opts}
