"""What is typed wrong: exit code 2, one clear message with help, nothing on standard output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cnnspec.cli.commands import COMMANDS
from cnnspec.cli.main import main
from tests.cli.process import DECIDING, cnnspec

SPEC = """\
cnnspec: 1
name: tiny
params: {width: int = 4, depths: [1, 2]}
inputs: {image: [3, H = 8, 8]}
layers:
  - Conv2d: {out_channels: width, kernel_size: 3}
    name: conv
  - ReLU:
    repeat: depths[0]
variants:
  wide: {width: 8}
"""

WRONG: dict[str, tuple[str | None, str]] = {
    "analyse vgg16": ("there is no command `analyse`", "did you mean `analyze`?"),
    "frobnicate": (
        "there is no command `frobnicate`",
        f"commands are {', '.join(COMMANDS)}",
    ),
    "tiny.yaml": (
        "there is no command `tiny.yaml`",
        "did you mean `cnnspec analyze tiny.yaml`?",
    ),
    "--depth 1 analyze tiny.yaml": (
        "there is no option `--depth` before a command",
        "the options of a command follow it: `cnnspec analyze SPEC --variant NAME`",
    ),
    "analyze": ("SPEC is missing", "`cnnspec analyze --help` shows how"),
    "check": (
        "there is nothing to check",
        "name a spec or a folder, or `--all` for all that come with cnnspec",
    ),
    "analyze tiny.yaml --dept 1": (
        "`cnnspec analyze` has no option `--dept`",
        "did you mean `--depth`?",
    ),
    "analyze tiny.yaml --varian=wide": (
        "`cnnspec analyze` has no option `--varian`",
        "did you mean `--variant`?",
    ),
    "analyze tiny.yaml --frob": (
        "`cnnspec analyze` has no option `--frob`",
        "`cnnspec analyze --help` shows how",
    ),
    "expand tiny.yaml vgg16": (
        "`vgg16` is one argument too many",
        "`cnnspec expand --help` shows how",
    ),
    "analyze tiny.yaml --set": ("--set needs a value", "`cnnspec analyze --help` shows how"),
    "analyze tiny.yaml --strict=1": (
        "--strict takes no value",
        "`cnnspec analyze --help` shows how",
    ),
    "analyze tiny.yaml --variant=": ("--variant needs a value, not nothing", ""),
    "analyze tiny.yaml --format xml": (
        "--format takes table, json, csv or markdown, not `xml`",
        "",
    ),
    "analyze tiny.yaml --format jsn": (
        "--format takes table, json, csv or markdown, not `jsn`",
        "did you mean `json`?",
    ),
    "analyze tiny.yaml --depth 0": ("--depth takes a whole number of at least 1, not `0`", ""),
    "analyze tiny.yaml --depth -1": ("--depth takes a whole number of at least 1, not `-1`", ""),
    "analyze tiny.yaml --depth x": ("--depth takes a whole number of at least 1, not `x`", ""),
    "analyze tiny.yaml --columns=": (
        "--columns takes names with commas between them, not nothing",
        "",
    ),
    "analyze tiny.yaml --columns macs,,params": (
        "--columns takes names with commas between them, not `macs,,params`",
        "",
    ),
    "analyze tiny.yaml --columns paramss": (
        "there is no column `paramss`",
        "did you mean `params`?",
    ),
    "analyze tiny.yaml --depth 1 --format json": (
        "--depth is for tables, and json shows all",
        "",
    ),
    "analyze tiny.yaml --set width": (
        "--set takes a name and a value, not `width`",
        "for example --set classes=10",
    ),
    "analyze tiny.yaml --input image=3": (None, "the batch is not written"),
    "analyze tiny.yaml --input image=3xAx8": (
        "--input image needs sizes, not `3xAx8`",
        "for example --input image=3x256x256",
    ),
    "analyze tiny.yaml --input image=": (
        "--input image needs sizes, not nothing",
        "for example --input image=3x256x256",
    ),
    "analyze tiny.yaml --variant wid": (None, "did you mean `wide`?"),
    "analyze tiny.yaml --set widht=3": (None, "did you mean `width`?"),
    "analyze tiny.yaml --input imag=3x8x8": (None, "did you mean `image`?"),
    "analyze vgg61": ("there is no file and no bundled spec `vgg61`", "did you mean `vgg16`?"),
    "analyze tinny.yaml": ("there is no file `tinny.yaml`", "did you mean `tiny.yaml`?"),
    "analyze vgg17.yaml": ("there is no file `vgg17.yaml`", "did you mean `vgg16`?"),
    "analyze none/net.yaml": ("there is no file `none/net.yaml`", ""),
    "analyze none/vgg16.yaml": ("there is no file `none/vgg16.yaml`", "did you mean `vgg16`?"),
    "schema none.yaml": ("there is no file `none.yaml`", ""),
    "explain concat-shap": (
        "there is no diagnostic `concat-shap`",
        "did you mean `concat-shape`?",
    ),
    "explain x": ("there is no diagnostic `x`", "`cnnspec explain` lists all"),
    "analyze tiny.yaml -o none/out.txt": (
        "`none/out.txt` cannot be written: no such file or directory",
        "",
    ),
    "analyze - -": ("standard input can be read once, not for several networks", ""),
    "analyze tiny.yaml --input image=3x0x8": (
        "a size of `image` must be an integer of at least 1, not 0",
        "",
    ),
    "analyze tiny.yaml --input image=3x99999999999x8": (
        "a size of `image` must be at most 2147483647, not 99999999999",
        "",
    ),
    "analyze tiny.yaml --input q=3": (
        "`tiny.yaml` has no input or symbol `q`",
        "it has `image`, `H`",
    ),
    "analyze tiny.yaml -o folder tiny.yaml": ("`folder` cannot be written: it is a folder", ""),
    "explain-flops - -": (
        "`-` is one argument too many",
        "`cnnspec explain-flops --help` shows how",
    ),
    "expand tiny.yaml -o=": ("--output needs a value, not nothing", ""),
    "fmt - tiny.yaml": ("`-` stands alone: its result goes to standard output", ""),
    "list -": ("networks on standard input have no name to be listed by", "name a file"),
    "ops --format json Conv2d x": (
        "`x` is one argument too many",
        "`cnnspec ops --help` shows how",
    ),
    "analyze tiny.yaml -o folder": ("`folder` cannot be written: it is a folder", ""),
}
"""What is typed, with the message and the help; the wording of the frontend is tested there."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("typed", WRONG)
def test_wrong_usage(
    typed: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message, help = WRONG[typed]
    monkeypatch.chdir(folder)
    for name in DECIDING:
        monkeypatch.delenv(name, raising=False)
    code = main(typed.split(" "))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (code, out) == (2, "")
    assert lines[0].startswith("error: ")
    if message is not None:
        assert lines[0] == f"error: {message}"
    assert lines[1:] == ([f"help: {help}"] if help else [])


def test_nothing_typed_shows_help() -> None:
    code, out, err = cnnspec()
    assert (code, out) == (2, "")
    assert err == cnnspec("--help").out


@pytest.mark.parametrize("command", ["", "analyze", "check", "schema", "explain"])
def test_help(command: str) -> None:
    code, out, err = cnnspec(*command.split(), "--help", COLUMNS="80")
    assert (code, err) == (0, "")
    assert "examples:\n  cnnspec " in out
    assert max(map(len, out.splitlines())) <= 80


def test_help_of_analyze_names_every_column() -> None:
    out = cnnspec("analyze", "--help").out
    for column in ("output", "params%", "field", "connections", "memory", "exp"):
        assert f"\n  {column} " in out


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option: str) -> None:
    assert cnnspec(option) == (0, "cnnspec 0.1.0\n", "")


@pytest.mark.parametrize(
    ("given", "place"), [("depths=[1", "1 | [1"), ("depths=3", "1 | 3"), ("width=1.5", "1 | 1.5")]
)
def test_a_wrong_value_of_a_param_is_shown_with_its_place(
    given: str, place: str, folder: Path
) -> None:
    code, out, err = cnnspec("analyze", "tiny.yaml", "--set", given, cwd=folder)
    assert (code, out) == (2, "")
    assert f"--> --set {given.partition('=')[0]}:1:1" in err
    assert place in err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["vgg16_bn"], "vgg16_bn  3x224x224 -> 1000"),
        (["vgg", "--variant", "D"], "vgg16  3x224x224 -> 1000"),
        (["vgg16", "--variant", "vgg16"], "vgg16  3x224x224 -> 1000"),
        (["tiny.yaml"], "tiny  3x8x8 -> 4x6x6"),
        (["./tiny.yaml", "--variant", "wide"], "wide  3x8x8 -> 8x6x6"),
        (["tiny.yaml", "--variant", "tiny"], "tiny  3x8x8 -> 4x6x6"),
        (["tiny.yaml", "--variant", "wide", "--set", "width=5"], "wide  3x8x8 -> 5x6x6"),
        (["tiny.yaml", "--set", "width=5", "--input", "H=10"], "tiny  3x10x8 -> 5x8x6"),
        (["tiny.yaml", "--input", "image=1x16x8"], "tiny  1x16x8 -> 4x14x6"),
        (["tiny.yaml", "--input", "image=[1, 16, 8]"], "tiny  1x16x8 -> 4x14x6"),
    ],
)
def test_what_names_a_network(arguments: list[str], name: str, folder: Path) -> None:
    code, out, err = cnnspec("analyze", *arguments, "--depth", "1", cwd=folder)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == name


def test_a_folder_does_not_hide_a_bundled_network(tmp_path: Path) -> None:
    (tmp_path / "lenet5").mkdir()
    assert cnnspec("analyze", "lenet5", cwd=tmp_path).code == 0


def test_a_file_hides_a_bundled_network(tmp_path: Path) -> None:
    (tmp_path / "lenet5").write_text(SPEC, encoding="utf-8")
    assert cnnspec("analyze", "lenet5", cwd=tmp_path).out.startswith("tiny  ")


def test_options_may_stand_between_networks(folder: Path) -> None:
    after = cnnspec("analyze", "tiny.yaml", "vgg16", "--sort", "macs", cwd=folder)
    between = cnnspec("analyze", "tiny.yaml", "--sort", "macs", "vgg16", cwd=folder)
    assert between == after
    assert after.code == 0
    different = cnnspec("diff", "tiny.yaml", "--exit-code", "vgg16", cwd=folder)
    assert different.code == 1
    assert different.out.startswith("tiny (tiny.yaml) -> vgg16 (vgg16.yaml)")


def test_what_follows_two_dashes_is_no_option(folder: Path) -> None:
    (folder / "-x.yaml").write_bytes((folder / "tiny.yaml").read_bytes())
    assert cnnspec("analyze", "--depth", "1", "--", "-x.yaml", cwd=folder).code == 0
    assert cnnspec("diff", "tiny.yaml", "--depth", "1", "--", "-x.yaml", cwd=folder).code == 0


def test_standard_input(folder: Path) -> None:
    code, out, err = cnnspec("analyze", "-", stdin=SPEC)
    assert (code, err) == (0, "")
    assert out == cnnspec("analyze", "tiny.yaml", cwd=folder).out
    code, out, err = cnnspec("analyze", "-", stdin=SPEC.replace("ReLU", "RelU"))
    assert (code, out) == (1, "")
    assert "--> <stdin>:8:5" in err


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "error[empty-spec]: "),
    "binary": (bytes(range(256)) * 4, "error[not-text]: "),
    "ten megabytes": (b"cnnspec: 1\n" * 1_000_000, "error[file-too-large]: "),
    "deep": (b"[" * 100_000, "error["),
    "null bytes": (b"cnnspec: 1\n\0", "error["),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_spec_is_one_diagnostic(kind: str, tmp_path: Path) -> None:
    content, begin = UNREADABLE[kind]
    (tmp_path / "net.yaml").write_bytes(content)
    code, out, err = cnnspec("analyze", "net.yaml", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(begin)
    assert err.endswith("\n1 error\n")
    checked = cnnspec("check", "net.yaml", cwd=tmp_path)
    assert checked == (1, err, "")


def test_a_directory(tmp_path: Path) -> None:
    code, out, err = cnnspec("analyze", str(tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "is a folder" in err


@pytest.mark.skipif(
    os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root reads all"
)
def test_an_unreadable_file(folder: Path) -> None:
    (folder / "tiny.yaml").chmod(0)
    code, out, err = cnnspec("analyze", "tiny.yaml", cwd=folder)
    assert (code, out) == (2, "")
    assert "cannot be read: permission denied" in err


def test_a_name_too_long_for_the_system(folder: Path) -> None:
    code, out, err = cnnspec("analyze", "n" * 5000 + ".yaml", cwd=folder)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
