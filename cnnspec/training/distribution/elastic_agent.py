"""The process between `launching` and the processes of a run: torch's elastic agent, kept quiet.

It is started by `launching.launch` and by nothing else. What is trained is not known here.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from cnnspec.training.distribution.launching import end_with_launcher

__all__ = ["main"]

_PATIENCE = 120
"""Seconds that the processes of a run have to save their state in once they were told to end."""


def main(arguments: Sequence[str]) -> int:
    """Run `MODULE ARGUMENTS` in so many processes, and return the exit code of the run.

    `arguments` are the count, the module and what it is given. The code is that of the process that
    failed first, or 128 and the signal's number where one ended the run.
    """
    _listen()
    end_with_launcher()
    count, module, *rest = arguments
    # The agent would report on its own work, and show where in torch a process failed.
    logging.disable(logging.CRITICAL)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    given = ["--standalone", "--nproc-per-node", count, "--shutdown_timeout", str(_PATIENCE)]
    try:
        run(parse_args([*given, "--module", module, *rest]))  # type: ignore[no-untyped-call]
    except ChildFailedError as failure:
        _, first = failure.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    except SignalException as ended:
        return 128 + int(ended.sigval)
    return 0


def _listen() -> None:
    """End at once by a signal that comes before torch's agent listens.

    Signals are held back since before this process began.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
