"""What is wrong with a recipe whose values are all possible: two of them do not go together."""

from __future__ import annotations

from collections.abc import Collection

from cnnspec.diagnostics import error, listed, quantity, warning
from cnnspec.frontend.problems import Problems
from cnnspec.source import Span
from cnnspec.training.recipe.known import MOMENTUM, SOFT_LOSSES
from cnnspec.training.recipe.model import Call, Recipe
from cnnspec.training.recipe.parsing import Places

__all__ = ["check"]

_CLASSES_ONLY = frozenset(("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss"))


def check(recipe: Recipe, places: Places, broken: Collection[str], problems: Problems) -> None:
    """Record every error and warning about several keys together.

    Nothing is said of keys that are `broken`: the recipe has their defaults, not what was meant.
    """
    checks = _Checks(recipe, places, problems)
    for keys, look in (
        (("batch_size", "accumulate"), checks.batch),
        (("optimizer",), checks.optimizer),
        (("schedule", "epochs"), checks.schedule),
        (("schedule", "optimizer"), checks.cycles),
        (("loss", "mixup", "cutmix"), checks.losses),
        (("augment",), checks.augment),
        (("clip",), checks.clip),
        (("sync_batch_norm", "device"), checks.devices),
        (("early_stop", "epochs"), checks.early_stop),
        (("data",), checks.data),
    ):
        if not any(key in broken for key in keys):
            look()


class _Checks:
    """One method for each group of keys; places are paths into the recipe."""

    def __init__(self, recipe: Recipe, places: Places, problems: Problems) -> None:
        self.recipe = recipe
        self.places = places
        self.problems = problems

    def _at(self, path: str) -> Span:
        """Where a part stands, or the nearest part around it that is written."""
        while path not in self.places:
            path = path.rpartition(".")[0]
        return self.places[path]

    def _conflict(self, path: str, message: str, help: str = "") -> None:
        self.problems.add(error("argument-conflict", message, self._at(path), help=help))

    def batch(self) -> None:
        """Equal parts of a batch."""
        size, parts = self.recipe.batch_size, self.recipe.accumulate
        if size % parts:
            at = "accumulate" if "accumulate" in self.places else "batch_size"
            near = max(1, size // parts) * parts
            self.problems.add(
                error(
                    "batch-split",
                    f"a batch of {quantity(size, 'sample')} cannot be split into {parts} equal "
                    "parts",
                    self._at(at),
                    help=f"`batch_size: {near}` can",
                )
            )

    def optimizer(self) -> None:
        """Arguments that need one another."""
        given = self.recipe.optimizer.arguments
        if self.recipe.optimizer.name == "SGD" and given.get("nesterov"):
            if not given.get("momentum"):
                self._conflict("optimizer.nesterov", "`nesterov` needs a `momentum` above 0")
            elif given.get("dampening"):
                self._conflict("optimizer.nesterov", "`nesterov` goes with no `dampening`")
        if given.get("fused") and given.get("foreach"):
            self._conflict("optimizer.fused", "`fused` and `foreach` are two ways to do the same")

    # -------------------------------------------------------------------------------- schedule

    def schedule(self) -> None:
        """What the training is too short for."""
        schedule = self.recipe.schedule
        if schedule is None:
            return
        if schedule.warmup is not None and schedule.warmup.epochs >= self.recipe.epochs:
            self._never(
                "schedule.warmup",
                f"the warm-up takes {_epochs(schedule.warmup.epochs)}, and the training "
                f"{self.recipe.epochs}",
            )
        call = schedule.scheduler
        if call is None:
            if "schedule.by" in self.places:
                self._conflict("schedule.by", "`by` needs a scheduler")
            return
        if call.name == "ReduceLROnPlateau" and schedule.by == "step":
            self._conflict("schedule.by", "`ReduceLROnPlateau` looks at figures of whole epochs")
        if schedule.by == "epoch":
            self._lengths(call)

    def cycles(self) -> None:
        """Schedulers that go up and down."""
        schedule = self.recipe.schedule
        call = schedule.scheduler if schedule else None
        if schedule is None or call is None or call.name not in ("OneCycleLR", "CyclicLR"):
            return
        if schedule.by == "epoch":
            self._conflict("schedule.by", f"`{call.name}` moves on by step")
        if call.name == "OneCycleLR" and schedule.warmup is not None:
            self._conflict("schedule.warmup", "`OneCycleLR` warms up by itself")
        optimizer = self.recipe.optimizer
        if "optimizer.lr" in self.places:
            self.problems.add(
                warning(
                    "rate-overruled",
                    f"`{call.name}` sets the rate from `max_lr`, so `lr` has no effect",
                    self._at("optimizer.lr"),
                )
            )
        if call.arguments.get("cycle_momentum", True) and optimizer.name not in MOMENTUM:
            self._conflict(
                "schedule",
                f"`{call.name}` cycles the momentum, and `{optimizer.name}` has none",
                help=f"`{call.name}: {{cycle_momentum: false}}` leaves it alone",
            )
        if call.name == "CyclicLR" and call.arguments["base_lr"] > call.arguments["max_lr"]:
            self._conflict("schedule.base_lr", "`base_lr` is above `max_lr`")

    def _lengths(self, call: Call) -> None:
        epochs = self.recipe.epochs
        late = [m for m in call.arguments.get("milestones", ()) if m >= epochs]
        if late:
            verb = "are" if len(late) > 1 else "is"
            self._never(
                "schedule.milestones",
                f"{listed(map(str, late))} {verb} beyond the last of {quantity(epochs, 'epoch')}",
            )
        size = call.arguments.get("step_size")
        if size is not None and size >= epochs:
            self._never(
                "schedule.step_size",
                f"the rate would change after {size} epochs, and the training ends after {epochs}",
            )

    def _never(self, path: str, message: str) -> None:
        self.problems.add(warning("never-reached", message, self._at(path)))

    # ------------------------------------------------------------------------------ loss, data

    def losses(self) -> None:
        """Targets that losses can take."""
        mixing = [key for key in ("mixup", "cutmix") if getattr(self.recipe, key)]
        for output, loss in self.recipe.loss.items():
            path = f"loss.{output}" if output else "loss"
            name = loss.loss.name
            if loss.target == "image" and name in _CLASSES_ONLY:
                self._conflict(
                    f"{path}.target",
                    f"`{name}` compares with classes, not with an image",
                    help="`MSELoss` compares images",
                )
            if mixing and (loss.target == "image" or name not in SOFT_LOSSES):
                self._conflict(
                    mixing[0],
                    f"{listed(mixing)} blend classes, and `{name}` takes no blend"
                    if len(mixing) > 1
                    else f"`{mixing[0]}` blends classes, and `{name}` takes no blend",
                    help=f"losses that do: {listed(sorted(SOFT_LOSSES))}",
                )
                break
        if all(loss.weight == 0 for loss in self.recipe.loss.values()):
            self._conflict("loss", "every loss has the weight 0: nothing is learned")

    def augment(self) -> None:
        """Arguments that need one another."""
        for place, call in enumerate(self.recipe.augment):
            bins = call.arguments.get("num_magnitude_bins", 31)
            magnitude = call.arguments.get("magnitude", 9)
            if call.name == "RandAugment" and magnitude >= bins:
                self._conflict(
                    f"augment.{place}.magnitude",
                    f"`magnitude` is {magnitude}, where there are {bins} bins from 0",
                )

    def clip(self) -> None:
        """Norm or value."""
        clip = self.recipe.clip
        if clip is not None and clip.norm and clip.value:
            self._conflict("clip", "`clip` takes `norm` or `value`, not both")

    def devices(self) -> None:
        """What needs a GPU."""
        if self.recipe.sync_batch_norm and self.recipe.device == "cpu":
            self._conflict("sync_batch_norm", "`sync_batch_norm` needs `device: cuda`")

    def early_stop(self) -> None:
        """A patience that can run out."""
        stop, epochs = self.recipe.early_stop, self.recipe.epochs
        if stop is not None and stop.patience >= epochs:
            self._never(
                "early_stop",
                f"a patience of {stop.patience} never ends {quantity(epochs, 'epoch')} early",
            )

    def data(self) -> None:
        """Paths where the source needs or takes one."""
        data = self.recipe.data
        if data is None:
            return
        if data.source in ("images", "huggingface") and data.path is None:
            self.problems.add(
                error(
                    "missing-key",
                    f"`{data.source}` needs a `path`",
                    self._at("data"),
                    help=f"for example `data: {{source: {data.source}, path: flowers}}`",
                )
            )
        if data.source in ("digits", "random") and data.path is not None:
            self._conflict("data.path", f"`{data.source}` has no `path`: it needs no files")


def _epochs(number: float) -> str:
    return "1 epoch" if number == 1 else f"{number:g} epochs"
