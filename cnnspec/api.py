"""The library: `load`, and what a loaded network can do.

Back ends are imported inside the methods that need them, so that loading and analysis need
neither torch nor onnx.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Literal

from cnnspec.diagnostics import Diagnostic, EnvironmentFailure, SpecError
from cnnspec.frontend.load import Loaded, expand, load_named, load_text
from cnnspec.ir import Graph

if TYPE_CHECKING:
    import numpy
    import torch

    from cnnspec.backends.onnx.file import Calibration, ExportReport, Progress
    from cnnspec.backends.torch import Built
    from cnnspec.backends.torch.gradients import GradientReport
    from cnnspec.passes.symbolic import Symbols
    from cnnspec.report import Report

__all__ = ["Network", "build", "load"]


class Network:
    """A network: a checked spec with a variant, params and input sizes chosen.

    Immutable, and safe to use from several threads. Made by `load`.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        variant: str | None = None,
        params: Mapping[str, object] | None = None,
        inputs: Mapping[str, object] | None = None,
    ) -> None:
        self._loaded = loaded
        self._variant = variant
        self._params = dict(params or {})
        self._inputs = dict(inputs or {})
        self.graph: Graph = expand(
            loaded, variant=variant, params=self._params, inputs=self._inputs
        )

    @property
    def name(self) -> str:
        """The spec's name, or the variant's."""
        return self.graph.name

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants the spec has, in its order."""
        return tuple(self._loaded.document.variants)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What is odd about the text of the spec, such as params never used."""
        return self._loaded.warnings

    def with_params(self, **params: object) -> Network:
        """The same spec with other values of some params; nothing is read again."""
        return Network(
            self._loaded,
            variant=self._variant,
            params={**self._params, **params},
            inputs=self._inputs,
        )

    def with_inputs(self, **inputs: object) -> Network:
        """The same spec with other input sizes: `image=(3, 256, 256)`, or a symbol `H=256`."""
        return Network(
            self._loaded,
            variant=self._variant,
            params=self._params,
            inputs={**self._inputs, **inputs},
        )

    def analyze(
        self,
        *,
        strict: bool = False,
        dtype: str = "float32",
        batch: int = 1,
        optimizer: str = "momentum",
        lint: Iterable[str] = (),
    ) -> Report:
        """Everything that can be known without running: see `cnnspec.report.Report`.

        With `strict`, windows that do not fit their input evenly are errors (`SpecError`), as in
        the lectures. Figures in bytes are those of `batch` samples in `dtype` (`float32`,
        `float16`, `bfloat16`, `float64`, `int8`), training memory with `optimizer` (`sgd`,
        `momentum`, `adam`, `adamw` and others of torch.optim); `EnvironmentFailure` for a name that
        does not exist. Counts stay at batch 1. `lint` names rules that run on request, such as
        `odd-channels`; `all` means all of them.
        """
        from cnnspec.report import analyze, lint_rules

        return analyze(
            self.graph,
            strict=strict,
            dtype=dtype,
            batch=batch,
            optimizer=optimizer,
            lint=lint_rules(lint),
            warnings=self.warnings,
        )

    def symbolic(self) -> Symbols:
        """The network as a function of its input's size: formulas, and the sizes it takes.

        `network.symbolic().macs.at(H=256, W=256)`; see `cnnspec.passes.symbolic`.
        """
        from cnnspec.frontend.resizing import resizing
        from cnnspec.passes.symbolic import symbols

        return symbols(self.graph, resizing(self._loaded, self._variant, self._params))

    def to_fcn(self) -> Network:
        """The network with its fully connected head as convolutions, so that it takes larger sizes.

        At the size at hand it computes the same, with the same weights under the same keys;
        `cnnspec.backends.torch.reshaped` gives them their new shapes. What is in front of the head
        is written out. Raises `EnvironmentFailure` naming the layer where that cannot be done.
        """
        from cnnspec.report.fully_convolutional import convolutional_spec

        found = convolutional_spec(self.graph)
        return Network(load_text(found.text, f"{found.name}.yaml"))

    def to_torch(
        self,
        weights: str | PathLike[str] | Mapping[str, torch.Tensor] | None = None,
        *,
        seed: int = 0,
        partial: bool = False,
    ) -> torch.nn.Module:
        """The network as a module, executed from its generated source, in training mode.

        Weights start from `seed`, or are taken from `weights`: a file (`.safetensors`, or what
        `torch.save` wrote) or a state dict. With `partial` only what fits is taken.

        Raises `EnvironmentFailure` for weights that cannot be read or do not fit.
        """
        from cnnspec.backends.torch import to_torch

        return to_torch(self.graph, seed, weights, partial=partial)

    def build(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        weights: str | PathLike[str] | Mapping[str, torch.Tensor] | None = None,
        partial: bool = False,
        seed: int = 0,
        dtype: str = "float32",
        verify: bool = True,
        force: bool = False,
    ) -> Built:
        """What `cnnspec build` does: a module that is proved to be what `analyze` says, as files.

        `folder` gets `model.py`, `weights.safetensors` and `spec.yaml`; without one nothing is
        written. The module is `.module` of the result. It appears whole or not at all, and only
        where nothing is lost that is not of an earlier build, unless `force` says so.

        Raises `EnvironmentFailure` for a folder that cannot be written, and for weights as
        `to_torch` does.
        """
        from cnnspec import __version__
        from cnnspec.backends.torch import build

        return build(
            self.graph,
            folder,
            version=__version__,
            weights=weights,
            partial=partial,
            seed=seed,
            dtype=dtype,
            verify=verify,
            force=force,
        )

    def source(self) -> str:
        """The Python source of the module that `to_torch` executes."""
        from cnnspec.backends.torch import emit

        return emit(self.graph)

    def to_onnx(
        self,
        path: str | PathLike[str],
        weights: torch.nn.Module
        | str
        | PathLike[str]
        | Mapping[str, torch.Tensor]
        | Mapping[str, numpy.ndarray]
        | None = None,
        *,
        partial: bool = False,
        verify: bool | Literal["quick", "full", "none"] = "quick",
        opset: int = 18,
        batch: int | Literal["dynamic"] = "dynamic",
        size: Literal["fixed", "dynamic"] = "fixed",
        seed: int = 0,
        fold: bool = True,
        precision: Literal["float32", "float16", "int8"] = "float32",
        calibration: Calibration | None = None,
        half_io: bool = False,
        preprocess: Literal["none", "normalize", "full"] = "none",
        softmax: bool = False,
        progress: Progress | None = None,
    ) -> ExportReport:
        """Write an ONNX file, verified against torch before it appears under its name.

        `weights` are a module, a file, or tensors or arrays by key; with `partial` only what fits
        is taken, and what is not given starts from `seed`. Batch norms are folded unless `fold` is
        False. int8 needs `calibration`: a folder of images, or batches of arrays by input name.
        With `preprocess` the file does what the spec's `preprocess` says: `normalize` takes images
        that are resized already, `full` bytes of any size. See `cnnspec.backends.onnx.export`.

        Raises `EnvironmentFailure` for what cannot be written, weights that do not fit and what
        the network cannot do; `VerificationFailure` for a file that is not what torch computes.
        """
        from cnnspec import __version__
        from cnnspec.backends.onnx import export

        return export(
            self.graph,
            path,
            weights,
            version=__version__,
            partial=partial,
            verify=verify,
            opset=opset,
            batch=batch,
            size=size,
            seed=seed,
            fold=fold,
            precision=precision,
            calibration=calibration,
            half_io=half_io,
            preprocess=preprocess,
            softmax=softmax,
            progress=progress,
        )

    def check_gradients(self, *, seed: int = 0, batch: int = 3) -> GradientReport:
        """Autograd's gradients of the module against central differences, in float64.

        For the inputs at hand or, which is faster and tells as much, smaller ones for which the
        network has the same layers; see `cnnspec.backends.torch.gradients`.

        Raises `EnvironmentFailure` where nothing can be compared.
        """
        from cnnspec.backends.torch.gradients import check_gradients, smaller_inputs

        for shapes in smaller_inputs(self.graph):
            try:
                network = self.with_inputs(**shapes)
                if network.same_layers(self):
                    return check_gradients(network.graph, seed=seed, batch=batch)
            except (SpecError, EnvironmentFailure):
                continue  # not for these sizes
        return check_gradients(self.graph, seed=seed, batch=batch)

    def same_layers(self, other: Network) -> bool:
        """Whether two networks are made of the same layers, whatever their sizes."""
        return [(node.path, node.op.name) for node in self.graph.nodes] == [
            (node.path, node.op.name) for node in other.graph.nodes
        ]

    def __repr__(self) -> str:
        inputs = ", ".join(
            f"{name} {self.graph.tensors[value]}" for name, value in self.graph.inputs.items()
        )
        outputs = ", ".join(
            f"{output.name} {self.graph.tensors[output.value]}" for output in self.graph.outputs
        )
        return f"Network({self.name}: {inputs} -> {outputs}, {len(self.graph.nodes)} entries)"


def load(
    source: str | PathLike[str] | None = None,
    *,
    text: str | bytes | None = None,
    variant: str | None = None,
    params: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
) -> Network:
    """Load a network from a file, by the name of a bundled spec or variant, or from text.

    Args:
        source: a path, or a bare name such as `vgg16` or `resnet101`.
        text: the YAML itself, instead of `source`.
        variant: one of the spec's variants; its own name means none.
        params: values of params, over those of the variant.
        inputs: shapes by input name, or sizes by symbol, batch not counted.

    Raises:
        SpecError: the spec is wrong; `diagnostics` says where.
        EnvironmentFailure: there is no such file, variant, param or input.
    """
    if (source is None) == (text is None):
        raise TypeError("load takes either a source or text=...")
    if text is not None:
        loaded = load_text(text)
    else:
        assert source is not None  # exactly one of the two is given
        loaded, named = load_named(fspath(source))
        variant = variant if variant is not None else named
    return Network(loaded, variant=variant, params=params, inputs=inputs)


def build(
    source: str | PathLike[str],
    folder: str | PathLike[str] | None = None,
    *,
    variant: str | None = None,
    params: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
    weights: str | PathLike[str] | Mapping[str, torch.Tensor] | None = None,
    partial: bool = False,
    seed: int = 0,
    dtype: str = "float32",
    verify: bool = True,
    force: bool = False,
) -> Built:
    """Load a network and build it: `load` and `Network.build` in one.

    `cnnspec.build("resnet18", params={"classes": 10}).module` is a torch module,
    `cnnspec.build("net.yaml", "out")` writes a folder.
    """
    network = load(source, variant=variant, params=params, inputs=inputs)
    return network.build(
        folder,
        weights=weights,
        partial=partial,
        seed=seed,
        dtype=dtype,
        verify=verify,
        force=force,
    )
