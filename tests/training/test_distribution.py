"""Two and three real processes against one, over gloo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cnnspec.training.distribution.launching import OthersGone
from cnnspec.training.distribution.place import Place, joined
from tests.training.runs import _counted, _parts, _plain, _resumed, here, together


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    with joined(here()):
        return {
            "plain": _plain(here()),
            "parts": _parts(here()),
            "resumed": _resumed(here()),
            "counted": _counted(here()),
        }


@pytest.fixture(scope="module", params=[2, 3])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("processes")
    scenarios = ("plain", "parts", "resumed", "counted", "interrupted")
    return together(request.param, folder / "found.pt", *scenarios)


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(
        float((each - other["weights"][key]).abs().max()) for key, each in one["weights"].items()
    )


def test_the_loss_is_that_of_one_process(alone: dict[str, Any], several: dict[str, Any]) -> None:
    one, found = alone["plain"], several["plain"]
    # 1,437 samples in steps of 60: the last one has 57, which two processes cannot halve.
    assert len(found["losses"]) == len(one["losses"]) == 24
    assert max(abs(a - b) for a, b in zip(found["losses"], one["losses"], strict=True)) < 1e-5
    assert _apart(found, one) < 1e-5


def test_parts_of_a_batch_make_no_difference(
    alone: dict[str, Any], several: dict[str, Any]
) -> None:
    for found in (alone["parts"], several["parts"]):
        assert _apart(found, alone["plain"]) < 1e-5


def test_every_sample_counts_once(alone: dict[str, Any], several: dict[str, Any]) -> None:
    one, found = alone["plain"], several["plain"]
    assert found["held_out"]["top1"] == one["held_out"]["top1"]
    assert found["held_out"]["loss"] == pytest.approx(one["held_out"]["loss"], abs=1e-5)
    assert found["top1"] == pytest.approx(one["top1"], abs=1e-3)


def test_all_processes_know_what_all_counted(
    alone: dict[str, Any], several: dict[str, Any]
) -> None:
    ((*counts, loss, confusion),) = alone["counted"]["everyone"]
    assert len(several["counted"]["everyone"]) > 1
    for *found, found_loss, found_confusion in several["counted"]["everyone"]:
        assert (found, found_confusion) == (counts, confusion)
        assert found_loss == pytest.approx(loss, rel=1e-12)


def test_a_resume_is_exact(alone: dict[str, Any], several: dict[str, Any]) -> None:
    for found in (alone["resumed"], several["resumed"]):
        assert len(found["equal"]) == 3
        assert all(found["equal"])


def test_processes_draw_different_numbers(alone: dict[str, Any], several: dict[str, Any]) -> None:
    # Dropout and norms are each process's own: the weights differ, or the test above is empty.
    assert _apart(several["resumed"], alone["resumed"]) > 1e-4
    assert not torch.equal(
        several["resumed"]["weights"]["norm.running_mean"],
        alone["resumed"]["weights"]["norm.running_mean"],
    )


def test_a_signal_to_one_ends_all_at_one_step(several: dict[str, Any]) -> None:
    found = several["interrupted"]
    code, epoch, step = found["everyone"][0]
    assert code == 143
    assert all(each == [code, epoch, step] for each in found["everyone"])
    assert found["last"] == [epoch, step]


def test_a_connection_that_breaks_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, **__: None)
    place = Place(torch.device("cpu"), rank=1, world=2)
    gone = "[a/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1"
    with pytest.raises(OthersGone, match="process 1 of 2 lost the others"), joined(place):
        raise RuntimeError(gone)
    with pytest.raises(OthersGone), joined(place):
        raise torch.distributed.DistBackendError("NCCL")
    with pytest.raises(RuntimeError, match="another"), joined(place):
        raise RuntimeError("another")
