"""`cnnspec fmt` as users meet it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cnnspec.cli import fmt
from cnnspec.cli.main import main
from cnnspec.frontend.formatting import FormattingError
from tests.cli.process import cnnspec

GOOD = "cnnspec: 1\nname: good\ninputs: {image: [3, 8, 8]}\nlayers: [ReLU]\n"
LOOSE = GOOD.replace(": 1", ":   1") + "\n\n"
UNREADABLE = "cnnspec: 1\nname: *good\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    texts = {
        "good.yaml": GOOD,
        "deep/er/loose.yml": LOOSE,
        "deep/other.yaml": "services:   {web: 1}\n",
        "deep/notes.txt": LOOSE,
        ".hidden/loose.yaml": LOOSE,
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    return tmp_path


def test_the_specs_of_a_folder(folder: Path) -> None:
    before = (folder / "good.yaml").stat()
    code, out, err = cnnspec("fmt", cwd=folder)
    loose = str(Path("deep", "er", "loose.yml"))
    assert (code, err) == (0, "")
    assert out == f"changed {loose}\n1 file changed, 1 file left as it is\n"
    assert (folder / loose).read_text(encoding="utf-8") == GOOD
    after = (folder / "good.yaml").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert (folder / "deep" / "other.yaml").read_text(encoding="utf-8").startswith("services:   ")
    assert (folder / ".hidden" / "loose.yaml").read_text(encoding="utf-8") == LOOSE
    assert cnnspec("fmt", "--check", "deep", "good.yaml", cwd=folder) == (
        0,
        "2 files left as they are\n",
        "",
    )


def test_check_and_diff_write_nothing(folder: Path) -> None:
    loose = folder / "deep" / "er" / "loose.yml"
    code, out, err = cnnspec("fmt", "--check", "deep", cwd=folder)
    shown = str(Path("deep", "er", "loose.yml"))
    assert (code, out, err) == (1, f"would change {shown}\n1 file would change\n", "")
    code, out, err = cnnspec("fmt", "--diff", "deep", cwd=folder)
    assert (code, err) == (1, "1 file would change\n")
    assert out == (
        f"--- {shown}\n+++ {shown} (formatted)\n@@ -1,6 +1,4 @@\n"
        "-cnnspec:   1\n+cnnspec: 1\n name: good\n inputs: {image: [3, 8, 8]}\n"
        " layers: [ReLU]\n-\n-\n"
    )
    assert loose.read_text(encoding="utf-8") == LOOSE
    (folder / "end.yaml").write_bytes(GOOD.rstrip().encode())
    assert "no line break at the end" in cnnspec("fmt", "--diff", "end.yaml", cwd=folder).out
    (folder / "crlf.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    code, out, err = cnnspec("fmt", "--diff", "crlf.yaml", cwd=folder)
    assert (code, out) == (1, "crlf.yaml: line breaks or the encoding would change\n")


def test_standard_input(folder: Path) -> None:
    assert cnnspec("fmt", "-", stdin=LOOSE) == (0, GOOD, "")
    assert cnnspec("fmt", "-", stdin=GOOD) == (0, GOOD, "")
    assert cnnspec("fmt", "-", "--check", stdin=GOOD) == (0, "", "")
    assert cnnspec("fmt", "-", "--check", stdin=LOOSE) == (1, "would change <stdin>\n", "")
    code, out, err = cnnspec("fmt", "-", stdin=UNREADABLE)
    assert (code, out) == (1, "")
    assert "error[yaml-alias]" in err
    assert " --> <stdin>:2:7" in err


def test_what_cannot_be_read_is_left_alone_and_hides_nothing(folder: Path) -> None:
    (folder / "bad.yaml").write_text(UNREADABLE, encoding="utf-8")
    code, out, err = cnnspec("fmt", "bad.yaml", "none.yaml", "deep", cwd=folder)
    assert code == 2
    assert "1 file changed" in out
    assert "bad.yaml:2:7" in err
    assert "error: there is no file `none.yaml`" in err
    assert (folder / "bad.yaml").read_text(encoding="utf-8") == UNREADABLE
    code, out, _ = cnnspec("fmt", "bad.yaml", cwd=folder)
    assert (code, out) == (1, "1 file not formatted\n")
    assert cnnspec("fmt", "--check", ".hidden", "-", stdin=UNREADABLE, cwd=folder).code == 1


@pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")
def test_links_stay_links_and_modes_stay(folder: Path) -> None:
    target = folder / "deep" / "er" / "loose.yml"
    target.chmod(0o640)
    (folder / "link.yaml").symlink_to(target)
    code, out, err = cnnspec("fmt", "link.yaml", str(target), cwd=folder)
    assert (code, out, err) == (0, "changed link.yaml\n1 file changed\n", "")
    assert (folder / "link.yaml").is_symlink()
    assert target.read_text(encoding="utf-8") == GOOD
    assert target.stat().st_mode & 0o777 == 0o640


def test_only_specs(folder: Path) -> None:
    other = str(Path("deep", "other.yaml"))
    assert cnnspec("fmt", "--only-specs", other, cwd=folder) == (0, "no specs\n", "")
    assert cnnspec("fmt", other, cwd=folder).out == f"changed {other}\n1 file changed\n"


def test_a_bug_in_the_formatter_is_told_and_nothing_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(source: object) -> str:
        raise FormattingError

    monkeypatch.setattr(fmt, "format_text", broken)
    path = folder / "deep" / "er" / "loose.yml"
    assert main(["fmt", str(path)]) == 70
    assert "is left as it is" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == LOOSE


def test_the_specs_of_this_project_are_laid_out() -> None:
    code, out, err = cnnspec("fmt", "--check", "specs")
    assert (code, err) == (0, ""), out
