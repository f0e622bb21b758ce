"""Where our modules run other operations than torchvision's own on purpose, and why.

Each reason comes with the check that nothing but what it says is different. Operations are lines of
`tests/aten.py`. Data and text: nothing is built or run here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

__all__ = ["DEPARTURES", "PARTS", "Departure", "departure"]

PARTS = ("inference", "forward", "backward")
"""Inference, and the two halves of a step of training."""


class Departure(NamedTuple):
    """Why sequences differ, and `explains(ours, theirs)`: whether that is all the difference."""

    reason: str
    explains: Callable[[Sequence[str], Sequence[str]], bool]


def departure(network: str, part: str) -> Departure | None:
    """The departure of a network of that name; None where all operations are to be equal."""
    for family, parts in DEPARTURES.items():
        if network.startswith(family):
            return parts.get(part)
    return None


# ------------------------------------------------------------------------------------- the checks


def _in_place(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Equal but for ReLUs and sums that overwrite an input here and do not there."""
    return len(ours) == len(theirs) and all(
        mine == other or mine == _OVERWRITING.sub(r"aten.\1_.", other, count=1)
        for mine, other in zip(ours, theirs, strict=True)
    )


_OVERWRITING = re.compile(r"^aten\.(relu|add)\.(?=default\(|Tensor\()")


def _without_a_head(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Theirs go on behind ours, with a head that has one convolution with a bias and a resizing."""
    more = theirs[len(ours) :]
    head = [operation.removeprefix("aten.").partition(".")[0] for operation in more]
    expected = ["convolution", "empty", "native_batch_norm", "relu", "convolution"]
    return _in_place(ours, theirs[: len(ours)]) and head == [*expected, "upsample_bilinear2d"]


def _in_another_order(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """The same operations, each as often."""
    return sorted(ours) == sorted(theirs)


def _joined_step_by_step(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Equal but for how many parts each joined tensor had; theirs also "join" single tensors."""
    return [*_joins(ours)] == [*_joins(theirs)] and _parts(ours) < _parts(theirs)


def _joins(operations: Sequence[str]) -> Iterator[str]:
    for operation in operations:
        sizes = _parts_of(operation)
        if not sizes:
            yield operation
        elif len(sizes) > 1:
            first = sizes[0]
            yield f"joined {first[0]}, {sum(size[1] for size in sizes)}, {first[2:]}"


def _parts(operations: Sequence[str]) -> int:
    return sum(len(_parts_of(operation)) for operation in operations)


def _parts_of(operation: str) -> list[list[int]]:
    """The sizes of what is joined along channels; none if the operation does something else."""
    if not re.fullmatch(r"aten\.cat\.default\(\[.*\], 1\)", operation):
        return []
    return [[*map(int, each.split(", "))] for each in re.findall(r"\w\[([\d, ]+)\]", operation)]


def _gradients_of_joins(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Equal but for how gradients are cut into parts and those of a part added: ours less often."""
    mine, other = ([*filter(_no_cut_or_sum, each)] for each in (ours, theirs))
    return mine == other and len(ours) < len(theirs)


def _no_cut_or_sum(operation: str) -> bool:
    return not re.match(r"aten\.(slice|add)\.Tensor\(float32\[\d+, \d+, \d+, \d+\], ", operation)


def _but_for(*names: str) -> Callable[[Sequence[str], Sequence[str]], bool]:
    """Equal but for operations of these names, which copy or only look, and what is in place."""

    def explains(ours: Sequence[str], theirs: Sequence[str]) -> bool:
        mine, other = (
            [_IN_PLACE.sub(r"aten.\1.", each, count=1) for each in side if _name(each) not in names]
            for side in (ours, theirs)
        )
        return mine == other

    return explains


_IN_PLACE = re.compile(r"^aten\.(relu|add|mul)_\.")


def _name(operation: str) -> str:
    return operation.removeprefix("aten.").partition(".")[0]


# ----------------------------------------------------------------------------------- the reasons

_RELUS = Departure("more ReLUs and sums work in place, where nobody can tell", _in_place)
_JOINS = (
    "a layer joins its channels to what is joined already, torchvision's joins all parts so far "
    "anew: equal values, fewer "
)

_SEGMENTING = {
    "inference": Departure(
        "the auxiliary head is left out, whose output torchvision computes and hands out; "
        + _RELUS.reason,
        _without_a_head,
    ),
    "forward": _RELUS,
}
_HEADS = dict.fromkeys(
    ("forward", "backward"),
    Departure(
        "the auxiliary heads run behind the trunk, not where they branch off",
        _in_another_order,
    ),
)

_DROPOUT = "torchvision's dropout works in place, ours in a tensor of its own"
_EFFICIENTNET = {
    "forward": Departure(_DROPOUT, _but_for()),
    "backward": Departure(
        f"{_DROPOUT}: no copies behind views",
        _but_for("view", "new_zeros", "as_strided", "copy_", "new_empty_strided", "clone"),
    ),
}
_MEANS = "the mean of a map keeps its axes until a view drops them; "
_MNASNET = {
    "inference": Departure(_MEANS + _RELUS.reason, _but_for("mean", "view")),
    "forward": Departure(f"{_MEANS}{_RELUS.reason}; {_DROPOUT}", _but_for("mean", "view")),
    "backward": Departure(_MEANS, _but_for("view", "unsqueeze")),
}
_SHUFFLENET = dict.fromkeys(
    PARTS,
    Departure(
        "channels are shuffled by torch's operation, there by views and a copy; " + _MEANS,
        _but_for(
            "channel_shuffle", "view", "transpose", "clone", "_unsafe_view", "mean", "unsqueeze"
        ),
    ),
)

DEPARTURES: Mapping[str, Mapping[str, Departure]] = {
    "deeplabv3": _SEGMENTING,
    "fcn": _SEGMENTING,
    "densenet": {
        "inference": Departure(f"{_JOINS}parts", _joined_step_by_step),
        "forward": Departure(f"{_JOINS}parts", _joined_step_by_step),
        "backward": Departure(f"{_JOINS}operations", _gradients_of_joins),
    },
    "efficientnet": _EFFICIENTNET,
    "googlenet": _HEADS,
    "inception_v3": _HEADS,
    "mnasnet": _MNASNET,
    "shufflenet": _SHUFFLENET,
    "lraspp": {"inference": _RELUS, "forward": _RELUS},
    "mobilenet_v2": {"inference": _RELUS, "forward": _RELUS},
    "mobilenet_v3": {"inference": _RELUS, "forward": _RELUS},
    "regnet": {"inference": _RELUS, "forward": _RELUS},
}
"""By the beginning of the network's name, and by part. All other sequences are equal."""
