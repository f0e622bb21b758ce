"""ONNX files, ready to be evaluated. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from cnnspec.diagnostics import EnvironmentFailure, listed
from cnnspec.runtime.model_file import open_model
from cnnspec.runtime.providers import Wanted
from cnnspec.runtime.threads import usable_threads
from cnnspec.training.evaluating.choosing import chosen_samples
from cnnspec.training.evaluating.onnx_engine import OnnxEngine, OnnxSubject, onnx_subject
from cnnspec.training.evaluating.reading import following
from cnnspec.training.evaluating.request import USUAL_BATCH, Prepared, Request, agreed, used

__all__ = ["files_prepared"]


def files_prepared(models: Sequence[str], request: Request, *, provider: Wanted) -> Prepared:
    """Files that answer together, and their samples.

    Raises `EnvironmentFailure` for files and data that cannot be used, or not together.
    """
    subjects = [onnx_subject(open_model(model)) for model in models]
    uses, preparations = used([each.reading.prepare for each in subjects])
    task = agreed(request, [each.task for each in subjects], models, preparations)
    shape = subjects[0].shape
    chosen = chosen_samples(
        request.data, request.split, task, shape=shape, seed=request.seed, run=request.run
    )
    batch = _batch(subjects, models, request.batch)
    threads = request.threads or usable_threads()
    engine = OnnxEngine(
        subjects,
        uses,
        batch=batch,
        averaging=len(subjects) * len(request.views.mirrored) > 1,
        provider=provider,
        threads=threads,
        confusion=request.confusion,
    )
    return Prepared(
        engine=engine,
        task=task,
        chosen=chosen,
        preparations=preparations,
        views=request.views,
        batch=batch,
        threads=threads,
        where=f"ONNX Runtime on {engine.sessions[0].provider}",
        labels=[(model, each.reading.labels) for model, each in zip(models, subjects, strict=True)],
        remarks=tuple(dict.fromkeys(said for each in engine.sessions for said in each.remarks)),
        masks=following(preparations[0], (shape[1], shape[2])),
    )


def _batch(subjects: Sequence[OnnxSubject], models: Sequence[str], asked: int | None) -> int:
    """The samples at a time: what is asked for, or what files take."""
    fixed = sorted({each.reading.batch for each in subjects if each.reading.batch is not None})
    if not fixed:
        return asked or USUAL_BATCH
    if len(fixed) > 1 or asked not in (None, *fixed):
        raise EnvironmentFailure(
            f"{listed(models)} take{'s' * (len(models) == 1)} batches of "
            f"{' and '.join(map(str, fixed))} only"
        )
    return fixed[0]
