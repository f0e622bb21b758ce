"""What holds for all tests, so that none depends on how busy a machine is or how many cores it has.

Torch has one thread in every process, unless the environment says otherwise: `pytest -n 2` has no
more threads than cores then, and sums, which depend on the number of threads, are the same
everywhere. It has to be said before torch is imported. Hypothesis sets no deadlines.
"""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
