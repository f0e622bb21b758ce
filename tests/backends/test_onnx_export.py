"""The file: it appears whole, proved, or not at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import cnnspec
from cnnspec.backends.onnx import file, proving, storing
from cnnspec.backends.onnx.encoding import encoded
from cnnspec.backends.onnx.file import ExportReport
from cnnspec.backends.onnx.reference import hash_of
from cnnspec.backends.onnx.verify import VerificationFailure
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import ModelMetadata
from cnnspec.runtime.model_file import open_model
from cnnspec.runtime.stored import stored_tensors
from tests.cli.process import environment

TEXT = """\
cnnspec: 1
name: tiny
inputs: {image: [3, H = 12, W = 12]}
preprocess: {resize: 14, crop: 12, mean: 0.5, std: [0.2, 0.3, 0.4]}
labels: [a, b, c, d, e]
layers:
  - Conv2d: {out_channels: 64, kernel_size: 3, bias: false}
    name: conv
  - BatchNorm2d:
    name: bn
  - ReLU
  - Dropout
  - AdaptiveAvgPool2d: {output_size: 1}
  - Flatten
  - Linear: {out_features: 5}
    name: fc
"""
STORED = {"conv.weight", "conv.bias", "fc.weight", "fc.bias"}


@pytest.fixture(scope="module")
def net() -> cnnspec.Network:
    return cnnspec.load(text=TEXT)


@pytest.fixture(scope="module")
def module(net: cnnspec.Network) -> nn.Module:
    made = net.to_torch(seed=3).eval()
    with torch.no_grad():
        made.bn.running_mean.uniform_(-1, 1)
        made.bn.running_var.uniform_(0.5, 2)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


def stored(path: Path) -> set[str]:
    """The names of the weights in a file."""
    tensors = onnx.load(path).graph.initializer
    return {tensor.name for tensor in tensors if not tensor.name.startswith("/")}


def metadata(path: Path) -> ModelMetadata:
    (entry,) = onnx.load(path, load_external_data=False).metadata_props
    assert entry.key == "cnnspec"
    return ModelMetadata.from_json(entry.value)


def run(path: Path, image: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image.numpy()})
    return found


# ------------------------------------------------------------------------------------- the file


def test_writes_one_proved_file(net: cnnspec.Network, module: nn.Module, path: Path) -> None:
    report = net.to_onnx(path, module)
    assert os.listdir(path.parent) == ["net.onnx"]
    assert stored(path) == STORED
    assert open_model(path).producer == f"cnnspec {cnnspec.__version__}"
    assert (report.path, report.opset, report.size) == (path, 18, path.stat().st_size)
    assert (report.nodes, report.params, report.folded) == (5, 2181, ("bn",))
    assert report.verification is not None
    assert report.verification.close
    image = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        assert np.abs(run(path, image) - module(image).numpy()).max() < 1e-6


def test_the_report_is_json_and_agrees_with_the_file(
    net: cnnspec.Network, module: nn.Module, path: Path
) -> None:
    report = net.to_onnx(path, module, batch=2)
    said = json.loads(json.dumps(report.to_dict()))
    assert said["inputs"] == {"image": {"dtype": "float32", "shape": [2, 3, 12, 12]}}
    assert said["outputs"] == {"output": {"dtype": "float32", "shape": [2, 5]}}
    assert said["proof"]["kind"] == "verification"
    assert said["weights"] == {
        "taken": 8, "missing": [], "unexpected": [], "misshapen": []
    }  # fmt: skip
    assert (said["bytes"], said["batch"]) == (path.stat().st_size, 2)


def test_the_file_says_what_it_is(net: cnnspec.Network, module: nn.Module, path: Path) -> None:
    net.to_onnx(path, module, verify=False)
    found = metadata(path)
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    assert found.weights_sha256 == hash_of(state)
    assert found.labels == ("a", "b", "c", "d", "e")
    assert found.preprocess is not None
    assert (found.preprocess.resize, found.preprocess.crop) == (14, (12, 12))
    assert (found.inputs, found.outputs) == ({"image": (3, 12, 12)}, {"output": (5,)})
    assert (found.in_graph, found.softmax, found.precision) == ("none", False, "float32")
    assert set(found.versions) == {"cnnspec", "onnx", "onnxruntime", "torch"}
    again = cnnspec.load(text=found.spec)
    assert again.same_layers(net)
    assert again.analyze().totals == net.analyze().totals


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("limit", [3_000, storing.LARGEST])
def test_what_is_stored_is_known_again(
    net: cnnspec.Network, path: Path, limit: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the file or beside it: the smallest change of a weight is told."""
    monkeypatch.setattr(storing, "LARGEST", limit)
    report = net.to_onnx(
        path,
        precision=precision,  # type: ignore[arg-type]
        preprocess="normalize",
        verify=False,
    )
    found = open_model(path)
    assert found.metadata == report.metadata
    place = path if report.data is None else path.with_name(report.data)
    content = bytearray(place.read_bytes())
    graph = onnx.load(path, load_external_data=False).graph
    weight = max((bytes(each[-1]) for each in stored_tensors(graph, path.parent)), key=len)
    content[content.index(weight) + len(weight) // 2] ^= 1
    place.write_bytes(content)
    with pytest.raises(EnvironmentFailure, match="its weights are not those that it was exported"):
        open_model(path)


def test_hashes_of_weights_tell_them_apart() -> None:
    arrays = {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}
    same = {"b": np.ones((4,), np.float32)[::2], "a": np.zeros(3, np.float32)}
    assert hash_of(arrays) == hash_of(same), "neither order nor layout count"
    others = [
        {**arrays, "a": np.zeros((1, 3), np.float32)},
        {**arrays, "a": np.zeros(3, np.int32)},
        {**arrays, "b": np.zeros(2, np.float32)},
        {"a": arrays["a"], "c": arrays["b"]},
    ]
    assert len({hash_of(each) for each in (arrays, *others)}) == 5


def test_without_folding_the_norm_stays(
    net: cnnspec.Network, module: nn.Module, path: Path
) -> None:
    report = net.to_onnx(path, module, fold=False)
    assert report.folded == ()
    assert "BatchNormalization" in {node.op_type for node in onnx.load(path).graph.node}


def test_open_sizes_are_open_and_tried(net: cnnspec.Network, module: nn.Module, path: Path) -> None:
    report = net.to_onnx(path, module, size="dynamic")
    assert report.free is not None
    assert set(report.free.names) == {"H", "W"}
    assert report.inputs["image"].shape == ("batch", 3, "H", "W")
    assert metadata(path).size == "dynamic"
    assert report.verification is not None
    assert any(each.size for each in report.verification.comparisons)
    image = torch.rand(1, 3, 30, 17)
    with torch.no_grad():
        assert np.abs(run(path, image) - module(image).numpy()).max() < 1e-6


WRITE = """
import sys, cnnspec
net = cnnspec.load(sys.argv[1])
net.to_onnx(sys.argv[2], verify="none", preprocess="full", softmax=True, size="dynamic")
"""


def test_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TEXT, encoding="utf-8")
    found = set()
    for seed in ("1", "2"):
        where = tmp_path / seed
        where.mkdir()
        subprocess.run(
            [sys.executable, "-c", WRITE, "../tiny.yaml", "net.onnx"],
            cwd=where,
            env=environment(PYTHONHASHSEED=seed),
            check=True,
            timeout=120,
        )
        found.add((where / "net.onnx").read_bytes())
    assert len(found) == 1


def test_bytes_are_those_that_protobuf_writes(
    net: cnnspec.Network, module: nn.Module, path: Path
) -> None:
    """Pieces, and yet in the order and form of the library."""
    net.to_onnx(path, module, verify=False)
    data = path.read_bytes()
    assert onnx.load_model_from_string(data).SerializeToString(deterministic=True) == data


def test_arrays_of_any_layout_and_size_are_encoded() -> None:
    arrays = {
        "turned": np.arange(300, dtype=np.float32).reshape(10, 30).T,
        "none": np.zeros((0, 3), np.int64),
        "one": np.array(7, np.int64),
    }
    model = onnx.ModelProto(ir_version=8, producer_name="x")
    model.graph.name = "g"
    read = onnx.load_model_from_string(b"".join(encoded(model, arrays)))
    assert (read.graph.name, read.producer_name) == ("g", "x")
    found = {t.name: onnx.numpy_helper.to_array(t) for t in read.graph.initializer}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array), name


def test_weights_are_in_memory_once(tmp_path: Path) -> None:
    """The module has them, the folded ones come on top; no copy is made to write them."""
    text = TEXT.replace("out_features: 5", "out_features: 20000").replace("labels", "#")
    big = cnnspec.load(text=text)
    module = big.to_torch().eval()
    size = sum(value.nbytes for value in module.state_dict().values())
    big.to_onnx(tmp_path / "net.onnx", module, verify=False)
    tracemalloc.start()
    big.to_onnx(tmp_path / "net.onnx", module, verify=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * size


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 12}, "opset 12 is not possible"),
        ({"opset": 1000}, "opset 1000 is not possible"),
        ({"batch": 0}, "a batch has 1 to 2,147,483,647 samples, or is dynamic: not `0`"),
        ({"batch": True}, "or is dynamic: not `True`"),
        ({"batch": 2**31}, "or is dynamic: not `2147483648`"),
        ({"verify": "fast"}, "`verify` is quick, full or none, not `fast`"),
        ({"size": "free"}, "`size` is fixed or dynamic, not `free`"),
        ({"precision": "fp16"}, "`precision` is float32, float16 or int8, not `fp16`"),
        ({"preprocess": "all"}, "`preprocess` is none, normalize or full, not `all`"),
        ({"weights": 5}, "weights are a module, a file, or tensors or arrays by key"),
        ({"weights": {"model": {}}}, "`model` is neither a tensor nor numbers"),
        ({"half_io": True}, "in a float16 file only"),
        ({"precision": "int8"}, "int8 has to be calibrated"),
        ({"calibration": [{}]}, "calibration is for int8 only"),
        ({"precision": "int8", "calibration": []}, "nothing to calibrate int8 with"),
        ({"precision": "int8", "calibration": [{"x": np.zeros(1)}]}, "with inputs `image`, not"),
        ({"precision": "int8", "calibration": "nowhere"}, "there is no image `nowhere`"),
    ],
)
def test_options_that_make_no_sense_are_told(
    net: cnnspec.Network, path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(EnvironmentFailure, match=re.escape(message)):
        net.to_onnx(path, **options)  # type: ignore[arg-type]
    assert os.listdir(path.parent) == []


def test_paths_that_cannot_be_written_are_told(net: cnnspec.Network, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "none" / "net.onnx", tmp_path / "file" / "net.onnx"):
        with pytest.raises(EnvironmentFailure, match="cannot be written"):
            net.to_onnx(path)
    assert os.listdir(tmp_path) == ["file"]


# ------------------------------------------------------------------------------- whatever stops it

Stop = Callable[[pytest.MonkeyPatch], None]


def raises(what: BaseException) -> Callable[..., None]:
    """Something to call that raises `what`."""

    def stop(*_: object, **__: object) -> None:
        raise what

    return stop


@pytest.mark.parametrize("there", [True, False], ids=["replacing", "new"])
@pytest.mark.parametrize("stop", [VerificationFailure("no"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("where", [(proving, "verify"), (file, "lower"), (file, "reference")])
def test_whatever_stops_it_leaves_what_was_there(
    net: cnnspec.Network,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    stop: BaseException,
    where: tuple[object, str],
) -> None:
    monkeypatch.setattr(*where, raises(stop))
    if there:
        path.write_bytes(b"old")
    with pytest.raises(type(stop)):
        net.to_onnx(path)
    assert os.listdir(path.parent) == ["net.onnx"] * there
    assert not there or path.read_bytes() == b"old"


FULL_DISK = """
import resource, sys, cnnspec
from cnnspec.diagnostics import EnvironmentFailure
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    cnnspec.load(sys.argv[1]).to_onnx(sys.argv[2], verify="none")
except EnvironmentFailure as failure:
    print(failure.message)
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TEXT, encoding="utf-8")
    (tmp_path / "net.onnx").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "tiny.yaml", "net.onnx"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "`net.onnx` cannot be written: file too large\n"
    assert sorted(os.listdir(tmp_path)) == ["net.onnx", "tiny.yaml"]
    assert (tmp_path / "net.onnx").read_bytes() == b"old"


def test_a_link_stays_a_link_and_a_mode_stays(net: cnnspec.Network, tmp_path: Path) -> None:
    (tmp_path / "real.onnx").write_bytes(b"old")
    (tmp_path / "real.onnx").chmod(0o640)
    (tmp_path / "link.onnx").symlink_to("real.onnx")
    net.to_onnx(tmp_path / "link.onnx", verify=False)
    assert (tmp_path / "link.onnx").is_symlink()
    assert (tmp_path / "real.onnx").stat().st_mode & 0o777 == 0o640
    assert stored(tmp_path / "real.onnx") == STORED


def test_a_new_file_has_the_usual_permissions(net: cnnspec.Network, tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    report = net.to_onnx(tmp_path / "net.onnx", verify=False)
    assert report.path.stat().st_mode == usual.stat().st_mode


# --------------------------------------------------------------------------------- weights outside


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of more than 3,000 bytes are too many for one file."""
    monkeypatch.setattr(storing, "LARGEST", 3_000)


def data_files(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(".data"))


def exported(net: cnnspec.Network, path: Path, seed: int) -> ExportReport:
    return net.to_onnx(path, seed=seed)


@pytest.mark.usefixtures("outside")
def test_weights_go_into_a_file_beside(net: cnnspec.Network, path: Path, tmp_path: Path) -> None:
    report = exported(net, path, 1)
    (name,) = data_files(tmp_path)
    assert report.data == name
    assert re.fullmatch(r"net\.onnx\.[0-9a-f]{12}\.data", name)
    assert report.size == path.stat().st_size + (tmp_path / name).stat().st_size
    assert report.verification is not None
    assert path.stat().st_size < 8_000
    read = onnx.load(path, load_external_data=False)
    places = {
        entry.value
        for tensor in read.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert places == {name}
    onnx.checker.check_model(path, full_check=True)
    image = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        wanted = net.to_torch(seed=1).eval()(image).numpy()
    assert np.abs(run(path, image) - wanted).max() < 1e-6
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for each in (name, "net.onnx"):
        (tmp_path / each).rename(moved / each)
    assert np.abs(run(moved / "net.onnx", image) - wanted).max() < 1e-6


@pytest.mark.usefixtures("outside")
def test_a_pair_is_replaced_as_a_pair(net: cnnspec.Network, path: Path, tmp_path: Path) -> None:
    first = exported(net, path, 1).data
    again = exported(net, path, 1).data
    assert data_files(tmp_path) == [first] == [again]
    second = exported(net, path, 2).data
    assert data_files(tmp_path) == [second] != [first]


@pytest.mark.usefixtures("outside")
def test_a_pair_that_fails_leaves_the_old_pair(
    net: cnnspec.Network, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(net, path, 1)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    for seed in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(proving, "verify", raises(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                exported(net, path, seed)
        after = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
        assert after == before, "not the same files"


@pytest.mark.usefixtures("outside")
def test_an_interrupt_behind_the_last_step_leaves_a_whole_pair(
    net: cnnspec.Network, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(net, path, 1)
    replace = Path.replace

    def late(self: Path, target: Path) -> Path:
        found = replace(self, target)
        if target.name == "net.onnx":
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Path, "replace", late)
    with pytest.raises(KeyboardInterrupt):
        exported(net, path, 2)
    image = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        wanted = net.to_torch(seed=2).eval()(image).numpy()
    assert np.abs(run(path, image) - wanted).max() < 1e-6


@pytest.mark.usefixtures("outside")
def test_files_of_others_stay(net: cnnspec.Network, path: Path, tmp_path: Path) -> None:
    exported(net, path, 1)
    (old,) = data_files(tmp_path)
    others = ["net.onnx.data", "net.onnx.0123456789ab.data", "other.onnx.0123456789ab.data"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    path.rename(tmp_path / "kept.onnx")
    exported(net, path, 2)
    assert {old, *others} < set(data_files(tmp_path)), "none of them belongs to what was replaced"


@pytest.mark.usefixtures("outside")
def test_a_link_has_no_file_beside(net: cnnspec.Network, tmp_path: Path) -> None:
    (tmp_path / "real.onnx").write_bytes(b"old")
    (tmp_path / "net.onnx").symlink_to("real.onnx")
    with pytest.raises(EnvironmentFailure, match="it is a link, and weights of"):
        exported(net, tmp_path / "net.onnx", 1)
    assert sorted(os.listdir(tmp_path)) == ["net.onnx", "real.onnx"]


@pytest.mark.usefixtures("outside")
def test_what_is_too_large_is_not_narrowed(
    net: cnnspec.Network, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "LARGEST", 3_000)
    with pytest.raises(EnvironmentFailure, match="more than the 2 GB that can be made float16"):
        net.to_onnx(path, precision="float16")
