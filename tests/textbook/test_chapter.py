"""The chapter for readers is true: its specs are fine, commands and sessions print what it says.

What follows the language of a fenced block of `docs/textbook.md` says what to do with it:

- `yaml file=NAME`: a spec that `cnnspec check` finds nothing wrong with, for what follows to use;
  `warning=CODE` is what it warns about.
- `console`: commands behind `$ `, each with all that it prints, standard error too; a line `...`
  stands for any lines.
- `pycon`: a Python session; those of the page are one, in order.

`UPDATE_GOLDEN=1` writes the output of commands anew, but for those with a `...`.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cnnspec.cli.commands import COMMANDS
from cnnspec.ops import registry
from cnnspec.report.columns import COLUMNS
from tests.cli.inside import called

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "textbook.md"
FENCE = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
WORDS = frozenset({"padding", "same", "when", "inputs", "init", "preprocess", "labels", "weight"})
"""Arguments, controls and keys that the tables name."""
UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))


@dataclass(frozen=True)
class Block:
    """A fenced block of the page, with the line of its text."""

    language: str
    words: Mapping[str, str]
    text: str
    line: int

    def __str__(self) -> str:
        return str(self.line)


def blocks() -> list[Block]:
    page = PAGE.read_text(encoding="utf-8")
    return [
        Block(
            found[1],
            dict(re.findall(r"(\w+)=(\S+)", found[2])),
            found[3],
            page.count("\n", 0, found.start(3)) + 1,
        )
        for found in FENCE.finditer(page)
    ]


BLOCKS = blocks()
SPECS = [block for block in BLOCKS if block.language == "yaml"]
CONSOLES = [block for block in BLOCKS if block.language == "console"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the specs of the page, where its commands run one after another."""
    place = tmp_path_factory.mktemp("chapter")
    for block in SPECS:
        (place / block.words["file"]).write_text(block.text, encoding="utf-8")
    return place


def printed(command: str, folder: Path) -> str:
    """All that a command prints, without spaces at the ends of lines."""
    program, *arguments = shlex.split(command)
    assert program == "cnnspec"
    result = called(*arguments, cwd=folder, COLUMNS="100", NO_COLOR="1")
    assert result.code in (0, 1), result.err
    return re.sub(r" +$", "", result.out + result.err, flags=re.MULTILINE)


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a block, each with what it is said to print."""
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line[2:].rstrip(), ""))
        else:
            command, said = found[-1]
            found[-1] = command, said + line
    return found


def fits(found: str, said: str) -> bool:
    """Whether an output is as it is said to be, `...` standing for any lines."""
    parts = [
        r"(?:.*\n)*" if line == "...\n" else re.escape(line)
        for line in said.splitlines(keepends=True)
    ]
    return re.fullmatch("".join(parts), found) is not None


def test_every_block_is_executed() -> None:
    for block in BLOCKS:
        assert block.language in ("yaml", "console", "pycon"), f"line {block}"
        assert ("file" in block.words) == (block.language == "yaml"), f"line {block}"
    assert len(CONSOLES) > 10


@pytest.mark.parametrize("block", SPECS, ids=str)
def test_spec(block: Block, folder: Path) -> None:
    printed = called("check", "--format", "json", block.words["file"], cwd=folder)
    found = [each["code"] for each in json.loads(printed.out)["diagnostics"]]
    assert found == [code for key, code in block.words.items() if key == "warning"]


@pytest.mark.parametrize("block", CONSOLES, ids=str)
def test_commands(block: Block, folder: Path) -> None:
    for command, said in commands(block):
        found = printed(command, folder)
        if UPDATE and "...\n" not in said and found != said:
            page = PAGE.read_text(encoding="utf-8")
            written = f"$ {command}\n{said}"
            assert page.count(written) == 1, f"`{command}` stands there twice"
            PAGE.write_text(page.replace(written, f"$ {command}\n{found}"), encoding="utf-8")
            continue
        assert fits(found, said), f"`{command}` prints\n{found}"


def test_sessions(folder: Path) -> None:
    runner, names = doctest.DocTestRunner(), {"__name__": "chapter"}
    with chdir(folder):
        for block in BLOCKS:
            if block.language == "pycon":
                parsed = doctest.DocTestParser().get_doctest(
                    block.text, names, str(PAGE), str(PAGE), block.line - 1
                )
                said: list[str] = []
                runner.run(parsed, out=said.append, clear_globs=False)
                names = parsed.globs
                assert not said, "".join(said)
    assert runner.tries > 20


def test_a_wrong_output_is_found() -> None:
    assert fits("one\ntwo\nthree\n", "one\n...\nthree\n")
    assert fits("one\n", "one\n...\n")
    assert not fits("one\ntwo\n", "one\n")
    assert not fits("one 1\n", "one 2\n")


# ---------------------------------------------------------------------------- what is listed


def rows() -> list[list[str]]:
    """Cells of the tables about what the lectures name."""
    _, listed = PAGE.read_text(encoding="utf-8").split("\n## What the lectures name\n")
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in listed.splitlines()
        if line.startswith("|") and not line.startswith("| ---")
    ]
    return [row for row in cells if row != ["what", "lectures", "where"]]


def networks() -> set[str]:
    """Names of bundled specs, of their networks and variants."""
    found: set[str] = set()
    for path in (ROOT / "specs").glob("*.yaml"):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        found |= {path.stem, document.get("name", path.stem), *(document.get("variants") or {})}
    return found


def test_what_is_listed_exists() -> None:
    known = networks() | set(registry()) | set(COLUMNS) | WORDS
    assert len(rows()) > 75
    for what, lectures, where in rows():
        assert re.fullmatch(r"[0-4](-[0-4])?(, [0-4])*", lectures), what
        for name in CODE.findall(where):
            if name.startswith("cnnspec "):
                assert name.removeprefix("cnnspec ") in COMMANDS, name
            elif re.fullmatch(r"\w+|[A-Z]-\w+", name):
                assert name in known, name
