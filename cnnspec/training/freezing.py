"""Parts of a network that do not train. Where their weights come from may not enter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from cnnspec.diagnostics import EnvironmentFailure, listed
from cnnspec.training.patterns import any_matches, matches, refuse_unmatched

__all__ = ["Frozen", "freeze"]


@dataclass(frozen=True, slots=True)
class Frozen:
    """What does not train: keys of parameters, and modules whose statistics stay as they are."""

    keys: tuple[str, ...] = ()
    still: tuple[nn.Module, ...] = ()

    def settle(self) -> None:
        """Put those modules into eval mode: to be called whenever the whole was put into training.

        A frozen norm that went on to normalise by its batch, and to follow its statistics, would be
        another layer than the one that came.
        """
        for module in self.still:
            module.eval()


def freeze(module: nn.Module, patterns: Sequence[str]) -> Frozen:
    """Take what the patterns mean out of training.

    Parameters get no gradients. Modules that keep statistics in buffers (norms) stay in eval mode
    where a pattern means them. `settle` of the result is called here once.

    Raises `EnvironmentFailure` for a pattern that means nothing, and where nothing would train.
    """
    named = dict(module.named_parameters())
    refuse_unmatched("freeze", patterns, module.state_dict())
    keys = tuple(key for key in named if any_matches(patterns, key))
    for key in keys:
        named[key].requires_grad_(False)
    if named and not any(each.requires_grad for each in named.values()):
        raise EnvironmentFailure(
            f"nothing trains: {listed(patterns)} freeze all parameters"
            if patterns
            else "nothing trains: the network has no parameter that does"
        )
    still = tuple(
        each
        for path, each in module.named_modules()
        if path
        and any(matches(pattern, path) for pattern in patterns)
        and any(buffer.is_floating_point() for _, buffer in each.named_buffers(recurse=False))
    )
    frozen = Frozen(keys, still)
    frozen.settle()
    return frozen
