"""Sessions: what runs is what was asked for, and what it says is what runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime import session as room
from cnnspec.runtime.binding import Bound
from cnnspec.runtime.model_file import ModelFile, open_model
from cnnspec.runtime.providers import Driver, Settings
from cnnspec.runtime.said import first_sentence
from cnnspec.runtime.session import Session
from cnnspec.runtime.threads import usable_threads
from tests.runtime.models import classifier, metadata, model, put


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    return open_model(put(classifier(metadata()), tmp_path / "m.onnx"))


def images(batch: int) -> dict[str, Any]:
    random = np.random.default_rng(batch)
    return {"image": random.random((batch, 3, 8, 8), dtype=np.float32)}


def scores(feeds: dict[str, Any]) -> Any:
    return feeds["image"].mean(axis=(2, 3)) * 10


def test_running_on_the_cpu(file: ModelFile) -> None:
    made = Session(file, provider="cpu")
    assert (made.provider, made.threads, made.graph) == ("cpu", usable_threads(), False)
    assert made.inputs == file.inputs
    for batch in (1, 5):
        found = made.run(images(batch))
        assert list(found) == ["scores"]
        assert np.allclose(found["scores"], scores(images(batch)), atol=1e-4)


def test_threads_are_those_of_the_session(file: ModelFile) -> None:
    made = Session(file, provider="cpu", threads=3)
    assert made.threads == 3
    assert made._session.get_session_options().intra_op_num_threads == 3


def test_sizes_are_fixed_by_name(file: ModelFile) -> None:
    made = Session(file, provider="cpu", sizes={"batch": 2})
    assert made._session.get_inputs()[0].shape == [2, 3, 8, 8]


# ---------------------------------------------------------------------------------- bound to memory


def test_bound_memory_is_kept_and_gives_the_same(file: ModelFile) -> None:
    made = Session(file, provider="cpu")
    feeds = images(2)
    kept = feeds["image"].copy()
    bound = made.bound(feeds)
    assert made.bound(images(2)) is bound
    bound.run()
    first = bound.results()["scores"].copy()
    assert np.allclose(first, scores(feeds), atol=1e-4)
    other = {"image": feeds["image"][::-1] * 2}
    bound.feed(other)
    bound.run()
    assert np.allclose(bound.results()["scores"], scores(other), atol=1e-4)
    assert np.array_equal(feeds["image"], kept)
    assert np.allclose(first, scores(feeds), atol=1e-4)


def test_few_shapes_are_kept(file: ModelFile) -> None:
    made = Session(file, provider="cpu")
    first = made.bound(images(1))
    for batch in range(2, 12):
        made.bound(images(batch))
    assert len(made._bound) == 8
    assert made.bound(images(1)) is not first


def test_outputs_of_a_graph_stay_at_their_addresses(file: ModelFile) -> None:
    """What CUDA graphs need, on the CPU, which has memory of the same kind but no graphs."""
    made = Session(file, provider="cpu")
    bound = Bound(made._session, images(2), device="cpu", number=0, graph=1)
    places = set()
    for batch in (images(2), {"image": images(2)["image"] * 3}):
        bound.feed(batch)
        bound.run()
        assert np.allclose(bound.results()["scores"], scores(batch), atol=1e-4)
        places.add(bound._binding.get_outputs()[0].data_ptr())
    assert len(places) == 1
    assert bound._options.get_run_config_entry("gpu_graph_id") == "1"


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_that_is_not_there(
    provider: Any, file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "driver", lambda: Driver(False))
    with pytest.raises(EnvironmentFailure, match="cannot be used: ") as failure:
        Session(file, provider=provider)
    assert failure.value.help


def test_auto_without_a_driver_is_the_cpu_and_nothing_to_tell(
    file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "driver", lambda: Driver(False))
    monkeypatch.setattr(room, "several_runtimes", lambda: "")
    made = Session(file)
    assert (made.provider, made.remarks) == ("cpu", ())


class Fake:
    """A session of ONNX Runtime that got other providers than it was asked for."""

    asked: list[Any]
    got: list[str]
    graphs = True

    def __init__(self, path: str, options: object, providers: Any, enable_fallback: int) -> None:
        assert enable_fallback == 0
        type(self).asked.append(providers)
        if not self.graphs and any(each[1].get("enable_cuda_graph") == "1" for each in providers):
            raise RuntimeError(
                "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature"
            )

    def get_providers(self) -> list[str]:
        return self.got


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """A machine with a GPU, as far as can be told without one."""
    Fake.asked, Fake.got, Fake.graphs = [], ["CUDAExecutionProvider", "CPUExecutionProvider"], True
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fake)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setattr(room, "driver", lambda: Driver(True, (99, 0), 1))
    monkeypatch.setattr(room, "missing_libraries", lambda: ())
    monkeypatch.setattr(room, "several_runtimes", lambda: "")
    return Fake


def test_cuda_is_what_runs(file: ModelFile, fake: type[Fake]) -> None:
    for provider in ("cuda", "auto"):
        made = Session(file, provider=provider)  # type: ignore[arg-type]
        assert (made.provider, made.remarks) == ("cuda", ())
    assert [asked[0][0] for asked in fake.asked] == ["CUDAExecutionProvider"] * 2


def test_cuda_that_falls_back_is_refused(file: ModelFile, fake: type[Fake]) -> None:
    fake.got = ["CPUExecutionProvider"]
    with pytest.raises(EnvironmentFailure, match="onnxruntime fell back to another provider"):
        Session(file, provider="cuda")
    made = Session(file, provider="auto")
    assert made.provider == "cpu"
    assert made.remarks == (
        "CUDA cannot be used: onnxruntime fell back to another provider; it runs on the CPU",
    )


def test_tensorrt_that_is_only_cuda_is_refused(file: ModelFile, fake: type[Fake]) -> None:
    with pytest.raises(EnvironmentFailure, match="TensorRT cannot be used"):
        Session(file, provider="tensorrt", settings=Settings(cache=file.path.parent / "cache"))


def test_engines_of_tensorrt_have_a_folder(
    file: ModelFile, fake: type[Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.got = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Session(file, provider="tensorrt")
    assert made.provider == "tensorrt"
    folder = tmp_path / "cache" / "cnnspec" / "tensorrt" / file.sha256()[:32]
    assert folder.is_dir()
    assert fake.asked[0][0][1]["trt_engine_cache_path"] == str(folder)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EnvironmentFailure, match="cannot be made: not a directory"):
        Session(file, provider="tensorrt")


def test_a_model_without_graphs_runs_without_and_says_so(file: ModelFile, fake: type[Fake]) -> None:
    assert Session(file, provider="cuda", settings=Settings(graph=True)).graph
    fake.graphs = False
    made = Session(file, provider="cuda", settings=Settings(graph=True))
    assert (made.provider, made.graph) == ("cuda", False)
    assert made.remarks == ("CUDA graphs cannot be used for this model",)


def test_what_onnx_runtime_refuses(file: ModelFile, tmp_path: Path) -> None:
    made = Session(file, provider="cpu")
    for feeds in (
        {"image": np.zeros((1, 4, 8, 8), np.float32)},
        {"image": np.zeros((1, 3, 8, 8), np.float64)},
        {"other": np.zeros((1, 3, 8, 8), np.float32)},
    ):
        with pytest.raises(EnvironmentFailure, match="ONNX Runtime cannot run `") as failure:
            made.run(feeds)
        assert "\n" not in failure.value.message
    node = helper.make_node("Strange", ["image"], ["y"], domain="elsewhere")
    strange = model([node], {"image": (TensorProto.FLOAT, (1,))}, {"y": (TensorProto.FLOAT, (1,))})
    strange.opset_import.append(helper.make_opsetid("elsewhere", 1))
    with pytest.raises(EnvironmentFailure, match="ONNX Runtime cannot load `"):
        Session(open_model(put(strange, tmp_path / "s.onnx")), provider="cpu")


def test_what_is_said_has_no_code_in_it() -> None:
    for said, told in (
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got 4 Expected: 3\nmore",
            "Got 4 Expected: 3",
        ),
        ("[ONNXRuntimeError] : 1 : FAIL : Load model from /a/m.onnx failed:No graph.", "No graph"),
        (
            "/src/core/graph.cc:1431 void ns::Graph::Load(const X&) Status Message: No Op x",
            "No Op x",
        ),
        ("/onnxruntime_src/core/a.cc:43 int f(int) Please install it.", "Please install it"),
        (
            "Nodes must be sorted, however input 'x' of node: \nname: c",
            "Nodes must be sorted, however input 'x' of node",
        ),
        ("", "no reason given"),
    ):
        assert first_sentence(RuntimeError(said)) == told
