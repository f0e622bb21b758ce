"""Expansion: a document and values for its params become a shaped `Graph`.

Entries are written out, loops unrolled, blocks called, and shapes inferred on the way, since
conditions may ask for them (`when: input.channels != out`). Where an entry cannot be built its
cause is recorded, what depends on it is passed over in silence, and expansion goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from cnnspec.diagnostics import Diagnostic, Note, Reject, error
from cnnspec.frontend import tree
from cnnspec.frontend.arguments import Arguments
from cnnspec.frontend.building import GraphBuilder
from cnnspec.frontend.document import Document, Entry, located
from cnnspec.frontend.expressions import ExpressionError, Value, parse_template
from cnnspec.frontend.initialisers import Initialisers
from cnnspec.frontend.names import Level, Naming, Result, check_name
from cnnspec.frontend.outcomes import Outcomes, split_assertions
from cnnspec.frontend.place import Place, shown_loops
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.references import Input, References
from cnnspec.frontend.values import Env, Evaluator, Fault, OpValue, Poisoned
from cnnspec.ir import Frame, Graph, Scope
from cnnspec.op import Op, Site
from cnnspec.ops import bind
from cnnspec.slots import describe_value
from cnnspec.source import Span
from cnnspec.tensor import Tensor

__all__ = ["MAX_CALLS", "MAX_DEPTH", "Expander"]

MAX_CALLS = 60
"""Most calls of blocks within one another."""

MAX_DEPTH = 130
"""Most entries within one another, calls, groups and joins together."""

_POISON = Result((("", None),))


class Expander:
    """Expands one network, once. What is wrong goes to `problems`."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self.document = document
        self.problems = problems
        self.builder = GraphBuilder(problems)
        self.symbols = {
            declared.name.text: tuple([dimension.symbol for dimension in declared.dimensions])
            for declared in document.inputs
        }
        named = frozenset(name for names in self.symbols.values() for name in names if name)
        self.evaluator = Evaluator(self.builder.tensor, document.top, named)
        self.arguments = Arguments(self.evaluator)
        self.references = References(self.evaluator)
        self.outcomes = Outcomes(self.references, problems)
        self.initialisers = Initialisers(problems, self.arguments)
        self._calls = 0
        self._depth = 0

    # --------------------------------------------------------------------------- the network

    def network(
        self,
        inputs: Mapping[str, Tensor],
        variables: dict[str, Value],
        metadata: Mapping[str, object],
        name: str,
    ) -> Graph | None:
        """The whole graph, or None where something is wrong (it is in `problems`)."""
        top = self.document.top
        assert top is not None  # the caller has checked that the file is a network
        level = Level()
        values = {}
        for input_name, tensor in inputs.items():
            values[input_name] = self.builder.input(input_name, tensor)
            level.define(input_name, Result((("", values[input_name]),)))
        current: Result | None = None
        if len(values) == 1:
            current = Result((("", next(iter(values.values()))),))
            level.define("input", current)
        root = Scope("", name, None, {}, None, top.span, inputs=tuple(values.values()))
        place = Place(Env(self.document, top, variables, level), Naming(""), root, None)
        early, late = split_assertions(top.assertions, {*variables, *values, "input"})
        if not self.outcomes.verify(early, place):
            return None
        last = self._entries(top.entries, place, current)
        outputs = self.outcomes.network(top, place, last)
        self.outcomes.verify(late, place)
        self.initialisers.finish(self.document)
        if not self.builder.nodes and not self.problems.errors:
            self.problems.add(error("no-output", "the network has no entry", top.span.part(0, 1)))
        root.outputs = tuple((output.name, output.value) for output in outputs)
        if self.problems.errors:
            return None
        return Graph(
            name,
            values,
            tuple(self.builder.tensors),
            tuple(self.builder.producers),
            tuple(self.builder.nodes),
            outputs,
            root,
            metadata,
            self.symbols,
            tuple(self.evaluator.reads.values()),
            tuple(self.outcomes.size_tests),
        )

    # ------------------------------------------------------------------------------- entries

    def _entries(
        self, entries: Sequence[Entry], place: Place, current: Result | None
    ) -> Result | None:
        for entry in entries:
            current = self._entry(entry, place, current)
        return current

    def _entry(
        self,
        entry: Entry,
        place: Place,
        current: Result | None,
        collect: list[Result] | None = None,
    ) -> Result | None:
        """Build an entry, all its turns; the result is the tensor the next entry follows.

        With `collect`, each turn reads the same tensor and adds its result there.
        """
        self._depth += 1
        try:
            if not entry.loops or entry.broken:
                return self._single_turn(entry, place, current, collect)
            read = len(collect or ())
            result = self._guarded(lambda: self._loop(entry, place, current, collect), entry, place)
            if collect is not None and len(collect) == read and result and result.poisoned:
                collect.append(result)
            return result
        finally:
            self._depth -= 1

    def _guarded(
        self, build: Callable[[], Result | None], entry: Entry, place: Place
    ) -> Result | None:
        """What `build` gives; if it fails, the cause is recorded and the result poisoned."""
        try:
            return build()
        except Fault as fault:
            self.problems.add(fault.diagnostic.noted(*place.origin()))
        except Poisoned:
            pass
        return self._poison(entry, place)

    def _poison(self, entry: Entry, place: Place) -> Result:
        """Mark what an entry would have given as known to be missing."""
        name: str | None = None
        if entry.name is not None:
            with suppress(Fault, Poisoned):
                name = self.evaluator.template(entry.name, place.env)
        if entry.inline or entry.loops or (entry.name is not None and name is None):
            place.level.lose()
        place.level.define(place.naming.take(name), _POISON)
        return _POISON

    def _loop(
        self,
        entry: Entry,
        place: Place,
        current: Result | None,
        collect: list[Result] | None,
    ) -> Result | None:
        turns = self._turns_of(entry, place)
        named = entry.name is not None and entry.name[1].is_literal
        if not turns:
            return self._stand_in(_without_turns(entry), place, current)
        first = len(self.builder.nodes)
        if not named:
            for bindings in turns:
                turn = self._single_turn(entry, place.turn(bindings), current, collect)
                current = turn if collect is None else current
            return current
        local, inner = self._open(entry, place, "Sequential", None, {})
        anonymous = replace(entry, name=None)
        last: Result | None = None
        source = current
        for bindings in turns:
            last = self._single_turn(anonymous, inner.turn(bindings), source, collect)
            source = last if collect is None else source
        assert last is not None  # there is at least one turn
        self._close(inner.scope, current, last)
        result = Result(last.values, inner.level, (first, len(self.builder.nodes)))
        place.level.define(local, result)
        return result

    def _turns_of(self, entry: Entry, place: Place) -> Sequence[dict[str, Value]]:
        if entry.repeat is not None:
            count = self.evaluator.expression(entry.repeat, place.env)
            piece = entry.repeat[0]
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise Fault(
                    error(
                        "repeat-count",
                        f"`repeat` must be an integer of at least 0, not {describe_value(count)}",
                        piece.span,
                    )
                )
            self.builder.charge(count, piece.span)
            return [{}] * count
        assert entry.loop is not None  # the caller knows that the entry loops
        piece, loop = entry.loop
        try:
            lookup = self.evaluator.lookup(place.env, piece.span)
            turns = loop.turns(lookup, names=place.env.variables)
        except ExpressionError as failure:
            raise Fault(located(failure, piece)) from None
        self.builder.charge(len(turns), piece.span)
        return turns

    def _single_turn(
        self,
        entry: Entry,
        place: Place,
        current: Result | None,
        collect: list[Result] | None,
    ) -> Result | None:
        result = self._guarded(lambda: self._turn(entry, place, current), entry, place)
        if collect is not None and result is not None:
            collect.append(result)
        return result

    def _turn(self, entry: Entry, place: Place, current: Result | None) -> Result:
        """Build an entry once."""
        if entry.broken:
            raise Poisoned
        if self._depth > MAX_DEPTH:
            message = f"entries lie more than {MAX_DEPTH} levels within one another"
            raise Fault(error("too-deep", message, entry.key.span))
        if entry.when is not None and not self.evaluator.expression(entry.when, place.env):
            return self._stand_in(entry, place, current)
        first = len(self.builder.nodes)
        if entry.kind == "sequential":
            result = self._sequential(entry, place, current)
        elif entry.kind == "join":
            result = self._join(entry, place, current)
        else:
            operation = self._operation(entry, place)
            if operation is None:
                return self._stand_in(entry, place, current)
            if operation.op is not None:
                result = self._op(entry, operation, place, current)
            else:
                result = self._call(entry, operation, place, current)
        if entry.share is not None:
            self._share(entry, place, range(first, len(self.builder.nodes)))
        return result

    def _operation(self, entry: Entry, place: Place) -> OpValue | None:
        if entry.slot is not None:
            return self.evaluator.computed_operation(entry.slot, place.env)
        return OpValue(entry.op, entry.call)

    def _stand_in(self, entry: Entry, place: Place, current: Result | None) -> Result:
        """An entry that is not built: its name and each of its outputs stand for its input."""
        given = current
        if isinstance(entry.source, tree.Scalar):
            text = self.evaluator.text(entry.source, place.env)
            value = self.references.single(
                self.references.find(text, entry.source.span, place), text, entry.source.span
            )
            given = Result((("", value),))
        if given is None:
            raise Fault(
                error(
                    "no-input",
                    "the entry is not built, and there is nothing for it to stand for",
                    entry.key.span,
                )
            )
        result = replace(given, level=None, stand_in=given.single)
        if entry.name is not None:
            place.level.define(self.evaluator.template(entry.name, place.env), result)
        if entry.call is not None and (entry.inline or entry.call[1].inline):
            for output in entry.call[1].outputs:
                place.level.define(output.name.text, result)
        elif entry.inline and entry.name is None:
            for child in entry.entries:
                if child.name is not None:
                    with suppress(Fault, Poisoned):
                        name = self.evaluator.template(child.name, place.env)
                        place.level.define(name, result)
        return result

    # ----------------------------------------------------------------------------------- ops

    def _op(self, entry: Entry, operation: OpValue, place: Place, current: Result | None) -> Result:
        op_type = operation.op
        assert op_type is not None  # the caller has looked
        if op_type.arity.most == 0 and entry.source is not None:
            raise Fault(error("input-count", f"`{op_type.name}` takes no input", entry.source.span))
        own = self.references.count(entry) if op_type.arity.most != 0 else 0
        named: list[Input] = []

        def read(node: tree.Node, env: Env) -> int:
            named.append((self.references.read(node, replace(place, env=env)), node.span))
            return own + len(named) - 1

        # Arguments come first: what is wrong with them is wrong whatever the input is.
        op, places = self.arguments.op(op_type, entry, operation, place.env, read)
        inputs = self.references.inputs(entry, place, current) if own else []
        return self._build(entry, op, [*inputs, *named], places, place, own)

    def _build(
        self,
        entry: Entry,
        op: Op,
        inputs: Sequence[Input],
        places: Mapping[str, Span],
        place: Place,
        own: int,
    ) -> Result:
        """Infer, name and add one node. Its arguments name the inputs after the first `own`."""
        tensors = tuple([self.builder.tensor(value) for value, _ in inputs])
        self.references.check(entry, op, inputs, tensors, own)
        try:
            outputs = self.builder.infer(op, tensors)
        except Reject as reject:
            span: Span | None = None
            if isinstance(reject.at, str):
                span = places.get(reject.at)
            elif reject.at is not None and reject.at < len(inputs):
                span = inputs[reject.at][1]
                if len(inputs) > 1:
                    reject = self.builder.by_name(reject, reject.at, inputs)
            notes = []
            if span is not None and not span.inside(entry.span):
                notes = [Note(f"for `{entry.key.text}` at {entry.key.span}", entry.key.span)]
            raise Fault(reject.located(span or entry.key.span, notes)) from None
        self.builder.charge(1, entry.key.span)
        init = self.initialisers.of(entry, op, Site(tensors, outputs), place.env)
        name = self._name(entry, place)
        local = place.naming.take(name)
        node = self.builder.add(
            op,
            tuple([value for value, _ in inputs]),
            outputs,
            path=self._path(local, entry, place, leaf=True),
            span=entry.key.span,
            frame=place.frame,
            scope=place.scope,
            named=name is not None,
            init=init,
            allow=entry.allow | place.allow,
        )
        names = [str(n) for n in range(len(outputs))] if op.outputs_named else [""]
        outcome = tuple(zip(names, node.outputs, strict=True))
        result = Result(outcome, nodes=(node.index, node.index + 1), name=local)
        place.level.define(local, result)
        return result

    # --------------------------------------------------------------------------------- names

    def _name(self, entry: Entry, place: Place) -> str | None:
        if entry.name is None:
            return None
        name = self.evaluator.template(entry.name, place.env)
        piece = entry.name[0]
        try:
            check_name(name)
        except Reject as reject:
            raise Fault(reject.located(piece.span)) from None
        if place.scope.parent is None and any(
            declared.name.text == name for declared in self.document.inputs
        ):
            raise Fault(error("duplicate-name", f"`{name}` is an input", piece.span))
        return name

    def _path(self, local: str, entry: Entry, place: Place, *, leaf: bool) -> str:
        path = place.naming.path(local)
        span = entry.name[0].span if entry.name else entry.key.span
        self.builder.claim(path, span, leaf=leaf)
        return path

    # -------------------------------------------------------------------------------- scopes

    def _open(
        self,
        entry: Entry,
        place: Place,
        kind: str,
        definition: tuple[str, str] | None,
        arguments: Mapping[str, Value],
        level: Level | None = None,
    ) -> tuple[str, Place]:
        """A new scope for an entry, and the place inside it."""
        name = self._name(entry, place)
        local = place.naming.take(name)
        path = self._path(local, entry, place, leaf=False)
        scope = Scope(
            path, kind, definition, arguments, place.scope, entry.key.span, named=name is not None
        )
        place.scope.members.append(scope)
        inner = level if level is not None else Level(place.level)
        env, allow = place.env.inside(inner), place.allow | entry.allow
        return local, Place(env, Naming(path), scope, place.frame, allow)

    def _close(self, scope: Scope, given: Result | None, result: Result) -> None:
        if given is not None:
            scope.inputs = tuple(v for _, v in given.values if v is not None)
        scope.outputs = tuple((name, v) for name, v in result.values if v is not None)

    def _sequential(self, entry: Entry, place: Place, current: Result | None) -> Result:
        given = current
        if entry.source is not None:
            inputs = self.references.inputs(entry, place, current)
            if len(inputs) != 1:
                raise Fault(
                    error(
                        "input-count",
                        f"`Sequential` takes 1 input, here it has {len(inputs)}",
                        entry.source.span,
                    )
                )
            given = Result((("", inputs[0][0]),))
        if entry.inline and entry.name is None:
            inside = replace(place, allow=place.allow | entry.allow)
            last = self._entries(entry.entries, inside, given)
            if last is None:
                raise Fault(self._nothing(entry))
            return last
        first = len(self.builder.nodes)
        local, inner = self._open(entry, place, "Sequential", None, {})
        last = self._entries(entry.entries, inner, given)
        if last is None:
            raise Fault(self._nothing(entry))
        self._close(inner.scope, given, last)
        result = Result(last.values, inner.level, (first, len(self.builder.nodes)))
        place.level.define(local, result)
        return result

    def _nothing(self, entry: Entry) -> Diagnostic:
        return error("no-input", "the group is empty and has no input to stand for", entry.key.span)

    # --------------------------------------------------------------------------------- joins

    def _join(self, entry: Entry, place: Place, current: Result | None) -> Result:
        base = current
        if entry.source is not None:
            sources = self.references.inputs(entry, place, current)
            if len(sources) != 1:
                message = f"the branches of a join read 1 tensor, here are {len(sources)}"
                help = "a list joins tensors: `concat: [a, b]`"
                raise Fault(error("input-count", message, entry.source.span, help=help))
            base = Result((("", sources[0][0]),))
        inputs: list[Input] = []
        failed = False
        for branch in entry.branches:
            try:
                if branch.reference is not None:
                    piece, _ = branch.reference
                    text = self.evaluator.template(branch.reference, place.env)
                    found = self.references.find(text, piece.span, place)
                    inputs.append((self.references.single(found, text, piece.span), piece.span))
                    continue
                results: list[Result] = []
                if branch.entry is None:
                    results.append(self._base(entry, base))
                    if branch.name is not None:
                        name = self.evaluator.template(branch.name, place.env)
                        place.level.define(name, results[0])
                else:
                    self._entry(branch.entry, place, base, results)
                for result in results:
                    if not result.single and not result.poisoned:
                        raise Fault(
                            error(
                                "several-outputs",
                                "the branch has several outputs: "
                                + ", ".join(name for name, _ in result.values),
                                branch.span,
                            )
                        )
                    inputs.append((self.references.single(result, "", branch.span), branch.span))
            except Fault as fault:
                self.problems.add(fault.diagnostic.noted(*place.origin()))
                failed = True
            except Poisoned:
                failed = True
        if failed:
            raise Poisoned
        assert entry.op is not None  # a join is an op
        return self._build(entry, bind(entry.op, {}), inputs, {}, place, len(inputs))

    def _base(self, entry: Entry, base: Result | None) -> Result:
        if base is None:
            raise Fault(
                error(
                    "no-input",
                    "an empty branch stands for the current tensor, and there is none",
                    entry.key.span,
                )
            )
        return base

    # --------------------------------------------------------------------------------- calls

    def _call(
        self, entry: Entry, operation: OpValue, place: Place, current: Result | None
    ) -> Result:
        assert operation.block is not None  # the caller has looked
        document, block = operation.block
        if block.broken:
            raise Poisoned
        if self._calls >= MAX_CALLS:
            message = f"blocks call each other {MAX_CALLS} levels deep: {place.cycle(block.name)}"
            help = "a block that calls itself needs a `when` that ends it"
            raise Fault(error("block-cycle", message, entry.key.span, help=help))
        passed = self.arguments.passed(block, entry, operation, place.env)
        given = self.references.block_inputs(entry, block, place, current)
        inline = (entry.inline or block.inline) and entry.name is None
        level = Level(outer=place.level if inline else None)
        for name, value in given.items():
            level.entries[name] = Result((("", value),))
        env = Env(document, block, {}, level)
        self.arguments.block(block, passed, env)
        definition = (document.source.name, block.name)
        called = entry.key.text if entry.kind == "call" else block.name
        frame = Frame(called, entry.key.span, shown_loops(place.env.loops), place.frame)
        first = len(self.builder.nodes)
        if inline:
            local = ""
            allow = place.allow | entry.allow
            inner = Place(env, place.naming, place.scope, frame, allow)
        else:
            local, opened = self._open(entry, place, called, definition, env.variables, level)
            inner = replace(opened, env=env, frame=frame)
        early, late = split_assertions(block.assertions, {*env.variables, *given})
        if not self.outcomes.verify(early, inner):
            raise Poisoned
        start = Result((("", next(iter(given.values()))),)) if not block.inputs else None
        self._calls += 1
        try:
            last = self._entries(block.entries, inner, start)
        finally:
            self._calls -= 1
        self.outcomes.verify(late, inner)
        if block.outputs:
            values = tuple(
                (self.evaluator.text(declared.name.scalar, env), value)
                for declared, value in self.outcomes.outputs(block.outputs, inner)
            )
            if len(values) == 1:
                values = (("", values[0][1]),)
            last = Result(values)
        if last is None:
            raise Fault(self._nothing(entry))
        nodes = first, len(self.builder.nodes)
        result = Result(last.values, None, nodes, name=local, hidden=level)
        if inline:
            for name, output in result.values:
                if name:
                    place.level.define(name, Result((("", output),)))
            return result
        inner.scope.inputs = tuple(given.values())
        inner.scope.input_names = tuple(given)
        inner.scope.outputs = tuple((name, v) for name, v in result.values if v is not None)
        place.level.define(local, result)
        return result

    def _share(self, entry: Entry, place: Place, built: range) -> None:
        """Let what was just built use the weights of the entry that `share` names."""
        assert entry.share is not None  # the caller has looked
        piece = entry.share[0]
        text = self.evaluator.template(entry.share, place.env)
        owner = self.references.find(text, piece.span, place)
        if owner.poisoned:
            raise Poisoned
        try:
            self.builder.share(built, range(*owner.nodes), text)
        except Reject as reject:
            raise Fault(reject.located(piece.span)) from None


def _without_turns(entry: Entry) -> Entry:
    """An entry whose loop has no turn: what its name or source says of a turn says nothing."""
    bound = frozenset(entry.loop[1].targets.names) if entry.loop else frozenset()
    if entry.name is not None and entry.name[1].names & bound:
        entry = replace(entry, name=None)
    source = entry.source
    if isinstance(source, tree.Scalar) and parse_template(source.text).names & bound:
        entry = replace(entry, source=None)
    return entry
