"""From a path, a bundled name or text to a `Document`, and from a document to a `Graph`.

Files are read through an `Origin`, by default the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from cnnspec.collector import collector_paused
from cnnspec.diagnostics import (
    Diagnostic,
    EnvironmentFailure,
    Note,
    Reject,
    SpecError,
    did_you_mean,
    error,
    listed,
    nearest,
    quantity,
)
from cnnspec.frontend import tree
from cnnspec.frontend.document import Dimension, Document, Variant, located
from cnnspec.frontend.expand import Expander
from cnnspec.frontend.expressions import ExpressionError, Value, evaluate
from cnnspec.frontend.metadata import preprocessing
from cnnspec.frontend.names import Level
from cnnspec.frontend.origins import Disk, Origin
from cnnspec.frontend.param_types import PARAM_SLOTS
from cnnspec.frontend.parsing import parse_document
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.reader import read, read_bytes
from cnnspec.frontend.values import BROKEN, Env, Fault, Poisoned
from cnnspec.ir import Graph
from cnnspec.slots import LARGEST_INT
from cnnspec.source import Source, Span
from cnnspec.tensor import Tensor, default_roles

__all__ = [
    "Loaded",
    "bundled_names",
    "bundled_specs",
    "expand",
    "files_of",
    "is_bundled",
    "load_file",
    "load_named",
    "load_text",
    "locate",
]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document, and what was found about its text before anything was expanded."""

    document: Document
    errors: tuple[Diagnostic, ...]
    warnings: tuple[Diagnostic, ...]


# ---------------------------------------------------------------------------------------- files


def bundled_specs() -> dict[str, Path]:
    """The specs that come with cnnspec, by file name without ending.

    They lie in the package of a wheel, and in `specs/` of a checkout.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "specs", package.parent / "specs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def bundled_names() -> Iterator[tuple[str, Path, str | None]]:
    """Names of the bundled networks: `(name, file, variant)`, no variant for the file's own.

    A name may come twice; the first is what `locate` finds. Files' names come before all others.
    """
    documents = [(path, _bundled(path)) for path in bundled_specs().values()]
    for path, document in documents:
        if document.runnable:
            yield path.stem, path, None
    for path, document in documents:
        if document.runnable:
            yield document.name, path, None
        for variant in document.variants:
            yield variant, path, variant


def _bundled(path: Path) -> Document:
    return load_file(path).document


def is_bundled(name: str) -> bool:
    """Whether a name stands for a bundled network, which wins over a folder of that name."""
    return Path(name).parent == Path() and name != "." and locate(name) is not None


def locate(name: str) -> tuple[Path, str | None] | None:
    """The file, and the variant in it, that a bare name such as `vgg16` stands for, or None."""
    specs = bundled_specs()
    if name in specs:
        return specs[name], None
    for path in specs.values():
        if name not in path.read_text(encoding="utf-8"):
            continue
        document = _bundled(path)
        if name == document.name:
            return path, None
        if name in document.variants:
            return path, name
    return None


def load_named(name: str) -> tuple[Loaded, str | None]:
    """The document of a path or of a bundled network, and the variant a bundled name means.

    A file of that name wins over a bundled network, a folder does not.

    Raises:
        EnvironmentFailure: there is neither, or the file cannot be read.
        SpecError: the file is no spec.
    """
    if not name.strip():
        raise EnvironmentFailure(
            "the name of the spec is empty", help="name a file, or a bundled network: `vgg16`"
        )
    path = Path(name)
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError):
        there, folder = True, False  # reading it says what is wrong
    bare = path.parent == Path() and not path.suffix
    if bare and (folder or not there):
        found = locate(name)
        if found is not None:
            shown = f"{name}.yaml" if found[1] is None else found[0].name
            return load_file(found[0], shown), found[1]
    if there:
        return load_file(path, name), None
    raise EnvironmentFailure(
        f"there is no file and no bundled spec `{name}`" if bare else f"there is no file `{name}`",
        help=_nearest_spec(path, bare),
    )


def _nearest_spec(path: Path, bare: bool) -> str:
    """Help for a file that is not there: one beside it, or a bundled spec, of a similar name."""
    bundled = bundled_specs()
    if bare:
        return did_you_mean(path.name, bundled) or f"bundled specs are {listed(bundled)}"
    try:
        beside = {other.name: other for other in path.parent.glob("*.y*ml")}
    except OSError:
        beside = {}
    near = nearest(path.name, beside)
    if near is not None:
        return f"did you mean `{beside[near]}`?"
    likely = path.parent == Path() or path.stem in bundled
    return did_you_mean(path.stem, bundled) if likely else ""


def load_file(path: PurePath, name: str | None = None, origin: Origin | None = None) -> Loaded:
    """Read, parse and check a spec file. `name` is how messages call it.

    It and its imports are read from `origin`, the disk unless said otherwise.

    Raises:
        EnvironmentFailure: the file cannot be read.
        SpecError: it is no spec.
    """
    origin = origin or Disk()
    return _load(origin.read(path, name or str(path)), path, origin)


def files_of(name: str) -> tuple[Path, ...]:
    """The files that `load_named` would read: that of a path or a bundled name, and its imports.

    Also those that are not there or are no specs. `name` itself where nothing is known of it.
    """
    found = None if Path(name).is_file() else locate(name)
    path = found[0] if found is not None else Path(name)
    loader = _Loader(Problems(), path, Disk())
    with suppress(EnvironmentFailure, SpecError, OSError, ValueError):
        loader.document(loader.origin.read(path, name), path, ())
    return tuple(Path(file) for file in dict.fromkeys((path, *loader.asked)))


def load_text(text: str | bytes, name: str = "<text>") -> Loaded:
    """Parse and check the text of a spec, which has no folder to import from.

    Raises:
        SpecError: it is no spec.
    """
    source = read_bytes(name, text.encode() if isinstance(text, str) else text)
    return _load(source, None, Disk())


@collector_paused()
def _load(source: Source, path: PurePath | None, origin: Origin) -> Loaded:
    problems = Problems()
    document = _Loader(problems, path, origin).document(source, path, ())
    if document.broken:
        problems.stop()
    # What seems unused may be used where something is wrong.
    warnings = problems.warnings if not problems.errors else ()
    return Loaded(document, problems.errors, warnings)


class _Loader:
    """Loads a file and those it imports, each once. `asked` are imports, there or not."""

    def __init__(self, problems: Problems, root: PurePath | None, origin: Origin) -> None:
        self.problems = problems
        self.origin = origin
        self.folder = origin.resolve(root).parent if root else None
        self.loaded: dict[PurePath, Document] = {}
        self.asked: list[PurePath] = []

    def document(
        self, source: Source, path: PurePath | None, chain: tuple[tuple[PurePath, str], ...]
    ) -> Document:
        document = Document(source)
        if path is not None:
            resolved = self.origin.resolve(path)
            chain = (*chain, (resolved, source.name))
            self.loaded[resolved] = document
        problems = self.problems if len(chain) <= 1 else Problems()
        try:
            root = read(source)
            parse_document(root, document, problems, lambda node: self._import(node, path, chain))
        except SpecError as failure:
            document.broken = True
            for diagnostic in failure.diagnostics:
                self.problems.add(diagnostic)
        if problems is not self.problems:
            for diagnostic in problems.errors:
                self.problems.add(diagnostic)
        return document

    def _import(
        self, node: tree.Scalar, path: PurePath | None, chain: tuple[tuple[PurePath, str], ...]
    ) -> Document | None:
        if path is None or self.folder is None:
            return self._refused(
                "import-no-folder",
                "this spec is no file, so there is no folder to import from",
                node,
            )
        try:
            target = self.origin.resolve(path.parent / node.text)
        except (OSError, ValueError):
            return self._refused("import-not-found", "this is no path", node)
        if not target.is_relative_to(self.folder):
            return self._refused(
                "import-outside",
                f"`{node.text}` lies outside the folder of the spec",
                node,
                help="an import stays inside the folder of the file that cnnspec was given",
            )
        if any(target == known for known, _ in chain):
            names = [name for _, name in chain]
            cycle = " -> ".join([*names, self.origin.shown(target, path, names[-1])])
            return self._refused("import-cycle", f"the imports go round in a circle: {cycle}", node)
        if target in self.loaded:
            return self.loaded[target]
        shown = self.origin.shown(target, path, chain[-1][1])
        self.asked.append(target)
        try:
            source = self.origin.read(target, shown)
        except EnvironmentFailure as failure:
            return self._refused("import-not-found", failure.message, node)
        except SpecError as failure:
            for diagnostic in failure.diagnostics:
                self.problems.add(diagnostic)
            return None
        return self.document(source, target, chain)

    def _refused(
        self, code: str, message: str, node: tree.Scalar, help: str = ""
    ) -> Document | None:
        self.problems.add(error(code, message, node.span, help=help))
        return None


# ------------------------------------------------------------------------------------ expansion


@collector_paused()
def expand(
    loaded: Loaded,
    *,
    variant: str | None = None,
    params: Mapping[str, object] | None = None,
    inputs: Mapping[str, object] | None = None,
) -> Graph:
    """The network of a document. `params` and `inputs` win over the variant and the file.

    `params` values are Python values, or `tree` nodes as the command line reads them. `inputs`
    gives shapes by input name, or sizes by symbol.

    Raises:
        EnvironmentFailure: a variant, param or input that the spec does not have.
        SpecError: the network cannot be built.
    """
    document = loaded.document
    problems = Problems()
    for found in loaded.errors:
        problems.add(found)
    if document.top is None:
        problems.stop()
        raise SpecError(
            [
                error(
                    "not-a-network",
                    "this file only has blocks for others to import",
                    Span(document.source, 1, 1, 1, 1),
                )
            ]
        )
    chosen = _variant(document, variant)
    expander = Expander(document, problems)
    variables = _params(expander, document, chosen, params or {}, problems)
    values = dict(variables)
    env = Env(document, document.top, dict(variables), Level())
    expander.arguments.enter(env)
    tensors, symbols = _inputs(expander, document, variables, inputs or {}, problems)
    if len(tensors) < max(1, len(document.inputs)):
        problems.stop()
    for name, size in symbols.items():
        variables.setdefault(name, size)
    name = chosen.name.text if chosen else document.name
    metadata = _metadata(document, chosen, params)
    metadata["param_values"] = values
    if document.preprocess is not None:
        try:
            metadata["preprocess"] = preprocessing(document.preprocess, expander.evaluator, env)
        except Fault as fault:
            problems.add(fault.diagnostic)
        except Poisoned:
            pass  # a param that it names is reported already
    graph = expander.network(tensors, variables, metadata, name)
    problems.stop()
    assert graph is not None  # there were no errors
    return graph


def _metadata(
    document: Document, variant: Variant | None, params: Mapping[str, object] | None
) -> dict[str, object]:
    text = document.source.text
    return {
        "spec": text,
        "spec_name": document.source.name,
        "variant": variant.name.text if variant else None,
        "params": {name: str(value) for name, value in (params or {}).items()},
        "description": document.description,
        "preprocess": None,
        "labels": document.labels,
    }


def _variant(document: Document, name: str | None) -> Variant | None:
    if name is None or name == document.name:
        return None
    variant = document.variants.get(name)
    for _ in document.variants:
        if variant is None or variant.alias is None:
            break
        if variant.alias.text == document.name:
            return None
        variant = document.variants.get(variant.alias.text)
    if variant is None:
        names = (document.name, *document.variants)
        raise EnvironmentFailure(
            f"`{document.source.name}` has no variant `{name}`",
            help=did_you_mean(name, names)
            or (f"its variants are {listed(names)}" if document.variants else "it has no variants"),
        )
    return variant


def _params(
    expander: Expander,
    document: Document,
    variant: Variant | None,
    given: Mapping[str, object],
    problems: Problems,
) -> dict[str, Value]:
    assert document.top is not None  # checked by `expand`
    known = [param.name.text for param in document.top.params]
    for name in given:
        if name not in known:
            raise EnvironmentFailure(
                f"`{document.source.name}` has no param `{name}`",
                help=did_you_mean(name, known)
                or (f"its params are {listed(known)}" if known else "it has no params"),
            )
    chosen = {key.text: node for key, node in variant.values} if variant else {}
    variables: dict[str, Value] = {}
    env = Env(document, document.top, variables, Level())
    for param in document.top.params:
        name = param.name.text
        try:
            if name in given:
                variables[name] = _given(expander, param.type, name, given[name], env)
            elif name in chosen:
                node = chosen[name]
                variables[name] = expander.evaluator.param(
                    param.type, node, name, env, literal=True
                )
            elif param.required:
                raise Fault(
                    error(
                        "missing-param",
                        f"param `{name}` has no value",
                        param.name.span,
                        help=f"give one with `--set {name}=...`, or a default in the spec",
                    )
                )
            else:
                variables[name] = expander.arguments.default(param, env)
        except Fault as fault:
            problems.add(fault.diagnostic)
            variables[name] = BROKEN
        except Poisoned:
            variables[name] = BROKEN
    return variables


def _given(expander: Expander, type: str, name: str, value: object, env: Env) -> Value:
    """A param's value from outside: a node of the command line, or a Python value."""
    if isinstance(value, (tree.Scalar, tree.Sequence, tree.Mapping)):
        return expander.evaluator.param(type, value, name, env, literal=True)
    try:
        if type == "op":
            found = None
            if value is not None:
                found = expander.evaluator.operation_named(str(value), env.document)
                if found is None:
                    raise Reject("unknown-operation", f"there is no operation or block `{value}`")
            return found
        return PARAM_SLOTS[type].accept(value, 1)
    except Reject as reject:
        raise EnvironmentFailure(f"param `{name}` {reject.message}", help=reject.help) from None


def _inputs(
    expander: Expander,
    document: Document,
    variables: dict[str, Value],
    given: Mapping[str, object],
    problems: Problems,
) -> tuple[dict[str, Tensor], dict[str, int]]:
    names = [declared.name.text for declared in document.inputs]
    symbols_known = {
        d.symbol for declared in document.inputs for d in declared.dimensions if d.symbol
    }
    for name in given:
        if name not in names and name not in symbols_known:
            raise EnvironmentFailure(
                f"`{document.source.name}` has no input or symbol `{name}`",
                help=did_you_mean(name, (*names, *symbols_known))
                or f"it has {listed((*names, *sorted(symbols_known)))}",
            )
    symbols: dict[str, int] = {
        name: _size(given[name], f"`{name}`") for name in given if name not in names
    }
    set_by: dict[str, str] = {}
    for declared in document.inputs:
        sizes = given.get(declared.name.text)
        if sizes is None:
            continue
        shape = _shape(sizes, declared.name.text, len(declared.dimensions))
        for dimension, size in zip(declared.dimensions, shape, strict=True):
            if dimension.symbol is None:
                continue
            if symbols.setdefault(dimension.symbol, size) != size:
                other = set_by.get(dimension.symbol, dimension.symbol)
                raise EnvironmentFailure(
                    f"{dimension.symbol} is {symbols[dimension.symbol]} by {other} "
                    f"and {size} by {declared.name.text}"
                )
            set_by[dimension.symbol] = declared.name.text
    places: dict[str, Span] = {}
    tensors: dict[str, Tensor] = {}
    assert document.top is not None  # checked by `expand`
    env = Env(document, document.top, {**variables, **symbols}, Level())
    for declared in document.inputs:
        override = given.get(declared.name.text)
        try:
            shape = tuple(
                _dimension(expander, env, dimension, symbols, places)
                for dimension in declared.dimensions
            )
        except Fault as fault:
            problems.add(fault.diagnostic)
            continue
        except Poisoned:
            continue
        if override is not None:
            shape = _shape(override, declared.name.text, len(shape))
        roles = default_roles(len(shape))
        assert roles is not None  # parsing allows 1 to 4 sizes
        tensors[declared.name.text] = Tensor(shape, roles)
    return tensors, symbols


def _dimension(
    expander: Expander,
    env: Env,
    dimension: Dimension,
    symbols: dict[str, int],
    places: dict[str, Span],
) -> int:
    piece, symbol, expression = dimension.piece, dimension.symbol, dimension.expression
    if symbol is not None and symbol in symbols and (expression is None or symbol not in places):
        return symbols[symbol]
    if expression is None and symbol is None:
        raise Poisoned
    if expression is None:
        raise Fault(
            error(
                "symbol-no-size",
                f"`{symbol}` has no size",
                piece.span,
                help=f"give it a default: `{symbol} = 224`",
            )
        )
    try:
        value = evaluate(
            expression, expander.evaluator.lookup(env, piece.span), names=env.variables
        )
    except ExpressionError as failure:
        raise Fault(located(failure, piece)) from None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_INT:
        shown = value if isinstance(value, (int, float)) and len(str(value)) < 24 else "this"
        raise Fault(
            error("input-size", f"a size must be an integer of at least 1, not {shown}", piece.span)
        )
    if symbol is not None:
        known = symbols.setdefault(symbol, value)
        env.variables.setdefault(symbol, value)
        first = places.setdefault(symbol, piece.span)
        if known != value:
            raise Fault(
                error(
                    "symbol-conflict",
                    f"`{symbol}` is {value} here and {known} elsewhere",
                    piece.span,
                    notes=[Note(f"`{symbol}` is {known} here", first)],
                )
            )
    return value


def _size(value: object, what: str) -> int:
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise EnvironmentFailure(f"{what} must be an integer of at least 1, not {value}")
    if value > LARGEST_INT:
        raise EnvironmentFailure(f"{what} must be at most {LARGEST_INT}, not {value}")
    return value


def _shape(value: object, name: str, rank: int) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        raise EnvironmentFailure(f"input `{name}` needs {rank} sizes, not {value}")
    if len(value) != rank:
        raise EnvironmentFailure(
            f"input `{name}` has {quantity(rank, 'size')}, not {len(value)}",
            help="the batch is not written",
        )
    return tuple(_size(size, f"a size of `{name}`") for size in value)
