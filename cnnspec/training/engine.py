"""The run of a plan from its first step, or from a state, to its last: epochs and what is between.

A step is `stepping`, what a run remembers is `state`. How a run looks and where it is kept may not
enter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from cnnspec.backends.torch import named_outputs
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.augmentation.augmenting import Augmentation
from cnnspec.training.augmentation.cropping import Cropping
from cnnspec.training.checkpointer import Checkpointer
from cnnspec.training.compiling import compiler_explained
from cnnspec.training.data.loading import Loader
from cnnspec.training.data.samples import Batch
from cnnspec.training.device_memory import memory_used, shortage_explained
from cnnspec.training.distribution.collectives import (
    GradientSums,
    broadcast_tensors,
    shared_object,
    summed,
)
from cnnspec.training.ema import WeightAverage
from cnnspec.training.evaluating.torch_counting import Counting
from cnnspec.training.interrupting import Interrupted, Interruption, listening
from cnnspec.training.non_finite import first_odd_tensor
from cnnspec.training.objective import Objective
from cnnspec.training.optimizing import Update, make_optimizer
from cnnspec.training.planning import Plan
from cnnspec.training.scheduling import RateSchedule
from cnnspec.training.state import Parts, Progress, capture, restore
from cnnspec.training.stepping import RIDERS, NotFinite, Position, Stepper, Taken
from cnnspec.training.watching import EpochFigures, Stepped, Watcher

__all__ = ["Interrupted", "Outcome", "train"]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a run came to.

    `epochs` and `steps` are those of the whole run, resumed ones included, `seconds` too. `figures`
    are those of the last epoch, `best` those of the best one where the recipe keeps it. `weights`
    lie on the CPU, by key; they are those of the average where there is one.
    """

    epochs: int
    steps: int
    figures: EpochFigures | None
    best: EpochFigures | None
    history: tuple[EpochFigures, ...]
    stopped_early: bool
    seconds: float
    weights: Mapping[str, Tensor]


def train(
    plan: Plan,
    checkpointer: Checkpointer,
    watcher: Watcher,
    *,
    resume: Mapping[str, Any] | None = None,
) -> Outcome:
    """Train to the end of the plan. Every process calls it, within `joined`.

    `resume` is a state that `checkpointer` was given before; it matters on rank 0 alone, the others
    have it from there. `checkpointer` and `watcher` are called on rank 0 alone.

    Ctrl-C and SIGTERM end the step at hand on all processes alike, have the state kept and raise
    `Interrupted`. Raises `EnvironmentFailure` for a loss or weights that are not finite (nothing of
    them is kept), for memory that is too small, and for data that cannot be read.
    """
    with ExitStack() as stack:
        stack.enter_context(shortage_explained(plan))
        stack.enter_context(compiler_explained(plan.recipe.compile))
        stack.enter_context(_repeatable(plan, watcher))
        interruption = stack.enter_context(listening())
        run = stack.enter_context(_begun(plan, checkpointer, watcher, interruption))
        run.go_on_from(resume)
        return run.finish()


@contextmanager
def _repeatable(plan: Plan, watcher: Watcher) -> Iterator[None]:
    """Have a GPU compute the same twice, if asked; the CPU does anyway, on as many threads."""
    if not plan.place.on_gpu:
        yield
        return
    if not plan.recipe.deterministic:
        fast, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = fast
        return
    import warnings

    kept = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    _fill_empty(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic")
            yield
    finally:
        torch.use_deterministic_algorithms(False)
        _fill_empty(True)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = kept


def _fill_empty(wanted: bool) -> None:
    """Whether torch, where it is to compute the same twice, fills memory before it is written."""
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", wanted)  # noqa: B010  (no stub)


@contextmanager
def _begun(
    plan: Plan, checkpointer: Checkpointer, watcher: Watcher, interruption: Interruption
) -> Iterator[_Run]:
    """A run with its loaders open."""
    recipe, place, dataset = plan.recipe, plan.place, plan.dataset
    assert recipe.data is not None  # a plan has data
    crop = Cropping.of(recipe.augment, plan.preparation, recipe.seed)
    common: dict[str, Any] = {
        "seed": recipe.seed,
        "rank": place.rank,
        "world": place.world,
        "workers": recipe.data.workers,
        "preparation": plan.preparation,
        "corrupt": recipe.data.corrupt,
        "pin": place.on_gpu,
        "said": watcher.said,
    }
    with ExitStack() as stack:
        train_loader = stack.enter_context(
            Loader(
                dataset.train,
                batch_size=recipe.batch_size,
                accumulate=recipe.accumulate,
                shuffle=True,
                drop_last=plan.drop_last,
                crop=crop,
                **common,
            )
        )
        held_loader = None
        if dataset.held_out is not None and len(dataset.held_out):
            held_loader = stack.enter_context(
                Loader(
                    dataset.held_out,
                    batch_size=max(recipe.batch_size // recipe.accumulate, place.world),
                    shuffle=False,
                    **common,
                )
            )
        yield _Run(plan, checkpointer, watcher, interruption, train_loader, held_loader)


class _Run:
    """A run while it is going on."""

    def __init__(
        self,
        plan: Plan,
        checkpointer: Checkpointer,
        watcher: Watcher,
        interruption: Interruption,
        loader: Loader,
        held_out: Loader | None,
    ) -> None:
        self.plan, self.recipe, self.place = plan, plan.recipe, plan.place
        self.checkpointer, self.watcher, self.interruption = checkpointer, watcher, interruption
        self.loader, self.held_out = loader, held_out
        recipe, device = plan.recipe, plan.place.device
        self.module = _placed(plan)
        parameters = dict(self.module.named_parameters())
        moving = [parameters[key] for group in plan.groups for key in group.keys]
        average = WeightAverage(self.module, recipe.ema) if recipe.ema is not None else None
        optimizer = make_optimizer(recipe.optimizer, plan.groups, parameters)
        schedule = RateSchedule(
            optimizer,
            recipe.schedule,
            factors=[group.factor for group in plan.groups],
            steps=plan.steps,
            epochs=recipe.epochs,
        )
        self.parts = Parts(
            self.module, average, Update(optimizer, moving, recipe, device), schedule
        )
        self.progress = Progress()
        self._began = time.monotonic()
        in_order = [each for each in parameters.values() if each.requires_grad]
        channels, height, width = plan.shape
        objective = Objective.of(plan.graph, recipe.loss)
        if plan.place.first:
            for remark in objective.remarks:
                watcher.said(remark)
        self.stepper = Stepper(
            plan,
            self.module,
            prepared=Augmentation(
                recipe.augment,
                plan.preparation.preprocess,
                seed=recipe.seed,
                channels=channels,
                size=(height, width),
                mixup=recipe.mixup,
                cutmix=recipe.cutmix,
                classes=plan.classes,
            ),
            objective=objective,
            update=self.parts.update,
            schedule=schedule,
            average=average,
            sums=GradientSums(in_order, RIDERS, device) if plan.place.world > 1 else None,
            interruption=interruption,
        )

    # ---------------------------------------------------------------------------------- beginning

    def go_on_from(self, state: Mapping[str, Any] | None) -> None:
        """Begin where the state of rank 0 stands."""
        if self.place.world > 1:
            state = shared_object(state, self.place.device)
        if state is not None:
            self.progress = restore(state, self.parts, steps=self.plan.steps)
        self._began = time.monotonic() - self.progress.seconds

    # -------------------------------------------------------------------------------------- epochs

    def finish(self) -> Outcome:
        """Train to the end."""
        progress, recipe = self.progress, self.recipe
        while progress.epoch < recipe.epochs and not progress.stopped:
            self._epoch()
        weights = self._weights()
        if self.place.first:
            self.checkpointer.settle()
            self.checkpointer.save_final(weights)
        return Outcome(
            epochs=progress.epoch,
            steps=progress.taken,
            figures=progress.history[-1] if progress.history else None,
            best=progress.best,
            history=tuple(progress.history),
            stopped_early=progress.stopped,
            seconds=time.monotonic() - self._began,
            weights=weights,
        )

    def _epoch(self) -> None:
        progress, plan = self.progress, self.plan
        if self.place.first:
            self.watcher.epoch_begins(progress.epoch, self.recipe.epochs, plan.steps, progress.step)
        before, first = time.monotonic(), progress.counted
        self._train()
        seconds = time.monotonic() - before
        speed = (progress.counted - first) / seconds if seconds > 0 else 0.0
        held_out = self._evaluated()
        self._stop_if(self._agreed())
        self._close(held_out, speed, time.monotonic() - before)

    def _train(self) -> None:
        """Take the steps that the epoch still has."""
        progress, plan, recipe = self.progress, self.plan, self.recipe
        if progress.step >= plan.steps:
            return
        self.module.train()
        plan.still.settle()
        every = recipe.checkpoint.steps
        batches = self.loader.epoch(progress.epoch, progress.step)
        while progress.step < plan.steps:
            parts = [next(batches) for _ in range(recipe.accumulate)]
            at = Position(
                progress.epoch, progress.step, progress.taken, self.loader.count(progress.step)
            )
            try:
                taken = self.stepper.take(parts, at)
            except NotFinite:
                raise self._not_finite(parts, at) from None
            self._note(taken, at)
            self._stop_if(self.interruption.signal if self.place.world == 1 else taken.signal)
            if every and progress.step % every == 0 and progress.step < plan.steps:
                self._save()

    def _note(self, taken: Taken, at: Position) -> None:
        progress = self.progress
        progress.step += 1
        progress.taken += 1
        progress.loss += taken.loss * at.samples
        progress.counted += at.samples
        progress.rate = taken.rate
        if taken.correct is not None:
            progress.correct += taken.correct
            progress.judged += at.samples
        if self.place.first:
            self.watcher.stepped(
                Stepped(
                    epoch=at.epoch,
                    step=progress.step,
                    steps=self.plan.steps,
                    samples=at.samples,
                    loss=taken.loss,
                    correct=taken.correct,
                    rate=taken.rate,
                )
            )

    def _close(self, held_out: Mapping[str, float], speed: float, seconds: float) -> None:
        """End an epoch: its figures, the schedule, whether it was the best, or is the last."""
        progress, recipe, schedule = self.progress, self.recipe, self.parts.schedule
        self._refuse_odd(held_out)
        figures = EpochFigures(
            epoch=progress.epoch,
            epochs=recipe.epochs,
            step=progress.taken,
            train_loss=progress.loss / progress.counted,
            train_top1=progress.correct / progress.judged if progress.judged else None,
            held_out=held_out,
            rate=progress.rate,
            samples_per_second=speed,
            seconds=seconds,
            memory=memory_used(self.place.device),
        )
        watched = _figure(figures, "top1" if schedule.watches_best else "loss")
        schedule.after_epoch(watched)
        if recipe.checkpoint.best is not None and _is_better(
            figures, progress.best, recipe.checkpoint.best
        ):
            figures = progress.best = replace(figures, best=True)
            weights = self._weights()
            if self.place.first:
                self.checkpointer.save_best(weights, figures)
        progress.history.append(figures)
        progress.stopped = self._is_enough(figures)
        progress.begin_epoch()
        if self.place.first:
            self.watcher.epoch_ended(figures)
        over = progress.stopped or progress.epoch == recipe.epochs
        if over or progress.epoch % recipe.checkpoint.epochs == 0:
            self._save()

    def _is_enough(self, figures: EpochFigures) -> bool:
        """Whether the recipe's early stop says so."""
        said, progress = self.recipe.early_stop, self.progress
        if said is None:
            return False
        # Larger is better from here on.
        value = _figure(figures, said.metric)
        value = -value if said.metric == "loss" else value
        if progress.stop_best is None or value > progress.stop_best + said.least:
            progress.stop_best, progress.waited = value, 0
        else:
            progress.waited += 1
        return progress.waited >= said.patience

    # ---------------------------------------------------------------------------------- evaluation

    def _evaluated(self) -> Mapping[str, float]:
        """How good the network is on held-out samples, in float32; its average if there is one."""
        if self.held_out is None:
            return {}
        plan, device = self.plan, self.place.device
        counting = Counting(plan.task, device)
        done, whole = 0, plan.held_out
        average = self.parts.average
        self._share_statistics()
        began = time.monotonic()
        with average.in_place() if average is not None else nullcontext(), torch.no_grad():
            self.module.eval()
            for step, batch in enumerate(self.held_out.epoch(0)):
                if self.place.world == 1 and self.interruption.signal is not None:
                    return {}  # the run ends here, and a resume evaluates
                self._count(counting, batch)
                done += self.held_out.count(step)
                if self.place.first:
                    self.watcher.evaluating(done, whole)
            evaluation = counting.evaluation(
                seconds=time.monotonic() - began, names=plan.dataset.classes
            )
        return evaluation.figures()

    def _count(self, counting: Counting, batch: Batch) -> None:
        if not len(batch.images):
            return
        device, layout = self.place.device, torch.contiguous_format
        if self.recipe.channels_last:
            layout = torch.channels_last
        images = batch.images.to(device, non_blocking=True).contiguous(memory_format=layout)
        targets = batch.targets.to(device, non_blocking=True)
        outputs = named_outputs(self.plan.graph, self.module(images), training=False)
        counting.add(outputs[self.plan.task.output], targets, images)

    def _share_statistics(self) -> None:
        """Norms count what their process saw; those of rank 0 are the network's."""
        if self.place.world == 1:
            return
        average = self.parts.average
        buffers = dict(self.module.named_buffers())
        broadcast_tensors(buffers)
        if average is not None:
            broadcast_tensors({k: average.tensors[k] for k in buffers if k in average.tensors})

    # ------------------------------------------------------------------------------------- keeping

    def _weights(self) -> dict[str, Tensor]:
        average = self.parts.average
        tensors = self.module.state_dict() if average is None else average.tensors
        return {key: each.detach().to("cpu", copy=True) for key, each in tensors.items()}

    def _save(self) -> None:
        """Have the state kept, if it is sound."""
        self.progress.seconds = time.monotonic() - self._began
        self._refuse_odd()
        if self.place.first:
            self.checkpointer.save(
                capture(self.parts, self.progress, steps=self.plan.steps, world=self.place.world)
            )

    def _refuse_odd(self, held_out: Mapping[str, float] | None = None) -> None:
        """Raise for a network that stores, or makes of held-out samples, what is not finite."""
        odd = first_odd_tensor(self.module.state_dict())
        if self.place.world > 1:
            odd = _first_said(odd, self.place.world)
        if odd is None and isfinite((held_out or {}).get("loss", 0.0)):
            return
        if self.place.first:
            self.checkpointer.settle()
        where = f"behind step {self.progress.taken}"
        said = f"`{odd}` is not finite {where}"
        if odd is None:
            said = f"the loss of held-out samples is not finite {where}"
        raise EnvironmentFailure(said, help=_HELP)

    def _agreed(self) -> int | None:
        """A signal that some process got, for all of them."""
        weight = self.interruption.weight
        if self.place.world > 1:
            weight = summed(weight, self.place.device)
        return Interruption.agreed(weight)

    def _stop_if(self, number: int | None) -> None:
        """End the run where a signal came, with everything kept."""
        if number is None:
            return
        self._save()
        if self.place.first:
            self.checkpointer.settle()
        raise Interrupted(number, self.progress.epoch, self.progress.step)

    def _not_finite(self, parts: Sequence[Batch], at: Position) -> EnvironmentFailure:
        found = self.stepper.odd_layer(parts, at)
        if self.place.world > 1:
            found = _first_said(found, self.place.world)
        if self.place.first:
            self.checkpointer.settle()
        where = f"step {at.step + 1} of epoch {at.epoch + 1}"
        reason = found or "computed again, it is"
        return EnvironmentFailure(f"the loss of {where} is not finite: {reason}", help=_HELP)


_HELP = (
    "a lower rate (`--lr`), a warm-up or `clip` may keep it finite; checkpoints are from before it"
)


def _first_said(found: str | None, world: int) -> str | None:
    """What the first process found that found anything."""
    everything: list[str | None] = [None] * world
    torch.distributed.all_gather_object(everything, found)
    return next((each for each in everything if each is not None), None)


def _placed(plan: Plan) -> nn.Module:
    """The module on its device, laid out as the recipe says."""
    recipe, place = plan.recipe, plan.place
    module = plan.module
    if recipe.sync_batch_norm and place.world > 1:
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        module = convert(module)
    module = module.to(place.device)
    if recipe.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
    return module


def _figure(figures: EpochFigures, metric: str) -> float:
    """A figure of held-out samples, of training where none are held out."""
    if metric in figures.held_out:
        return figures.held_out[metric]
    if metric == "loss":
        return figures.train_loss
    return figures.train_top1 if figures.train_top1 is not None else -figures.train_loss


def _is_better(figures: EpochFigures, best: EpochFigures | None, metric: str) -> bool:
    if best is None:
        return True
    new, old = _figure(figures, metric), _figure(best, metric)
    return new < old if metric == "loss" else new > old
