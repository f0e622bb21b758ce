"""What networks there are in some specs, by name, each with its inputs, parameters and MACs.

Names are found as the command line finds them; nothing is laid out here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from cnnspec.frontend.load import (
    Loaded,
    bundled_names,
    bundled_specs,
    expand,
    load_file,
    load_named,
)
from cnnspec.report.model import analyze

__all__ = ["Listed", "Listing", "about", "bundled_networks", "networks_of"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A network: `cnnspec analyze SPEC --variant VARIANT` shows it, and so does NAME if bundled."""

    name: str
    spec: str
    variant: str | None
    """None for the spec's own."""
    params: int
    macs: int
    inputs: Mapping[str, tuple[int, ...]]
    """Shapes by name, batch not counted."""
    about: str
    """What the file says of itself, as `about` has it."""

    def to_dict(self) -> dict[str, object]:
        """As the JSON document shows it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Listing:
    """A network that is not analyzed yet."""

    name: str
    spec: str
    variant: str | None
    loaded: Loaded

    def analyze(self) -> Listed:
        """The network with its figures; raises `SpecError` where it cannot be built."""
        report = analyze(expand(self.loaded, variant=self.variant))
        return Listed(
            self.name,
            self.spec,
            self.variant,
            report.totals.params,
            report.totals.macs,
            report.inputs,
            about(self.loaded),
        )


def about(loaded: Loaded) -> str:
    """The first clause of the comment that a file begins with, empty without one.

    Of `# ResNet (He et al., CVPR 2016), with torchvision's keys: ...` it is what stands before the
    colon. A sign in parentheses ends no clause.
    """
    lines = []
    for line in loaded.document.source.text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    text = " ".join(lines)
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth <= 0 and character in ".:" and text[at + 1 : at + 2] in ("", " "):
            return text[:at]
    return text


def bundled_networks() -> Iterator[Listing]:
    """All bundled networks in the order of their files, each once: no other names of variants.

    The name is the network's own, or its file's where the own name means another network.
    """
    meant: dict[str, tuple[str, str | None]] = {}
    for name, path, variant in bundled_names():
        meant.setdefault(name, (path.stem, variant))
    for spec, path in bundled_specs().items():
        for listing in _networks(load_file(path), spec):
            own = meant.get(listing.name) == (spec, listing.variant)
            yield listing if own else Listing(spec, spec, listing.variant, listing.loaded)


def networks_of(names: Iterable[str]) -> Iterator[Listing]:
    """The networks of files, or of bundled specs by name; what only has blocks has none.

    Raises:
        EnvironmentFailure: one is not there.
        SpecError: one is no spec.
    """
    for name in names:
        loaded, variant = load_named(name)
        if variant is not None:
            yield Listing(name, name, variant, loaded)
        else:
            yield from _networks(loaded, name)


def _networks(loaded: Loaded, spec: str) -> Iterator[Listing]:
    document = loaded.document
    if not document.runnable:
        return
    yield Listing(document.name, spec, None, loaded)
    for name, variant in document.variants.items():
        if variant.alias is None:
            yield Listing(name, spec, name, loaded)
