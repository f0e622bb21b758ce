"""Samples become batches: in order, on every process its part, read by worker processes ahead.

A batch is a function of (seed, epoch, step): nothing depends on the number of workers, and an epoch
can begin at any step. Augmentation on the device may not enter.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import get_all_start_methods
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from cnnspec.diagnostics import EnvironmentFailure, quantity
from cnnspec.runtime.preparing import Preparation
from cnnspec.runtime.threads import usable_threads
from cnnspec.training.data.in_memory import is_at_hand
from cnnspec.training.data.order import Order
from cnnspec.training.data.reading import Crop, Failed, Key, Part, Reader
from cnnspec.training.data.samples import Batch, Samples
from cnnspec.training.data.worker_life import calmed, undisturbed_children

__all__ = ["MOST_KEPT", "Loader"]

MOST_KEPT = 256 * 2**20
"""Bytes of prepared images that are kept rather than prepared again."""

_MOST_WORKERS = 8
_AHEAD = 2
"""Parts that every worker has ready or in work."""


class Loader:
    """The batches of one process.

    With `shuffle` it is for training: images are uint8, in the size that the network takes (cropped
    by `crop` where there is one, else as `preparation` does), an epoch is a permutation. Without it
    is for evaluation: images are float32 as `preparation` makes them, in the order of the samples.

    `batch_size` counts samples of a step over all `world` processes; see `Order` for who gets what.
    An epoch yields `accumulate` batches for each step; all have samples unless a step has less than
    `world * accumulate`, and then some have none (N is 0), so that processes stay in step.

    Images that cannot be read raise `EnvironmentFailure`, or with `corrupt="skip"` are told to
    `said`, each once: in training the next image that can be read takes the place (under the number
    of the one that cannot, which keeps augmentation different), in evaluation it is left out.

    `workers` are processes that read ahead; None chooses: none where images are kept, else one
    for each processor that this process may use, up to 8. Use it as a context manager, or `close`
    it: then they end. They also end with their parent, however that ends.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        seed: int,
        batch_size: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        workers: int | None = None,
        shuffle: bool,
        drop_last: bool = False,
        crop: Crop | None = None,
        preparation: Preparation,
        corrupt: Literal["fail", "skip"] = "fail",
        pin: bool = False,
        said: Callable[[str], None] | None = None,
    ) -> None:
        count = len(samples)
        if count == 0:
            raise EnvironmentFailure("there are no samples")
        if drop_last and count < batch_size:
            raise EnvironmentFailure(
                f"{quantity(count, 'sample')} to train with, fewer than a batch of {batch_size}",
                help=f"`--batch-size {count}` is the most",
            )
        self._order = Order(
            count, seed, batch_size, accumulate, rank, world, shuffle, drop_last and shuffle
        )
        self._reader = Reader(samples, preparation, crop, not shuffle, corrupt)
        self._pin = pin
        self._said = said
        self._told: set[str] = set()
        self._keeps = self._worth_keeping()
        self._kept: Part | None = None
        self.workers = self._chosen(workers)
        self._keys = _Keys()
        self._loader: DataLoader[Any] | None = None
        self._running: Iterator[Part | Failed] | None = None
        self._turn = 0

    # ------------------------------------------------------------------------------- what it has

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on every process."""
        return self._order.steps

    def count(self, step: int) -> int:
        """Samples of `step` over all processes, those that will turn out corrupt among them."""
        return self._order.size(step)

    # ------------------------------------------------------------------------------- what it does

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of this process from `first_step` on; a second call ends the first."""
        numbers = self._order.numbers(epoch)
        keys = (
            Key(epoch, self._order.part(numbers, step, part))
            for step in range(first_step, self.steps)
            for part in range(self._order.accumulate)
        )
        parts = self._at_hand(keys) if self.workers == 0 else self._by_workers(keys)
        for part in parts:
            for name, reason in part.remarks:
                self._tell(name, reason)
            yield Batch(part.images, part.targets, part.samples)

    def close(self) -> None:
        """End the workers. A later epoch starts others."""
        self._turn += 1
        self._running = None
        self._loader = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ---------------------------------------------------------------------------------- in process

    def _at_hand(self, keys: Iterator[Key]) -> Iterator[Part]:
        for key in keys:
            if self._keeps:
                part = _selected(self._all_kept(), key.numbers)
            else:
                part = _sound(self._reader(key))
            yield _pinned(part) if self._pin else part

    def _all_kept(self) -> Part:
        if self._kept is None:
            everything = np.arange(self._order.count, dtype=np.int64)
            self._kept = _sound(self._reader(Key(0, everything)))
        return self._kept

    def _worth_keeping(self) -> bool:
        """Whether all images, prepared, are few enough to be kept, and the same in every epoch."""
        reader = self._reader
        if reader.crop is not None or not is_at_hand(reader.samples):
            return False
        height, width = reader.preparation.size
        if height is None or width is None:
            return False
        values = self._order.count * reader.preparation.channels * height * width
        return values * (4 if reader.evaluate else 1) <= MOST_KEPT

    # ----------------------------------------------------------------------------------- by workers

    def _by_workers(self, keys: Iterator[Key]) -> Iterator[Part]:
        try:
            turn = self._started(keys)
            while True:
                if self._turn != turn or self._running is None:
                    raise RuntimeError("this epoch was ended by another, or by `close`")
                found = next(self._running, None)
                if found is None:
                    return
                yield _sound(found)
        except (RuntimeError, OSError, EOFError) as failure:
            self.close()
            raise _of_workers(failure) from failure

    def _started(self, keys: Iterator[Key]) -> int:
        """Let the workers read `keys`; the number of this turn."""
        self._keys.now = keys
        with undisturbed_children(), warnings.catch_warnings():
            # How many workers there are is the user's choice, or ours.
            warnings.filterwarnings("ignore", "This DataLoader will create")
            # Forked processes run no code that threads of this one may have locked.
            warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
            if self._loader is None:
                self._loader = self._made()
            self._running = iter(self._loader)
        self._turn += 1
        return self._turn

    def _made(self) -> DataLoader[Any]:
        return DataLoader(
            _Asked(self._reader),  # type: ignore[arg-type]
            batch_size=None,
            sampler=self._keys,
            num_workers=self.workers,
            prefetch_factor=_AHEAD,
            persistent_workers=True,
            pin_memory=self._pin,
            worker_init_fn=calmed(os.getpid()),
            multiprocessing_context=_start_method(),
            # Without one of its own it would draw from torch's and change what the network draws.
            generator=torch.Generator(),
        )

    def _chosen(self, workers: int | None) -> int:
        if workers is not None:
            return workers
        if self._keeps:
            return 0
        here = max(usable_threads() // self._order.world, 1)
        return min(here, _MOST_WORKERS, max(self.steps * self._order.accumulate, 1))

    def _tell(self, name: str, reason: str) -> None:
        if name not in self._told:
            self._told.add(name)
            if self._said is not None:
                self._said(f"`{name}` is skipped: {reason}")


class _Keys:
    """What is asked of the workers in the present epoch: a sampler of torch."""

    now: Iterator[Key] = iter(())

    def __iter__(self) -> Iterator[Key]:
        return self.now


class _Asked:
    """A reader as a data set of torch: what is asked for by a key."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __getitem__(self, key: Key) -> Part | Failed:
        return self._reader(key)


def _sound(found: Part | Failed) -> Part:
    if isinstance(found, Failed):
        raise EnvironmentFailure(found.message, help=found.help)
    return found


def _selected(whole: Part, numbers: NDArray[np.int64]) -> Part:
    # numpy copies at once; index_select of torch would wake threads that the network computes with.
    images, targets = (
        torch.from_numpy(each.numpy()[numbers]) for each in (whole.images, whole.targets)
    )
    return Part(images, targets, torch.from_numpy(numbers.copy()), whole.remarks)


def _pinned(part: Part) -> Part:
    return part._replace(images=part.images.pin_memory(), targets=part.targets.pin_memory())


def _start_method() -> str:
    """Forking starts at once and shares memory; elsewhere than on Linux it is not safe."""
    return "fork" if sys.platform == "linux" and "fork" in get_all_start_methods() else "spawn"


def _of_workers(failure: Exception) -> Exception:
    text = str(failure)
    if isinstance(failure, (ConnectionError, EOFError, FileNotFoundError)) or any(
        word in text for word in ("DataLoader worker", "shared memory", "ancdata")
    ):
        reason = "ended unexpectedly"
    elif isinstance(failure, OSError):
        reason = f"cannot be used: {(failure.strerror or text or 'unknown reason').lower()}"
    else:
        return failure
    return EnvironmentFailure(
        f"a process that reads samples {reason}",
        help="often memory is short, in containers shared memory (`--shm-size`); "
        "`--workers 0` reads without other processes",
    )
