"""Types of option values, for argparse, which raise `EnvironmentFailure` in cnnspec's wording."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean

__all__ = ["OneOf", "names", "one_of", "text", "whole"]

_LONGEST_NUMBER = 9


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words, at least two. Shells complete them."""

    option: str
    words: Callable[[], Iterable[str]]
    """Asked when an option is given or completed: what knows them is imported no sooner."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The words."""
        return tuple(self.words())

    def __call__(self, given: str) -> str:
        """The word, where it is one of them."""
        choices = self.choices
        if given not in choices:
            *others, last = choices
            raise EnvironmentFailure(
                f"{self.option} takes {', '.join(others)} or {last}, not {_shown(given)}",
                help=did_you_mean(given, choices),
            )
        return given


def one_of(option: str, *choices: str) -> OneOf:
    """One of a few words, at least two."""
    return OneOf(option, lambda: choices)


def text(option: str) -> Callable[[str], str]:
    """Any text that is not empty."""

    def check(given: str) -> str:
        if not given.strip():
            raise EnvironmentFailure(f"{option} needs a value, not nothing")
        return given

    return check


def whole(option: str, least: int) -> Callable[[str], int]:
    """A whole number of at least `least`."""

    def check(given: str) -> int:
        digits = given.strip()
        if digits.isascii() and digits.isdigit():
            if len(digits) > _LONGEST_NUMBER:
                raise EnvironmentFailure(
                    f"{option} takes a whole number of at most {_LONGEST_NUMBER} digits, "
                    f"not {_shown(given)}"
                )
            number = int(digits)
            if number >= least:
                return number
        raise EnvironmentFailure(
            f"{option} takes a whole number of at least {least}, not {_shown(given)}"
        )

    return check


def names(option: str) -> Callable[[str], Sequence[str]]:
    """Names with commas between them."""

    def check(given: str) -> Sequence[str]:
        found = [name.strip() for name in given.split(",")]
        if not all(found):
            raise EnvironmentFailure(
                f"{option} takes names with commas between them, not {_shown(given)}"
            )
        return found

    return check


def _shown(given: str) -> str:
    return f"`{given}`" if given else "nothing"
