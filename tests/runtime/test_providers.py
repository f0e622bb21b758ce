"""Providers as data: their options, why one cannot be used, threads and caches."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from cnnspec.runtime import providers
from cnnspec.runtime.providers import (
    Driver,
    Profile,
    Settings,
    cache_folder,
    driver,
    missing_libraries,
    refusal,
    requested,
    several_runtimes,
    shortcomings,
)
from cnnspec.runtime.threads import cpu_quota, usable_threads

GPU = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
WORKING = Driver(True, (13, 0), 2)


# ------------------------------------------------------------------------------------------ options


def test_the_cpu_is_asked_for_alone() -> None:
    assert requested("cpu", Settings()) == [("CPUExecutionProvider", {})]


def test_cuda_computes_as_an_export_was_verified_unless_told() -> None:
    ((name, options),) = requested("cuda", Settings(device=1))
    assert name == "CUDAExecutionProvider"
    assert options["device_id"] == "1"
    assert (options["use_tf32"], options["enable_cuda_graph"]) == ("0", "0")
    ((_, options),) = requested("cuda", Settings(tf32=True, graph=True))
    assert (options["use_tf32"], options["enable_cuda_graph"]) == ("1", "1")


def test_tensorrt_keeps_engines_and_knows_sizes() -> None:
    profiles = {
        "image": Profile((1, 3, 224, 224), (8, 3, 224, 224), (32, 3, 224, 224)),
        "mask": Profile((1, 1), (2, 1), (3, 1)),
    }
    settings = Settings(graph=True, half=True, cache=Path("cache"), profiles=profiles)
    (first, options), (second, behind) = requested("tensorrt", settings)
    assert (first, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options == {
        "device_id": "0",
        "trt_fp16_enable": "1",
        "trt_cuda_graph_enable": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "cache",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "cache",
        "trt_profile_min_shapes": "image:1x3x224x224,mask:1x1",
        "trt_profile_opt_shapes": "image:8x3x224x224,mask:2x1",
        "trt_profile_max_shapes": "image:32x3x224x224,mask:3x1",
    }
    assert behind["enable_cuda_graph"] == "0"
    assert set(requested("tensorrt", Settings())[0][1]) == {
        "device_id",
        "trt_fp16_enable",
        "trt_cuda_graph_enable",
    }


def test_every_option_is_text() -> None:
    for provider in providers.PROVIDERS:
        for _, options in requested(provider, Settings(cache=Path("c"))):
            assert all(isinstance(value, str) for value in options.values())


def test_engines_of_another_file_are_in_another_folder() -> None:
    places = {cache_folder(digest * 64, {"HOME": "/h"}) for digest in "ab"}
    assert len(places) == 2
    assert places.pop().parent == Path("/h/.cache/cnnspec/tensorrt")
    own = {"HOME": "/h", "XDG_CACHE_HOME": "/x"}
    assert cache_folder("a" * 64, own) == Path("/x/cnnspec/tensorrt") / ("a" * 32)
    assert cache_folder("a" * 64, {"LOCALAPPDATA": "/l"}).is_relative_to("/l")


# ---------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    ("available", "found", "built_for", "missing", "reasons"),
    [
        (GPU, WORKING, "13.0", (), []),
        (GPU, Driver(True, (13, 1), 1), "12.8", (), []),
        (GPU, WORKING, None, (), []),
        (GPU[2:], WORKING, None, (), ["the installed onnxruntime is built without it"]),
        (
            GPU,
            Driver(False),
            "13.0",
            ("a.so", "b.so"),
            ["there is no NVIDIA driver", "`a.so`, `b.so` are missing"],
        ),
        (
            GPU,
            Driver(True, (12, 8), 1),
            "13.0",
            (),
            [
                "the NVIDIA driver knows CUDA 12.8 at most, and this onnxruntime is built for 13.0",
            ],
        ),
        (GPU, Driver(True, (13, 0)), "13.0", (), ["the NVIDIA driver finds no GPU"]),
        (GPU, WORKING, "13.0", ("libcudnn.so.9",), ["`libcudnn.so.9` is missing"]),
    ],
)
def test_shortcomings(
    available: tuple[str, ...],
    found: Driver,
    built_for: str | None,
    missing: tuple[str, ...],
    reasons: list[str],
) -> None:
    assert (
        shortcomings("cuda", available=available, found=found, built_for=built_for, missing=missing)
        == reasons
    )


def test_a_gpu_of_a_number_that_is_not_there() -> None:
    found = shortcomings(
        "tensorrt", available=GPU, found=WORKING, built_for="13.0", missing=(), device=2
    )
    assert found == ["there is no GPU 2"]


def test_the_cpu_lacks_nothing() -> None:
    assert (
        shortcomings("cpu", available=(), found=Driver(False), built_for=None, missing=("x",)) == []
    )


def test_what_is_told_about_a_refusal() -> None:
    failure = refusal("cuda", ["there is no NVIDIA driver", "`a.so` is missing"], "13.0")
    assert failure.message == ("CUDA cannot be used: there is no NVIDIA driver; `a.so` is missing")
    assert "needs CUDA 13 and cuDNN 9" in failure.help
    assert "TensorRT's own libraries" in refusal("tensorrt", [], None).help


class Library:
    """What NVIDIA's driver says, as a library."""

    def __init__(self, version: int, devices: int, failure: int = 0) -> None:
        self._version, self._devices, self._failure = version, devices, failure

    def cuDriverGetVersion(self, at: object) -> int:  # noqa: N802 - its name
        at._obj.value = self._version  # type: ignore[attr-defined]
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802 - its name
        return self._failure

    def cuDeviceGetCount(self, at: object) -> int:  # noqa: N802 - its name
        at._obj.value = self._devices  # type: ignore[attr-defined]
        return 0


def test_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, told in (
        (Library(12080, 4), Driver(True, (12, 8), 4)),
        (Library(13000, 4, failure=100), Driver(True, (13, 0), 0)),
    ):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, own=library: own)
        assert driver() == told

    def absent(name: str) -> object:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert driver() == Driver(False)


def test_libraries_are_named_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def preload_dlls() -> None:
        print("Failed to load libcublas.so.13: libcublas.so.13: cannot open shared object file")
        print("Failed to load /opt/x/libcurand.so.10: wrong ELF class")
        print("Please follow the instructions to install CUDA.")

    monkeypatch.setattr(providers.onnxruntime, "preload_dlls", preload_dlls, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    assert missing_libraries() == ("libcublas.so.13", "libcurand.so.10")
    monkeypatch.delattr(providers.onnxruntime, "preload_dlls")
    assert missing_libraries() == ()
    assert capfd.readouterr() == ("", "")


def test_builds_installed_over_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"onnxruntime-gpu"}
    monkeypatch.setattr(providers, "_installed", installed.__contains__)
    assert several_runtimes() == ""
    installed.add("onnxruntime")
    assert several_runtimes().startswith(
        "`onnxruntime`, `onnxruntime-gpu` are installed over one another"
    )


# ------------------------------------------------------------------------------------------ threads


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="ascii")
    return root


SECOND = {"proc/self/cgroup": "0::/pod/box\n"}
FIRST = {"proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/pod\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({**SECOND, "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n"}, None),
        ({**SECOND, "sys/fs/cgroup/pod/box/cpu.max": "150000 100000\n"}, 1.5),
        # The group around it grants less, and in a container only the top is seen.
        (
            {
                **SECOND,
                "sys/fs/cgroup/pod/box/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
            },
            2.0,
        ),
        ({**SECOND, "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        ({**SECOND, "sys/fs/cgroup/cpu.max": "nonsense\n"}, None),
        (
            {
                **FIRST,
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                **FIRST,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_quotas_of_control_groups(
    files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert cpu_quota(put(tmp_path, files)) == quota


def test_threads_are_those_that_may_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 4, raising=False)
    assert usable_threads(tmp_path) == 4
    for quota, threads in (("150000", 2), ("50000", 1), ("900000", 4)):
        put(tmp_path, {**SECOND, "sys/fs/cgroup/cpu.max": f"{quota} 100000"})
        assert usable_threads(tmp_path) == threads
