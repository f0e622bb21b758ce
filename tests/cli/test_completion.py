"""Completion scripts in the real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from shlex import quote

import pytest

from cnnspec.cli.commands import COMMANDS, all_commands
from cnnspec.cli.option_types import OneOf
from cnnspec.cli.parser import parsers
from tests.cli.process import cnnspec, environment

CASES: dict[str, set[str]] = {
    "ana": {"analyze"},
    "--ver": {"--version"},
    "analyze resnet1": {"resnet18", "resnet18_A", "resnet110", "resnet1202"}
    | {f"resnet{n}{v1}" for n in (101, 152) for v1 in ("", "_v1")},
    "analyze my": {"my.yaml"},
    "analyze --for": {"--format"},
    "analyze vgg16 --format m": {"markdown"},
    "check --format g": {"github"},
    "diff vgg16 vgg1": {"vgg16", "vgg11", "vgg13", "vgg19"}
    | {f"vgg{n}_bn" for n in (11, 13, 16, 19)},
    "explain concat-sh": {"concat-shape"},
    "ops ConvT": {"ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"},
    "list --format j": {"json"},
    "completion z": {"zsh"},
    "analyze vgg16 -o my": {"my.yaml"},
    "explain my": set(),
}


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec and the three scripts."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "my.yaml").touch()
    for shell in ("bash", "zsh", "fish"):
        code, out, err = cnnspec("completion", shell)
        assert (code, err) == (0, "")
        (folder / f"cnnspec.{shell}").write_text(out, encoding="utf-8")
    return folder


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment(), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def bash(folder: Path, words: list[str]) -> set[str]:
    given = " ".join(map(quote, ["cnnspec", *words]))
    program = f"""\
source ./cnnspec.bash
complete -p cnnspec > /dev/null || exit 1
COMP_WORDS=({given}) COMP_CWORD={len(words)}
_cnnspec
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return set(run(folder, "bash", "--norc", "-c", program).split())


@needs("bash")
@pytest.mark.parametrize("typed", CASES)
def test_bash(typed: str, folder: Path) -> None:
    assert bash(folder, typed.split(" ")) == CASES[typed]


@needs("bash")
def test_bash_makes_three_words_of_an_equals_sign(folder: Path) -> None:
    assert bash(folder, ["analyze", "--format", "=", "js"]) == {"json"}
    assert bash(folder, ["analyze", "--format", "="]) == {"table", "json", "csv", "markdown"}


@needs("bash")
def test_bash_lists_all_commands(folder: Path) -> None:
    assert bash(folder, [""]) >= set(COMMANDS)


@needs("bash")
def test_bash_keeps_names_with_spaces_whole(folder: Path) -> None:
    spaced = folder / "some words.yaml"
    spaced.touch()
    try:
        program = "source ./cnnspec.bash; COMP_WORDS=(cnnspec check some) COMP_CWORD=2; _cnnspec;"
        program += "printf '%s\\n' ${#COMPREPLY[@]} \"${COMPREPLY[@]}\""
        assert run(folder, "bash", "--norc", "-c", program) == "1\nsome words.yaml\n"
    finally:
        spaced.unlink()


@needs("fish")
def test_fish(folder: Path) -> None:
    asked = "".join(f"complete -C {quote('cnnspec ' + typed)}; echo END;" for typed in CASES)
    out = run(folder, "fish", "--no-config", "-c", f"source ./cnnspec.fish; {asked}")
    answers = out.split("END\n")
    for typed, answer in zip(CASES, answers[:-1], strict=True):
        found = {line.partition("\t")[0] for line in answer.splitlines()}
        begin = typed.rpartition(" ")[2]
        # fish also offers words that only have the letters in them
        assert {word for word in found if word.startswith(begin)} == CASES[typed], typed


ZSH = {
    "ana\t": "cnnspec analyze ",
    "explain concat-s\t": "cnnspec explain concat-shape ",
    "analyze vgg16 --format=ma\t": "--format=markdown ",
    "analyze vgg16 --format cs\t": "--format csv ",
    "ops ConvTranspose2\t": "cnnspec ops ConvTranspose2d ",
    "analyze wide_resnet10\t": "cnnspec analyze wide_resnet101_2 ",
    "check my\t": "cnnspec check my.yaml ",
    "analyze --stric\t": "cnnspec analyze --strict ",
}


@needs("zsh")
def test_zsh(folder: Path) -> None:
    """Keys typed into a zsh of a pseudo-terminal; it has no other way to complete."""
    import pty

    home = folder / "zsh"
    home.mkdir(exist_ok=True)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        ["zsh", "-f", "-i"],
        cwd=folder,
        env={**environment(), "HOME": str(home), "TERM": "dumb"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    os.set_blocking(leader, False)

    def until(wanted: str) -> str:
        shown = ""
        ends = time.monotonic() + 15
        while wanted not in shown:
            assert time.monotonic() < ends, f"no {wanted!r} in {shown!r}"
            time.sleep(0.02)
            try:
                shown += os.read(leader, 65_536).decode("utf-8", "replace")
            except BlockingIOError:
                continue
        return shown

    try:
        setup = "PROMPT='READY>' RPROMPT=; unsetopt zle_bracketed_paste; autoload -Uz compinit"
        os.write(leader, f"{setup}; compinit -u -D; source ./cnnspec.zsh; echo DO''NE\n".encode())
        until("DONE")
        for typed, expected in ZSH.items():
            os.write(leader, b"cnnspec " + typed.encode())
            until(expected.removeprefix("cnnspec "))
            os.write(leader, b"\x15")
    finally:
        process.kill()
        process.wait()
        os.close(leader)


@needs("zsh")
def test_zsh_as_a_file_of_its_path(folder: Path) -> None:
    (folder / "functions").mkdir(exist_ok=True)
    shutil.copy(folder / "cnnspec.zsh", folder / "functions" / "_cnnspec")
    program = "fpath=(./functions $fpath); autoload -Uz compinit; compinit -u -D; "
    program += "print -r -- $_comps[cnnspec]"
    assert run(folder, "zsh", "-f", "-c", program) == "_cnnspec\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_name_every_option(shell: str, folder: Path) -> None:
    text = (folder / f"cnnspec.{shell}").read_text(encoding="utf-8")
    _, own = parsers(all_commands(), "")
    for name, parser in own.items():
        assert name in text
        for option in parser.options:
            plain = option.lstrip("-") if shell == "fish" else option
            assert plain in text


def test_choices_are_words_that_shells_can_complete() -> None:
    _, own = parsers(all_commands(), "")
    for parser in own.values():
        for action in parser._actions:
            if isinstance(action.type, OneOf):
                assert all(word.replace("-", "").isalnum() for word in action.type.choices)


def test_another_shell() -> None:
    assert cnnspec("completion", "tcsh") == (
        2,
        "",
        "error: SHELL takes bash, zsh or fish, not `tcsh`\n",
    )
