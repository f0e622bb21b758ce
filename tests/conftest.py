"""One thread for torch in every process of the tests, unless the environment says otherwise.

So `pytest -n 2` has no more threads than the machine has cores, and sums on the CPU, which depend on
the number of threads, are the same on every machine. It has to be said before torch is imported.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
