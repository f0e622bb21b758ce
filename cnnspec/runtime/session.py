"""A model ready to run: on which provider, with how many threads, and that is what really runs.

Files come judged, as a `ModelFile`. What the numbers mean may not enter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.binding import Bound
from cnnspec.runtime.model_file import ModelFile, Port
from cnnspec.runtime.preparing import Array
from cnnspec.runtime.providers import (
    ONNX_NAMES,
    Provider,
    Settings,
    Wanted,
    cache_folder,
    driver,
    missing_libraries,
    refusal,
    requested,
    several_runtimes,
    shortcomings,
)
from cnnspec.runtime.said import first_sentence
from cnnspec.runtime.threads import usable_threads

__all__ = ["Session"]

_SILENT = 4
_MOST_BOUND = 8
"""Shapes of inputs whose memory on a device is kept."""


class Session:
    """A model on a provider.

    `provider` is what runs: `cuda` and `tensorrt` are what was asked for or an
    `EnvironmentFailure`, `auto` is CUDA where it works and the CPU elsewhere. `threads` are those
    of the CPU. `remarks` is what users should know about this choice. `graph` says whether CUDA
    graphs are used. Not for several threads at once.

    `sizes` gives free sizes a value, by their name, so that ONNX Runtime can plan with them.
    """

    def __init__(
        self,
        model: ModelFile,
        *,
        provider: Wanted = "auto",
        threads: int | None = None,
        sizes: Mapping[str, int] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.model = model
        self.threads = usable_threads() if threads is None else threads
        self.inputs: tuple[Port, ...] = model.inputs
        self.outputs: tuple[Port, ...] = model.outputs
        self._settings = settings or Settings()
        self._sizes = dict(sizes or {})
        warning = several_runtimes()
        self.remarks: tuple[str, ...] = (warning,) if warning else ()
        self._bound: dict[object, Bound] = {}
        self._made = 0
        self.provider: Provider = "cpu"
        self.graph = False
        self._session = self._chosen(provider)

    # ------------------------------------------------------------------------------- the provider

    def _chosen(self, wanted: Wanted) -> onnxruntime.InferenceSession:
        if wanted == "cpu":
            return self._created("cpu", self._settings)
        if wanted != "auto":
            return self._on_gpu(wanted)
        # A machine without a driver has no GPU, and nobody who asks for `auto` misses it.
        if ONNX_NAMES["cuda"] in onnxruntime.get_available_providers() and driver().devices:
            try:
                return self._on_gpu("cuda")
            except EnvironmentFailure as failure:
                self.remarks += (f"{failure.message}; it runs on the CPU",)
        return self._created("cpu", self._settings)

    def _on_gpu(self, provider: Provider) -> onnxruntime.InferenceSession:
        built_for = getattr(onnxruntime, "cuda_version", None) or None
        available = onnxruntime.get_available_providers()
        there = ONNX_NAMES[provider] in available
        reasons = shortcomings(
            provider,
            available=available,
            found=driver(),
            built_for=built_for,
            missing=missing_libraries() if there else (),
            device=self._settings.device,
        )
        if reasons:
            raise refusal(provider, reasons, built_for)
        settings = self._settings
        if provider == "tensorrt" and settings.cache is None:
            settings = replace(settings, cache=cache_folder(self.model.sha256()))
        if settings.cache is not None:
            _make(settings)
        try:
            with _quiet():
                session = self._created(provider, settings)
        except EnvironmentFailure as failure:
            if not settings.graph:
                raise refusal(provider, [failure.message], built_for) from None
            # A graph needs every node on the GPU, which only ONNX Runtime can tell.
            self.remarks += ("CUDA graphs cannot be used for this model",)
            self._settings = replace(self._settings, graph=False)
            return self._on_gpu(provider)
        if session.get_providers()[0] != ONNX_NAMES[provider]:
            raise refusal(provider, ["onnxruntime fell back to another provider"], built_for)
        self.provider = provider
        self.graph = settings.graph
        return session

    def _created(self, provider: Provider, settings: Settings) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        for name, size in self._sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        try:
            # Without the last argument failures of a provider would be printed and passed over.
            return onnxruntime.InferenceSession(
                os.fspath(self.model.path),
                options,
                providers=requested(provider, settings),
                enable_fallback=0,
            )
        except Exception as failure:  # ONNX Runtime's error classes have no public base
            raise EnvironmentFailure(
                f"ONNX Runtime cannot load `{self.model.path}`: {first_sentence(failure)}"
            ) from None

    # ------------------------------------------------------------------------------------ running

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name. Raises `EnvironmentFailure` for what ONNX Runtime refuses."""
        if self.provider != "cpu":
            bound = self.bound(feeds)
            with self._refusals_told():
                bound.feed(feeds)
                bound.run()
                return bound.results()
        with self._refusals_told():
            results: Sequence[Any] = self._session.run(None, dict(feeds))
        names = [port.name for port in self.outputs]
        return {name: np.asarray(each) for name, each in zip(names, results, strict=True)}

    def bound(self, feeds: Mapping[str, Array]) -> Bound:
        """Memory on the device for inputs of these shapes and their outputs, kept for later runs.

        With CUDA graphs, each is recorded once and then replayed.
        """
        key = tuple((name, array.shape, str(array.dtype)) for name, array in feeds.items())
        if key not in self._bound:
            if len(self._bound) == _MOST_BOUND:
                self._bound.pop(next(iter(self._bound)))
            device = "cpu" if self.provider == "cpu" else "cuda"
            self._made += 1
            with self._refusals_told():
                self._bound[key] = Bound(
                    self._session,
                    feeds,
                    device=device,
                    number=self._settings.device if device == "cuda" else 0,
                    graph=self._made if self.graph else None,
                )
        return self._bound[key]

    @contextmanager
    def _refusals_told(self) -> Iterator[None]:
        try:
            yield
        except EnvironmentFailure:
            raise
        except Exception as failure:  # ONNX Runtime's error classes have no public base
            raise EnvironmentFailure(
                f"ONNX Runtime cannot run `{self.model.path}`: {first_sentence(failure)}"
            ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime prints what it finds wrong with a provider; it is told in a better way."""
    onnxruntime.set_default_logger_severity(_SILENT)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # its own default, warnings


def _make(settings: Settings) -> None:
    """The folder of the engines, of this user only: an engine is a program."""
    assert settings.cache is not None
    try:
        settings.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"the cache `{settings.cache}` cannot be made: {reason}") from None
