"""Inputs and outputs that stay in a device's memory from run to run.

The same code serves every device that ONNX Runtime has memory on, the CPU too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime

from cnnspec.runtime.preparing import Array

__all__ = ["Bound"]


class Bound:
    """Memory on a device for inputs of certain shapes, and for the outputs they lead to.

    With `graph`, a number from 1 that no other graph of the session has, the first runs record a
    CUDA graph, and later ones replay it: for that, inputs and outputs stay at their addresses.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        feeds: Mapping[str, Array],
        *,
        device: str,
        number: int,
        graph: int | None = None,
    ) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]
        self._inputs = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(
                np.array(array, order="C"),
                device,
                number,  # the CPU's would be the caller's own
            )
            for name, array in feeds.items()
        }
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in self._names:
            self._binding.bind_output(name, device, number)
        self._options = onnxruntime.RunOptions()
        if graph is not None:
            self._settle()
            self._options.add_run_config_entry("gpu_graph_id", str(graph))

    def _settle(self) -> None:
        """Run once without a graph, and keep the memory of the outputs where it is from then on."""
        plain = onnxruntime.RunOptions()
        plain.add_run_config_entry("gpu_graph_id", "-1")
        self._session.run_with_iobinding(self._binding, plain)
        for name, value in zip(self._names, self._binding.get_outputs(), strict=True):
            self._binding.bind_ortvalue_output(name, value)

    def feed(self, feeds: Mapping[str, Array]) -> None:
        """Put other values of the same shapes where the inputs are."""
        for name, array in feeds.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(array))

    def run(self) -> None:
        """Run, and wait until it is done; nothing is copied."""
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()

    def results(self) -> dict[str, Array]:
        """The outputs of the last run by name, copied from the device."""
        values = self._binding.copy_outputs_to_cpu()
        return {name: np.asarray(value) for name, value in zip(self._names, values, strict=True)}
