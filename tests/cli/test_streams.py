"""Where output goes and how it looks there: pipes, files, terminals, encodings, signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.process import COMMAND, ROOT, cnnspec, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices, signals, terminals")

MANY_LAYERS = """\
cnnspec: 1
name: many
inputs: {image: [3, 8, 8]}
layers:
  - ReLU:
    repeat: 60000
"""


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `cnnspec` is the command under test."""
    return subprocess.run(
        ["bash", "-c", line.replace("cnnspec", " ".join(COMMAND), 1)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ------------------------------------------------------------------------------ pipes and files


def test_a_reader_that_goes_is_no_failure() -> None:
    done = shell("cnnspec analyze vgg16 | head -n 1; echo ${PIPESTATUS[0]}")
    assert done.stdout == "vgg16  3x224x224 -> 1000\n0\n"
    assert done.stderr == ""


def test_a_reader_that_goes_does_not_hide_what_is_wrong() -> None:
    done = shell("cnnspec check /dev/null | true; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize(
    "line", ["analyze vgg16", "analyze vgg16 --format json", "check vgg16", "--help", "--version"]
)
def test_a_full_disk_behind_standard_output(line: str) -> None:
    done = shell(f"cnnspec {line} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written: no space left on device\n"


def test_closed_streams() -> None:
    done = shell("cnnspec analyze vgg16 >&-")
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written: it is closed\n"
    done = shell("cnnspec analyze - <&-")
    assert done.returncode == 2
    assert done.stderr == "error: standard input cannot be read: it is closed\n"
    done = shell("cnnspec analyze vgg61 2>&-")
    assert (done.returncode, done.stdout) == (2, "")


def test_standard_error_on_a_full_disk() -> None:
    done = shell("cnnspec analyze vgg61 2> /dev/full")
    assert (done.returncode, done.stdout) == (2, "")


def test_output_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert cnnspec("analyze", "vgg16", "--format", "json", "-o", str(file)) == (0, "", "")
    assert file.read_text(encoding="utf-8") == cnnspec("analyze", "vgg16", "--format", "json").out
    assert list(tmp_path.iterdir()) == [file]


def test_a_table_in_a_file_has_no_colour(tmp_path: Path) -> None:
    file = tmp_path / "table.txt"
    assert cnnspec("analyze", "vgg16", "--output", str(file), FORCE_COLOR="1").code == 0
    assert file.read_text(encoding="utf-8") == cnnspec("analyze", "vgg16").out


def test_output_keeps_the_mode_of_a_file_and_a_link_to_it(tmp_path: Path) -> None:
    file, link = tmp_path / "report.txt", tmp_path / "link.txt"
    file.write_text("old")
    file.chmod(0o600)
    link.symlink_to(file)
    assert cnnspec("analyze", "lenet5", "-o", str(link)).code == 0
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text(encoding="utf-8").startswith("lenet5 ")


def test_output_writes_to_a_pipe_and_leaves_it_there(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        try:
            assert cnnspec("analyze", "lenet5", "-o", str(pipe)) == (0, "", "")
            assert pipe.is_fifo()
            assert reader.communicate(timeout=30)[0].startswith(b"lenet5 ")
        finally:
            reader.kill()


def test_output_of_a_dash_is_standard_output() -> None:
    assert cnnspec("analyze", "lenet5", "-o", "-") == cnnspec("analyze", "lenet5")


def test_what_fails_leaves_a_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    file.write_text("old")
    assert cnnspec("analyze", "lenet5", "--set", "x=1", "-o", str(file)).code == 2
    assert file.read_text() == "old"


# -------------------------------------------------------------------------- colour, width, signs


def in_terminal(columns: int, *arguments: str, **changes: str) -> tuple[int, str]:
    """Run in a terminal of its own; the exit code and all that it shows."""
    import fcntl
    import pty
    import struct
    import termios

    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=ROOT,
        env=environment(**{"TERM": "xterm-256color", **changes}),
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError:  # Linux says so when the last writer has gone
            break
        if not part:
            break
        shown += part
    os.close(screen)
    return process.wait(timeout=30), shown.decode().replace("\r\n", "\n")


def uncoloured(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def trimmed(text: str) -> str:
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


@pytest.mark.parametrize("columns", [80, 132, 200])
def test_a_terminal_has_colour_and_a_width(columns: int) -> None:
    code, shown = in_terminal(columns, "analyze", "resnet50")
    assert code == 0
    assert "\x1b[" in shown
    plain = trimmed(uncoloured(shown))
    assert max(map(len, plain.splitlines())) <= columns
    assert plain == cnnspec("analyze", "resnet50", COLUMNS=str(columns)).out


def test_failures_have_colour_in_a_terminal() -> None:
    code, shown = in_terminal(80, "analyze", "vgg61")
    assert code == 2
    assert shown.startswith("\x1b[1;31merror\x1b[0m\x1b[1m: ")
    assert uncoloured(shown) == cnnspec("analyze", "vgg61").err


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colour(changes: dict[str, str]) -> None:
    code, shown = in_terminal(80, "analyze", "resnet50", **changes)
    assert code == 0
    assert "\x1b" not in shown
    assert shown == cnnspec("analyze", "resnet50", COLUMNS="80").out


def test_colour_is_for_terminals_unless_it_is_asked_for() -> None:
    plain = cnnspec("analyze", "lenet5").out
    assert "\x1b" not in plain
    coloured = cnnspec("analyze", "lenet5", FORCE_COLOR="1", TERM="dumb").out
    assert "\x1b[1m" in coloured
    assert trimmed(uncoloured(coloured)) == plain
    assert cnnspec("analyze", "lenet5", FORCE_COLOR="0").out == plain
    assert cnnspec("analyze", "lenet5", FORCE_COLOR="1", NO_COLOR="1").out == plain
    assert cnnspec("analyze", "lenet5", NO_COLOR="").out == plain


@pytest.mark.parametrize("columns", ["", "0", "-5", "x", "²", "9" * 5000])
def test_columns_that_are_no_width(columns: str) -> None:
    assert cnnspec("analyze", "lenet5", COLUMNS=columns).code == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_an_encoding_without_the_signs_of_a_table(encoding: str) -> None:
    plain = cnnspec("analyze", "resnet50")
    poor = cnnspec("analyze", "resnet50", PYTHONIOENCODING=encoding)
    assert (poor.code, poor.err) == (0, "")
    assert poor.out.isascii()
    assert "\n|- 0 bottleneck " in poor.out
    assert list(map(len, poor.out.splitlines())) == list(map(len, plain.out.splitlines()))


def test_the_c_locale() -> None:
    done = cnnspec("analyze", "resnet50", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.code, done.err) == (0, "")
    assert "layer1 Sequential" in done.out


def test_json_is_ascii_and_so_right_in_every_encoding() -> None:
    spec = 'cnnspec: 1\nname: "naïve \\U0001F600"\ninputs: {x: [1, 8, 8]}\nlayers: [ReLU]\n'
    done = cnnspec("analyze", "-", "--format", "json", stdin=spec, PYTHONIOENCODING="ascii")
    assert done.out.isascii()
    assert '"name": "na\\u00efve \\ud83d\\ude00"' in done.out


# ----------------------------------------------------------------------- what a spec may not do


HOSTILE = """\
cnnspec: 1
name: "[/x] [bold]b[/bold] \\e[2J\\u202e"
inputs: {image: [3, 8, 8]}
layers:
  - ReLU
  - AvgPool2d: {kernel_size: 3, ceil_mode: false}
"""


@pytest.mark.parametrize("colour", ["0", "1"])
@pytest.mark.parametrize("kind", ["table", "markdown"])
def test_names_are_printed_as_they_are_and_control_characters_as_escapes(
    colour: str, kind: str
) -> None:
    code, out, err = cnnspec("analyze", "-", "--format", kind, stdin=HOSTILE, FORCE_COLOR=colour)
    assert code == 0
    assert "\\x1b[2J\\u{202e}" in out.replace("\\\\", "\\").replace("\\[", "[")
    assert not re.search(r"\x1b(?!\[[0-9;]*m)|\u202e", out + err)
    if kind == "table":
        assert "[/x] [bold]b[/bold] " in out


@pytest.mark.parametrize("colour", ["0", "1"])
def test_diagnostics_print_what_a_spec_says_as_it_is(colour: str) -> None:
    spec = HOSTILE.replace("- ReLU", '- "[/x]\\e[2J": {}').replace("ceil_mode", "'[red]\\x07'")
    code, out, err = cnnspec("analyze", "-", stdin=spec, FORCE_COLOR=colour)
    assert (code, out) == (1, "")
    assert "[/x]" in err
    assert "[red]" in err
    assert not re.search(r"\x1b(?!\[[0-9;]*m)|\x07", err)
    code, out, err = cnnspec("check", "-", "--format", "github", stdin=spec)
    assert (code, err) == (1, "")
    assert all(line.startswith("::error file=<stdin>,line=") for line in out.splitlines())


def test_a_file_name_is_printed_as_it_is(tmp_path: Path) -> None:
    name = "[bold]\n::error::\x1b[2J.yaml"
    code, out, err = cnnspec("check", name, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert err == "error: there is no file `[bold]\\n::error::\\x1b[2J.yaml`\n"


# ------------------------------------------------------------------------------------ interrupts


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        pytest.param(
            signal.SIGHUP,
            143,
            marks=pytest.mark.skipif(
                signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, reason="started by nohup"
            ),
        ),
    ],
)
def test_an_interrupted_analysis_says_nothing(sent: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [*COMMAND, "analyze", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    assert process.stdin is not None
    # More than a pipe holds: once it is written, the process reads, so it has started.
    process.stdin.write(b"#" * 1_000_000 + b"\n" + MANY_LAYERS.encode())
    process.stdin.close()
    process.stdin = None
    try:
        process.wait(timeout=0.3)
    except subprocess.TimeoutExpired:
        process.send_signal(sent)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, b"", b"")


# ------------------------------------------------------------------------------------------ bugs


def broken(error: str, **changes: str) -> tuple[int, str, str]:
    """`cnnspec analyze vgg16` with an error of ours in the middle of it."""
    program = f"""\
import sys
import cnnspec.cli.analyze as command
def load_spec(spec):
    raise {error}
command.load_spec = load_spec
sys.argv = ["cnnspec", "analyze", "vgg16"]
from cnnspec.__main__ import main
sys.exit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("error", ["KeyError('x')", "RecursionError()", "OSError(5, 'x')"])
def test_a_bug_is_called_one(error: str) -> None:
    code, out, err = broken(error)
    assert (code, out) == (70, "")
    assert err.startswith("error: this is a bug in cnnspec\nhelp: please report it")
    assert "CNNSPEC_TRACEBACK=1" in err
    assert err.count("\n") == 2


def test_the_traceback_of_a_bug() -> None:
    code, out, err = broken("KeyError('x')", CNNSPEC_TRACEBACK="1")
    assert (code, out) == (70, "")
    assert err.startswith("Traceback (most recent call last)")
    assert "KeyError: 'x'\nerror: this is a bug in cnnspec\n" in err


def test_memory_that_does_not_suffice() -> None:
    assert broken("MemoryError()") == (2, "", "error: there is not enough memory\n")
