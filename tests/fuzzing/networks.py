"""Random networks as specs: every construct of the language, every operation of the registry.

A network is written entry by entry. A plain chain is steered by the rules of its operations; what
is made of chains (blocks, loops, joins, sharing) is kept if the whole spec still loads. So all that
comes out is valid for cnnspec; whether torch agrees is for others to say. A number gives the same
network each time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import permutations
from random import Random
from typing import Any

from cnnspec.api import load
from cnnspec.diagnostics import Reject, SpecError
from cnnspec.ir import Graph
from cnnspec.op import Op, Pointwise, Site
from cnnspec.ops import bind, registry
from cnnspec.tensor import Tensor, default_roles
from tests.fuzzing.arguments import arguments, written
from tests.fuzzing.fitting import alike, is_join, light, small, unary
from tests.fuzzing.specs import Entry, Spec, text_of

__all__ = ["Writer", "network", "wanted"]


def network(number: int) -> Spec:
    """The spec of network `number`."""
    return Writer(number).write()


def wanted(number: int) -> str:
    """The operation that network `number` has in any case: all of the registry in turn."""
    names = list(registry())
    return names[number % len(names)]


class Writer:
    """Writes one spec. `rejected` counts what was tried and refused, by diagnostic code."""

    def __init__(self, number: int) -> None:
        self.rng = Random(number)
        self.number = number
        self.spec: Spec = {"cnnspec": 1, "name": f"fuzz{number}"}
        self.tensors: dict[str, Tensor] = {}
        self.owners: dict[str, Entry] = {}
        self.signatures: dict[str, list[dict[str, Any]]] = {}
        self.current: Tensor
        self.count = 0
        self.rejected: dict[str, int] = {}

    # ------------------------------------------------------------------------------ the network

    def write(self) -> Spec:
        """The spec, which loads."""
        self._inputs()
        steps = self.rng.randint(2, 7)
        place = self.rng.randrange(steps)
        for step in range(steps):
            if step == place:
                self._wanted(registry()[wanted(self.number)])
            self.rng.choice(self._steps())()
        self._outputs()
        return self.spec

    def _steps(self) -> Sequence[Any]:
        return (
            self._plain,
            self._plain,
            self._plain,
            self._sequential,
            self._loop,
            self._join_branches,
            self._join_branches,
            self._join_names,
            self._block,
            self._call_again,
            self._two_inputs,
            self._share,
            self._several,
            self._back,
            self._when,
        )

    def _inputs(self) -> None:
        rng = self.rng
        shape: list[int]
        match rng.choice((1, 2, 2, 3, 3, 3, 3, 3, 4, 4)):
            case 1:
                shape = [rng.randint(1, 24)]
            case 2:
                shape = [rng.randint(1, 8), rng.randint(6, 40)]
            case 3:
                shape = [rng.randint(1, 8), rng.randint(5, 21), rng.randint(5, 21)]
            case _:
                shape = [rng.randint(1, 4), *(rng.randint(4, 9) for _ in range(3))]
        declared: list[Any] = list(shape)
        if rng.random() < 0.3 and len(shape) > 2:
            declared[-2:] = [f"H = {shape[-2]}", f"W = {shape[-1]}"]
        self.spec["inputs"] = {"x": declared}
        if rng.random() < 0.4:
            self.spec["params"] = {"w": rng.choice((2, 3, 4, 6, 8))}
        self.spec["layers"] = []
        self.current = self._input_tensor(shape)
        self.tensors["x"] = self.current

    def _input_tensor(self, shape: Sequence[int]) -> Tensor:
        roles = default_roles(len(shape))
        assert roles is not None
        return Tensor(tuple(shape), roles)

    def _add_input(self, shape: Sequence[int]) -> str:
        name = f"x{len(self.spec['inputs'])}"
        self.spec["inputs"][name] = list(shape)
        self.tensors[name] = self._input_tensor(shape)
        return name

    def _outputs(self) -> None:
        """Give the network a few outputs, some of them for training only."""
        rng = self.rng
        layers = self.spec["layers"]
        last = layers[-1]
        if not (isinstance(last, dict) and "name" in last and last["name"] in self.tensors):
            layers.append({"Identity": {}, "name": "last"})
            self.tensors["last"] = self.current
            name = "last"
        else:
            name = last["name"]
        if len(self.spec["inputs"]) == 1 and rng.random() < 0.3:
            if layers[-1] == {"Identity": {}, "name": "last"}:
                layers.pop()
                del self.tensors["last"]
            if self._loads(self.spec):
                return
            layers.append({"Identity": {}, "name": "last"})
            self.tensors["last"] = self.current
            name = "last"
        inputs = self.spec["inputs"]
        others = [
            each
            for each, tensor in self.tensors.items()
            if each not in inputs and each != name and tensor.batched
        ]
        outputs: dict[str, Any] = {"y": name}
        for number, other in enumerate(rng.sample(others, min(len(others), rng.randint(0, 3)))):
            outputs[f"y{number}"] = (
                {"from": other, "training": True, "weight": 0.5} if rng.random() < 0.4 else other
            )
        self.spec["outputs"] = outputs
        if not self._loads(self.spec):
            self.spec["outputs"] = {"y": name}
            assert self._loads(self.spec), text_of(self.spec)

    # ------------------------------------------------------------------------- keeping and not

    def _loads(self, spec: Spec) -> Graph | None:
        try:
            return load(text=text_of(spec)).graph
        except SpecError as error:
            for diagnostic in error.diagnostics:
                self.rejected[diagnostic.code] = self.rejected.get(diagnostic.code, 0) + 1
            return None

    def _keep(self, *entries: Entry, blocks: Mapping[str, Any] | None = None) -> bool:
        """Append entries if the network still loads and is small; follow its last tensor."""
        trial = dict(self.spec)
        trial["layers"] = [*self.spec["layers"], *entries]
        if blocks:
            trial["blocks"] = {**self.spec.get("blocks", {}), **blocks}
            # Sections in the order of the language.
            trial["layers"] = trial.pop("layers")
        graph = self._loads(trial)
        if graph is None or not small(graph.tensors):
            return False
        tensor = graph.tensors[graph.outputs[0].value]
        if not tensor.batched or not all(light(n.op, graph.site(n)) for n in graph.nodes):
            return False
        self.spec = trial
        self.current = tensor
        for entry in entries:
            if isinstance(entry, dict) and "name" in entry:
                node = graph.by_path.get(entry["name"])
                if node is not None and len(node.outputs) == 1:
                    self.tensors[entry["name"]] = graph.tensors[node.outputs[0]]
        last = entries[-1]
        if isinstance(last, dict) and "name" in last and "{" not in last["name"]:
            self.tensors.setdefault(last["name"], tensor)
        return True

    def _name(self) -> str:
        self.count += 1
        style = self.rng.choice(("n{}", "conv_{}", "part{}.x", "a-{}"))
        return style.format(self.count)

    def _named(self, entry: dict[str, Any], chance: float = 0.4) -> dict[str, Any]:
        if self.rng.random() < chance:
            entry["name"] = self._name()
        return entry

    # ---------------------------------------------------------------------------- plain chains

    def _fit(
        self, op: type[Op], inputs: Sequence[Tensor], tries: int = 6
    ) -> tuple[dict[str, Any], tuple[Tensor, ...]] | None:
        """Arguments with which the op takes the inputs, and what comes out."""
        shape = inputs[0].shape if inputs else ()
        for _ in range(tries):
            chosen = arguments(op, self.rng, shape)
            try:
                bound = bind(op, chosen)
                outputs = bound.infer(tuple(inputs))
            except Reject as reject:
                self.rejected[reject.code] = self.rejected.get(reject.code, 0) + 1
                continue
            if small(outputs) and light(bound, Site(tuple(inputs), outputs)):
                return written(chosen), outputs
        return None

    def _chain(
        self, x: Tensor, length: int, names: bool = True
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Entries that follow one another from `x`, and what comes out."""
        ops = [op for op in registry().values() if unary(op) and op.arity.least == 1]
        weights = [1 if issubclass(op, Pointwise) else 5 for op in ops]
        entries: list[dict[str, Any]] = []
        for _ in range(length):
            for op in self.rng.choices(ops, weights, k=12):
                found = self._fit(op, (x,), tries=2)
                if found is None:
                    continue
                chosen, (x,) = found
                entry = {op.name: self._disguised(chosen)}
                entries.append(self._named(entry) if names else entry)
                break
        return entries, x

    def _disguised(self, chosen: dict[str, Any]) -> dict[str, Any]:
        """Some integers as expressions of the same value."""
        rng, w = self.rng, self.spec.get("params", {}).get("w")
        for name, each in chosen.items():
            if isinstance(each, bool) or not isinstance(each, int) or rng.random() > 0.2:
                continue
            if w is not None and each == w:
                chosen[name] = "w"
            elif w is not None:
                chosen[name] = f"w + {each - w}" if each >= w else f"w - {w - each}"
            else:
                chosen[name] = rng.choice((f"{each - 1} + 1", f"max({each}, {each - 2})"))
        return chosen

    def _plain(self) -> None:
        entries, _ = self._chain(self.current, self.rng.randint(1, 3))
        for entry in entries:
            if "name" in entry:
                self.owners[entry["name"]] = entry
        if entries:
            self._keep(*entries)

    # -------------------------------------------------------------------------- constructs

    def _sequential(self) -> None:
        rng = self.rng
        entries, _ = self._chain(self.current, rng.randint(1, 4), names=rng.random() < 0.5)
        if not entries:
            return
        if rng.random() < 0.3:
            entries = [*entries[:1], {"Sequential": entries[1:]}] if entries[1:] else entries
        group = self._named({"Sequential": entries})
        if rng.random() < 0.25:
            group["inline"] = True
        if not self._keep(group):
            return
        if "name" in group and not group.get("inline") and rng.random() < 0.6:
            inner = rng.choice([str(i) for i in range(len(entries))])
            first = entries[int(inner)]
            if "name" in first:
                inner = str(first["name"])
            reference = f"{group['name']}.{inner}"
            self._keep({"ReLU": {}, "from": reference, "name": self._name()})

    def _loop(self) -> None:
        rng = self.rng
        entries, _ = self._chain(self.current, rng.randint(1, 2), names=False)
        if not entries:
            return
        looped: dict[str, Any] = entries[0] if len(entries) == 1 else {"Sequential": entries}
        if rng.random() < 0.5:
            looped["repeat"] = rng.randint(0, 3)
        else:
            looped["for"] = rng.choice(
                ("i in range(2)", "i, v in enumerate([2, 3, 1])", "v in [1, 2]", "i in range(0)")
            )
            if "i" in looped["for"].split(" in ")[0]:
                looped["name"] = f"loop{self.count}_{{i}}"
                self.count += 1
                self._vary(entries)
        if "name" not in looped:
            self._named(looped)
        if looped.get("Sequential") and rng.random() < 0.4 and "name" not in looped:
            looped["inline"] = True
        self._keep(looped)

    def _vary(self, entries: Sequence[dict[str, Any]]) -> None:
        """Let an integer argument depend on the loop variable `i`."""
        for entry in entries:
            for chosen in entry.values():
                if isinstance(chosen, dict):
                    for name in ("out_channels", "out_features"):
                        if isinstance(chosen.get(name), int) and self.rng.random() < 0.7:
                            chosen[name] = f"{chosen[name]} + i"

    def _join_branches(self) -> None:
        rng = self.rng
        joins = [op.name for op in registry().values() if is_join(op)]
        branches: dict[str, Any] = {}
        for number in range(rng.randint(1, 3)):
            kind = rng.random()
            if kind < 0.25:
                branches[f"b{number}"] = []
                continue
            entries, y = self._chain(self.current, rng.randint(1, 2), names=False)
            entries += self._back_to(self.current, y)
            if not entries:
                branches[f"b{number}"] = []
            elif len(entries) == 1 and kind < 0.5:
                branches[f"b{number}"] = entries[0]
            else:
                branches[f"b{number}"] = entries
        names = rng.sample(joins, min(4, len(joins)))
        for name in names:
            if self._keep(self._named({name: branches})):
                return
        self._keep(self._named({"concat": {"a": [], "b": []}}))

    def _back_to(self, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
        """What brings `y` to the channels of `x`, where only those differ."""
        axes = x.rank - 1
        if y.roles != x.roles or y.shape[1:] != x.shape[1:] or not 1 <= axes <= 3:
            return []
        if y.shape[0] == x.shape[0]:
            return []
        return [{f"Conv{axes}d": {"out_channels": x.shape[0], "kernel_size": 1}}]

    def _join_names(self) -> None:
        """Join tensors that there are, those of like shape first."""
        rng = self.rng
        x = self.current
        like = [name for name, tensor in self.tensors.items() if tensor.rank == x.rank]
        if not like:
            return
        like.sort(key=lambda name: alike(self.tensors[name], x))
        picked = rng.choices(like[-3:], k=rng.randint(2, 3))
        joins = [op for op in registry().values() if op.arity.most != 1]
        for op in rng.sample(joins, min(3, len(joins))):
            several = picked[: op.arity.most] if op.arity.most else picked
            if self._keep(self._joined(op, several)):
                return

    def _joined(self, op: type[Op], names: Sequence[str]) -> dict[str, Any]:
        """An entry that reads the named tensors."""
        if is_join(op):
            return self._named({op.name: list(names)})
        tensors = [self.tensors[name] for name in names]
        found = self._fit(op, tensors)
        chosen = found[0] if found else {}
        return self._named({op.name: chosen, "from": list(names)})

    def _block(self) -> None:
        """A block with a parameter, called at once."""
        rng = self.rng
        body, y = self._chain(self.current, rng.randint(1, 4), names=False)
        if not body:
            return
        block = f"block{len(self.spec.get('blocks', {}))}"
        params, call = self._generalised(body)
        body[-1]["name"] = "inner"
        if rng.random() < 0.5:
            body += self._back_to(self.current, y)
            if rng.random() < 0.5:
                condition = rng.choice(("input.channels > 2", "true"))
                body[0] = {"Sequential": [body[0]], "when": condition}
            body.append({rng.choice(("add", "concat", "mean", "maximum")): ["inner", "input"]})
        definition: dict[str, Any] = {"params": params} if params else {}
        if rng.random() < 0.2:
            definition["inline"] = True
        definition["layers"] = body
        entry = self._named({block: call})
        if rng.random() < 0.3:
            entry["repeat"] = 2
        if self._keep(entry, blocks={block: definition}):
            self.signatures[block] = [call]
            if "name" in entry and "repeat" not in entry:
                self.owners[entry["name"]] = entry

    def _generalised(self, body: Sequence[dict[str, Any]]) -> tuple[dict[str, str], dict[str, Any]]:
        """Put a parameter `width` in the place of some integers of the body."""
        for entry in body:
            for op, chosen in entry.items():
                if op not in registry():
                    continue
                for name, each in chosen.items():
                    if type(each) is int and each > 0 and self.rng.random() < 0.6:
                        chosen[name] = "width"
                        return {"width": "int"}, {"width": each}
        return {}, {}

    def _call_again(self) -> None:
        if not self.signatures:
            return
        block, calls = self.rng.choice(list(self.signatures.items()))
        call = copy.deepcopy(self.rng.choice(calls))
        if "width" in call and self.rng.random() < 0.5:
            call["width"] += self.rng.randint(0, 2)
        if self._keep(self._named({block: call})):
            calls.append(call)

    def _two_inputs(self) -> None:
        """A block of two inputs, and one of several outputs."""
        rng = self.rng
        name = rng.choice(list(self.tensors))
        block = f"block{len(self.spec.get('blocks', {}))}"
        body, _ = self._chain(self.tensors[name], rng.randint(1, 2), names=False)
        if not body:
            return
        if rng.random() < 0.5:
            body[0]["from"] = "skip"
            body[-1]["name"] = "inner"
            body.append({rng.choice(("add", "mul", "concat", "matmul")): ["inner", "x"]})
            definition = {"inputs": ["x", "skip"], "layers": body}
            here = self._here()
            if here is None:
                return
            source: Any = [here, name] if rng.random() < 0.5 else {"skip": name, "x": here}
            self._keep(self._named({block: {}, "from": source}), blocks={block: definition})
        else:
            body[0]["name"] = "one"
            body.append({"Sigmoid": {}, "name": "two"})
            definition = {"outputs": ["two", "one"], "layers": body}
            called = self._name()
            self._keep(
                {block: {}, "name": called, "from": name},
                {"Identity": {}, "from": f"{called}.one", "name": self._name()},
                {"Tanh": {}, "from": f"{called}.two", "name": self._name()},
                blocks={block: definition},
            )

    def _here(self) -> str | None:
        """A name for the current tensor."""
        name = self._name()
        return name if self._keep({"Identity": {}, "name": name}) else None

    def _share(self) -> None:
        if not self.owners:
            return
        owner, entry = self.rng.choice(list(self.owners.items()))
        assert isinstance(entry, dict)
        kept = {key: each for key, each in entry.items() if key not in ("name", "from")}
        again = copy.deepcopy(kept)
        again["share"] = owner
        again["name"] = self._name()
        sources: list[str | None] = [None, *self.tensors]
        self.rng.shuffle(sources)
        for source in sources[:4]:
            if self._keep({**again, **({"from": source} if source else {})}):
                return

    def _several(self) -> None:
        """An operation of several outputs, of which some are read on."""
        ops = [op for op in registry().values() if op.outputs_named]
        if not ops:
            return
        op = self.rng.choice(ops)
        found = self._fit(op, (self.current,))
        if found is not None:
            self._read_on(op, found, None)

    def _read_on(
        self, op: type[Op], found: tuple[dict[str, Any], tuple[Tensor, ...]], source: str | None
    ) -> bool:
        chosen, outputs = found
        name = self._name()
        first: dict[str, Any] = {op.name: chosen, "name": name}
        if source is not None:
            first["from"] = source
        if len(outputs) == 1:
            return self._keep(first)
        parts = [f"{name}.{number}" for number in range(len(outputs))]
        if self.rng.random() < 0.5:
            return self._keep(first, {"concat": parts})
        return self._keep(first, {"SiLU": {}, "from": self.rng.choice(parts)})

    def _back(self) -> None:
        """Go on from an earlier tensor."""
        name = self.rng.choice(list(self.tensors))
        entries, _ = self._chain(self.tensors[name], self.rng.randint(1, 3))
        if entries:
            entries[0]["from"] = name
            self._keep(*entries)

    def _when(self) -> None:
        entries, _ = self._chain(self.current, 1)
        if entries:
            arithmetic = "sum([1, 2]) == 3 and not false"
            entries[0]["when"] = self.rng.choice(("false", "1 > 0", arithmetic, False, True))
            self._keep(entries[0])

    # -------------------------------------------------------------------- the wanted operation

    def _wanted(self, op: type[Op]) -> None:
        """Put in the operation this network is to have: here, or on inputs of its own."""
        if op.arity.most == 0:
            self._source(op)
        elif not (op.arity.least <= 1 and self._on(op, self.current, None)):
            self._on_inputs(op)

    def _on(self, op: type[Op], x: Tensor, source: str | None) -> bool:
        if is_join(op):
            self.current = x
            here = self._here() if source is None else source
            return here is not None and self._keep(self._named({op.name: [here, here]}))
        found = self._fit(op, (x,))
        if found is None:
            return False
        if op.outputs_named:
            return self._read_on(op, found, source)
        entry = self._named({op.name: found[0]})
        if source is not None:
            entry["from"] = source
        return self._keep(entry)

    def _source(self, op: type[Op]) -> None:
        """An operation without inputs, multiplied with the current tensor."""
        here, name = self._here(), self._name()
        assert here is not None
        shapes = [list(self.current.shape), [1] * self.current.rank]
        for shape in self.rng.sample(shapes, 2):
            entry = {op.name: {"shape": shape}, "name": name}
            if self._keep(entry, {self.rng.choice(("mul", "add")): [here, name]}):
                return

    def _on_inputs(self, op: type[Op]) -> None:
        """Inputs of the sizes of an example, permuted where the roles of axes are to be others."""
        first = self.spec["layers"][0] if self.spec["layers"] else {}
        if "from" not in first:  # with several inputs there is none to start from
            self.spec["layers"].insert(0, {"Identity": {}, "from": "x"})
        for example in self.rng.sample(op.examples, len(op.examples)):
            before = copy.deepcopy((self.spec, self.tensors))
            for axes in permutations(range(max(map(len, example.input_shapes)))):
                names, turns = [], []
                for shape in example.input_shapes:
                    order = [axis for axis in axes if axis < len(shape)]
                    name = self._add_input([shape[order.index(axis)] for axis in range(len(shape))])
                    if order != sorted(order):
                        turned = self._name()
                        dims = [0, *(axis + 1 for axis in order)]
                        turns.append({"Permute": {"dims": dims}, "from": name, "name": turned})
                        name = turned
                    names.append(name)
                if self._keep(*turns, *self._reading(op, example.arguments, names)):
                    return
                self.spec, self.tensors = copy.deepcopy(before)

    def _reading(
        self, op: type[Op], given: Mapping[str, Any], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        chosen = written(given)
        if is_join(op):
            return [{op.name: list(names)}]
        sources = list(names)
        if "like" in chosen:
            chosen["like"] = sources.pop(chosen["like"])
        name = self._name()
        source = sources if len(sources) > 1 else sources[0]
        first = {op.name: chosen, "from": source, "name": name}
        if op.outputs_named:
            return [first, {"Identity": {}, "from": f"{name}.0"}]
        return [first]
