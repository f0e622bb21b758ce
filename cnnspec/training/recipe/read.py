"""Text, files and bundled names to recipes, checked in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cnnspec.diagnostics import Diagnostic, EnvironmentFailure, SpecError, did_you_mean, listed
from cnnspec.frontend import tree
from cnnspec.frontend.origins import Disk
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.reader import read
from cnnspec.source import Source
from cnnspec.training.recipe.checks import check
from cnnspec.training.recipe.known import SOURCES
from cnnspec.training.recipe.model import Data, Recipe
from cnnspec.training.recipe.parsing import RecipeParser

__all__ = [
    "LoadedRecipe",
    "bundled_recipes",
    "checked",
    "data_text",
    "default_recipe",
    "load_recipe",
    "parse_data",
    "parse_recipe",
    "read_recipe",
]

_DEFAULTS = {
    "digits": "digits",
    "mnist": "lenet5-mnist",
    "fashion-mnist": "lenet5-mnist",
    "cifar10": "resnet-cifar",
    "cifar100": "resnet-cifar",
}


@dataclass(frozen=True, slots=True)
class LoadedRecipe:
    """A recipe, the text and tree it was read from, and what is legal in it but hardly meant."""

    recipe: Recipe
    source: Source
    root: tree.Mapping
    warnings: tuple[Diagnostic, ...] = ()


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with cnnspec, by the names that `--recipe` takes."""
    folder = Path(__file__).parent / "bundled"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_recipe(source: str | Path) -> LoadedRecipe:
    """The recipe in a file, or the bundled one of this name; files come first.

    Raises:
        SpecError: it is no recipe; every independent cause, each with its place.
        EnvironmentFailure: there is no such recipe, or it cannot be read.
    """
    name = str(source)
    bundled = bundled_recipes()
    path = Path(name)
    if name in bundled and not path.is_file():
        path = bundled[name]
    elif not path.suffix and not path.exists() and path.name == name:
        raise EnvironmentFailure(
            f"there is no recipe `{name}`",
            help=did_you_mean(name, bundled) or f"name a file, or one of {listed(bundled)}",
        )
    elif path.is_dir():
        raise EnvironmentFailure(f"`{name}` is a folder", help="name a recipe in it")
    return _load(Disk().read(path, name if path == Path(name) else str(path)), path.stem)


def load_recipe(text: str, name: str = "recipe") -> LoadedRecipe:
    """The recipe of a text; messages call it `name`. Raises `SpecError`."""
    return _load(Source(name, text), Path(name).stem)


def parse_recipe(text: str, name: str = "recipe") -> Recipe:
    """The recipe of a text, without its warnings. Raises `SpecError`."""
    return load_recipe(text, name).recipe


def default_recipe(source: str | None = None) -> LoadedRecipe:
    """The recipe where none is named: the bundled one for this source of data, or all defaults."""
    bundled = _DEFAULTS.get(source or "")
    return read_recipe(bundled_recipes()[bundled]) if bundled else load_recipe("", "default")


def data_text(text: str) -> str:
    """What `--data TEXT` says in a recipe's words: a folder that is there is `images:FOLDER`."""
    known = text.partition(":")[0] in (*SOURCES, "hf")
    return f"images:{text}" if text and not known and Path(text).is_dir() else text


def parse_data(
    text: str, option: str = "--data", make_source: Callable[[str, str], Source] = Source
) -> Data:
    """What the text of `--data` means: `digits`, `images:flowers`, `hf:NAME`, a folder.

    Raises `SpecError` whose place is in `option`, in a source that `make_source` makes.
    """
    text = data_text(text)
    source = make_source(option, text)
    problems = Problems()
    scalar = tree.Scalar(text, source.span(0, len(text)), plain=False, quoted=True)
    found = RecipeParser(problems).data(scalar)
    problems.stop()
    assert found is not None  # quoted text is never null
    return found


def checked(root: tree.Node, source: Source, name: str) -> LoadedRecipe:
    """The recipe that a tree says. Raises `SpecError` with everything wrong in it."""
    problems = Problems()
    parser = RecipeParser(problems)
    recipe = parser.parse(root, name)
    if recipe is not None:
        check(recipe, parser.places, parser.broken, problems)
    problems.stop()
    assert recipe is not None  # or there were errors
    assert isinstance(root, tree.Mapping)
    warnings = sorted(
        problems.warnings, key=lambda d: (d.span.line, d.span.column) if d.span else ()
    )
    return LoadedRecipe(recipe, source, root, tuple(warnings))


def _load(source: Source, name: str) -> LoadedRecipe:
    try:
        root = read(source)
    except SpecError as failure:
        if [found.code for found in failure.diagnostics] != ["empty-spec"]:
            raise
        # All keys have defaults.
        root = tree.Mapping((), source.span(0, 0))
    return checked(root, source, name)
