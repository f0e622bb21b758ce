"""The command line in the process of the tests: what `process.cnnspec` does, without a start."""

from __future__ import annotations

import os
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from cnnspec.cli.main import main
from tests.cli.process import ROOT, Result, environment

__all__ = ["called"]


def called(*arguments: str, cwd: Path = ROOT, **changes: str) -> Result:
    """Run `cnnspec ARGUMENTS` in a folder with other environment variables."""
    out, err = StringIO(), StringIO()
    with (
        chdir(cwd),
        patch.dict(os.environ, environment(**changes), clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = main(arguments)
    return Result(code, out.getvalue(), err.getvalue())
