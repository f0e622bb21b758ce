"""A file against the network it was made from, with what the file does around it.

Asks for the proof that fits; how values are compared lives in `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from cnnspec.backends.onnx.calibration import Samples
from cnnspec.backends.onnx.preprocessing import Around, Wrapped, images_alone
from cnnspec.backends.onnx.session import session
from cnnspec.backends.onnx.verify import (
    Agreement,
    Verification,
    VerificationFailure,
    agree,
    verify,
)
from cnnspec.diagnostics import shape_text
from cnnspec.ir import Graph

__all__ = ["Proof"]

_LEVELS = 1
"""How far bytes of a resized image may be from torch's: both round, not always the same way."""

_HALF = 2**-11
"""What rounding to float16 changes at most, relative to the value."""

_BATCH = 2
"""Images that are tried at a time where the file takes any number."""

_ODD = ((3, 4), (7, 6), (2, 1))
"""Proportions of images that are tried, by height and width, of what they are resized to."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A draft that is to be proved, the network as a module, and what is around it in the file.

    `others` are further shapes that its inputs may have. `tell` hears in words what is being done.
    """

    draft: Path
    graph: Graph
    network: nn.Module
    around: Around
    others: Sequence[Mapping[str, tuple[int, ...]]]
    tell: Callable[[str], None]

    def verification(self, thorough: Literal["quick", "full"]) -> Verification:
        """That of a float32 file. Raises `VerificationFailure`."""
        tried = self.others if thorough == "full" else self.others[:1]
        sizes = tried if self.around.in_graph == "none" else ()
        found = verify(self.draft, self.graph, **self._whole(), thorough=thorough, sizes=sizes)
        self._images()
        return found

    def agreement(
        self, precision: Literal["float16", "int8"], samples: Samples | None
    ) -> Agreement:
        """That of a file in another precision. Raises `VerificationFailure`."""
        given = None if samples is None else samples.of(self.around.in_graph)
        found = agree(self.draft, self.graph, **self._whole(), precision=precision, samples=given)
        self._images()
        return found

    def _whole(self) -> dict[str, Any]:
        """What the proof has to know about the file beside the network."""
        around = self.around
        if not around.renamed and not around.half:
            return {"module": self.network, "progress": self.tell}
        feeds = self._halves if around.half else None
        return {
            "module": Wrapped(self.network, around),
            "weights": self.network,
            "feeds": feeds if around.in_graph == "none" else around.feeds,
            "renamed": around.renamed,
            "progress": self.tell,
        }

    def _halves(self, batch: int) -> dict[str, NDArray[np.float16]]:
        """Random inputs in float16."""
        random = np.random.default_rng(0)
        return {
            name: random.standard_normal((batch, *self.graph.tensors[value].shape)).astype("f2")
            for name, value in self.graph.inputs.items()
        }

    def _images(self) -> None:
        """Prove that images of other sizes become what torch makes of them.

        The proof of the whole has images that resizing leaves alone, because a byte that rounds the
        other way is more than what float32 accounts for.
        """
        if self.around.in_graph != "full" or self.around.resize is None:
            return
        self.tell("images of other sizes")
        alone = images_alone(onnx.load(self.draft, load_external_data=False), self.around)
        runtime = session(
            alone.SerializeToString(),
            optimise=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
        )
        wrapped = Wrapped(nn.Identity(), self.around)
        allowed = _LEVELS * 1.01 * float(wrapped.factor.abs().max())
        if self.around.half:
            allowed += _HALF * float((255 * wrapped.factor).abs().add(wrapped.offset.abs()).max())
        (taken,) = alone.graph.input
        batch = taken.type.tensor_type.shape.dim[0].dim_value or _BATCH
        for images in self._odd(batch):
            (ours,) = runtime.run(None, {self.around.image: images})
            theirs = wrapped.prepared(torch.from_numpy(images)).numpy()
            size = shape_text(images.shape[1:3])
            if ours.shape != theirs.shape:
                raise VerificationFailure(
                    f"images of {size} become {shape_text(ours.shape[2:])} in the file, "
                    f"{shape_text(theirs.shape[2:])} in torch"
                )
            difference = float(np.abs(ours.astype(np.float32) - theirs).max())
            if not difference <= allowed:
                raise VerificationFailure(
                    f"images of {size} become other inputs than in torch: they differ by "
                    f"{difference:.1e}"
                )

    def _odd(self, batch: int) -> Iterator[NDArray[np.uint8]]:
        resize = self.around.resize
        height, width = resize if isinstance(resize, tuple) else (resize or 1, resize or 1)
        for high, wide in _ODD:
            size = (height * high // 3 + 1, width * wide // 3 + 1)
            yield self.around.images(batch, size, seed=high)
