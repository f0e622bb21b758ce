"""What keeps the rooms apart: imports, what knows an op's name, what an op has to say."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import cnnspec
import cnnspec.ops
from cnnspec.frontend.names import MODULE_NAMES
from cnnspec.op import RULES, Example, Op, Pointwise, Stateless
from cnnspec.ops import ContractViolation, registry
from tests.cli.process import COMMAND, ROOT, environment

PACKAGE = ROOT / "cnnspec"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 600
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "jsonschema", "rich")


# ----------------------------------------------------------------------------------- the rooms


def contract(container: str) -> dict[str, object]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[dict[str, object]] = settings["tool"]["importlinter"]["contracts"]
    (found,) = (each for each in contracts if each["containers"] == [container])
    return found


def test_imports_point_down_only() -> None:
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("container", ["cnnspec", "cnnspec.training"])
def test_every_room_is_in_the_contract(container: str) -> None:
    settings = contract(container)
    assert (settings["type"], settings["exhaustive"]) == ("layers", True)
    layers = settings["layers"]
    assert isinstance(layers, list)
    listed = {room.strip() for layer in layers for room in re.split("[:|]", layer)}
    rooms = {
        path.stem
        for path in ROOT.joinpath(*container.split(".")).iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    assert {room.strip("()") for room in listed} >= rooms


def test_no_room_is_named_for_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "shared", "base"}
    assert not {path.stem.strip("_") for path in PACKAGE.rglob("*")} & vague


def test_files_can_be_read_in_one_go() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in MODULES
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_torch_and_onnx_stay_in_their_rooms() -> None:
    # `api` names them in types only, which the test of a running process holds it to.
    free = {"backends", "runtime", "training", "api.py"}
    strangers = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] not in free
        for name in imports(path)
        if name.split(".")[0] in ("torch", "torchvision", "onnx", "onnxruntime")
    }
    assert strangers == set()


# ------------------------------------------------------------------------- what a process loads


TORCHLESS = (
    *("distribution.launching", "interrupting", "memory_estimate", "patterns", "watching"),
    *("data.cifar", "data.folders", "data.huggingface", "data.mnist", "data.random_source"),
    *("data.sources", "evaluating.onnx_files", "evaluating.reading", "evaluating.tables"),
    *("recipe.differing", "recipe.overrides", "recipe.read", "recipe.schema", "recipe.write"),
    *("runs.curve", "runs.metrics", "runs.proving_resume", "runs.resuming", "runs.run_folder"),
)
"""Rooms of training that work without torch: data is read, files are evaluated, runs are shown."""


def test_rooms_of_training_that_need_no_torch() -> None:
    program = "import sys\n" + "".join(f"import cnnspec.training.{name}\n" for name in TORCHLESS)
    done = subprocess.run(
        [sys.executable, "-c", program + "print('torch' in sys.modules)"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def loaded(*arguments: str, **changes: str) -> set[str]:
    """The heavy packages a process of the command line has imported at its end."""
    program = f"""\
import sys
from cnnspec.__main__ import main
sys.argv = ["cnnspec", *{arguments!r}]
code = main()
print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("kind", ["table", "json", "csv", "markdown"])
def test_analysis_loads_nothing_heavy(kind: str) -> None:
    assert loaded("analyze", "resnet50", "--format", kind) == set()


def test_colour_is_the_only_use_of_rich() -> None:
    assert loaded("analyze", "resnet50", FORCE_COLOR="1") == {"rich"}


def test_check_and_schema_load_no_back_end() -> None:
    assert loaded("check", "resnet50") <= {"jsonschema", "numpy"}
    assert loaded("schema", "-o", "-") == set()


def test_importing_cnnspec_loads_nothing_heavy() -> None:
    program = f"import sys, cnnspec; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_the_command_line_starts_without_a_command() -> None:
    done = subprocess.run(
        [*COMMAND, "--version"], cwd=ROOT, env=environment(), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == f"cnnspec {cnnspec.__version__}"


# --------------------------------------------------------------------------------------- the ops


OUTSIDE = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] != "ops"]


OTHER_NAMES = {
    PACKAGE / "backends" / "onnx",  # operators of ONNX
    PACKAGE / "training" / "augmentation",  # torchvision's transforms
    PACKAGE / "training" / "recipe" / "known.py",  # these, and losses
    PACKAGE / "training" / "objective.py",  # modules of torch, losses among them
}
"""Where strings are the names of something else, some of which are those of operations too."""


def dispatched(node: ast.AST) -> Iterator[str]:
    """Strings that a piece of code decides by: compared, matched, or keys of a literal table."""
    match node:
        case ast.Compare():
            for side in (node.left, *node.comparators):
                yield from strings(side)
        case ast.MatchValue():
            yield from strings(node.value)
        case ast.Dict():
            for key in node.keys:
                if key is not None:
                    yield from strings(key)


def strings(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Tuple() | ast.List() | ast.Set():
            for element in node.elts:
                yield from strings(element)
        case ast.Call(func=ast.Name(id="frozenset" | "set"), args=[argument]):
            yield from strings(argument)


def operations_named(text: str) -> set[str]:
    """Operations by whose names a piece of Python decides what to do.

    The joins are left out: `add` and `mean` are words of many meanings.
    """
    return {
        name
        for node in ast.walk(ast.parse(text))
        for name in dispatched(node)
        if name in registry() and not name.islower()
    }


def names_compared(text: str) -> list[str]:
    """Comparisons with the name of an operation, whatever it is compared with."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if re.search(r"\bop\.(name|__name__)$|^type\((.*\.)?op\)$", ast.unparse(side))
    ]


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_outside_ops_decides_by_the_name_of_an_operation(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if not OTHER_NAMES & {path, *path.parents}:
        assert operations_named(text) == set()
    assert names_compared(text) == []


def test_decisions_by_name_are_found() -> None:
    assert operations_named('if op.name == "Conv2d": pass') == {"Conv2d"}
    assert operations_named('x in ("ReLU", "Tanh")') == {"ReLU", "Tanh"}
    assert operations_named('table = {"Linear": 1}') == {"Linear"}
    assert operations_named('match x:\n  case "MaxPool2d": pass') == {"MaxPool2d"}
    assert operations_named('print("Conv2d")') == set()
    assert names_compared("if node.op.name == other: pass") == ["node.op.name == other"]


def test_nothing_outside_ops_knows_the_file_of_an_operation() -> None:
    strangers = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in OUTSIDE
        for name in imports(path)
        if name.startswith("cnnspec.ops.") and find_spec_or_none(name) is not None
    }
    assert strangers == set()


def find_spec_or_none(name: str) -> object:
    try:
        return find_spec(name)
    except ModuleNotFoundError:
        return None


def test_every_operation_has_every_rule() -> None:
    assert len(registry()) > 70
    for name, op in registry().items():
        assert op.name == name
        assert all(hasattr(op, rule) for rule in RULES)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules belong to the room of the operations, with a registry of its own."""
    monkeypatch.setattr(cnnspec.ops, "__path__", [str(tmp_path)])
    registry.cache_clear()
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("cnnspec.ops."):
            delattr(cnnspec.ops, name.rpartition(".")[2])
            del sys.modules[name]
    registry.cache_clear()


OPERATION = '''\
"""An operation for a test."""

from cnnspec.op import Example, Op, Ops, Pointwise, Stateless


class Halve(Pointwise, Stateless):
    """Halves."""

    saves = ()
    examples = (Example({}, (3, 8, 8)),)

    def cost(self, at):
        return Ops(mul=at.y.elements)

    def torch(self, at):
        return ()

    def onnx(self, at, opset):
        return ()
'''


def test_a_file_is_all_an_operation_takes(room: Path) -> None:
    (room / "halving.py").write_text(OPERATION, encoding="utf-8")
    importlib.invalidate_caches()
    assert list(registry()) == ["Halve"]


@pytest.mark.parametrize("rule", ["cost", "torch", "onnx", "saves", "examples"])
def test_an_operation_that_lacks_a_rule_is_refused_by_its_name(rule: str, room: Path) -> None:
    text = OPERATION.replace(f"def {rule}(", f"def other_{rule}(").replace(
        f"    {rule} = ", f"    other_{rule} = "
    )
    (room / f"lacking_{rule}.py").write_text(text, encoding="utf-8")
    importlib.invalidate_caches()
    with pytest.raises(ContractViolation, match=rf"Halve lacks {rule}"):
        registry()


@pytest.mark.parametrize("rule", ["infer", "weights", "buffers", "connections", "window"])
def test_the_other_rules_are_asked_for_too(rule: str, room: Path) -> None:
    bases = {"infer": "Stateless", "window": "Stateless"}.get(rule, "Pointwise")
    text = OPERATION.replace("(Pointwise, Stateless)", f"({bases})")
    (room / f"lacking_{rule}.py").write_text(text, encoding="utf-8")
    importlib.invalidate_caches()
    with pytest.raises(ContractViolation, match=rf"Halve lacks .*\b{rule}\b"):
        registry()


def test_two_operations_of_one_name_are_refused(room: Path) -> None:
    (room / "first_half.py").write_text(OPERATION, encoding="utf-8")
    (room / "second_half.py").write_text(OPERATION, encoding="utf-8")
    importlib.invalidate_caches()
    with pytest.raises(ContractViolation, match=r"Halve is defined in .*second_half and in "):
        registry()


def test_the_bases_are_no_operations() -> None:
    assert Op.abstract
    assert Pointwise.abstract
    assert Stateless.abstract
    assert Example not in registry().values()


# ------------------------------------------------------------------------------------- the names


def test_reserved_names_are_those_of_torch_modules() -> None:
    torch = pytest.importorskip("torch")
    names = {name for name in dir(torch.nn.Module()) if not name.startswith("__")}
    names |= {name for name in dir(torch.nn.Module) if not name.startswith("__")}
    assert names == MODULE_NAMES
