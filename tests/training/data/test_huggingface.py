"""Data sets by the library `datasets`, from local files alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.images import ImageFailure
from cnnspec.training.data.huggingface import open_hub
from cnnspec.training.recipe.model import Data
from tests.training.data.pictures import class_folders, picture

datasets = pytest.importorskip("datasets")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory):
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("stored"))
    )


def opened(path, classes=3, **said):
    return open_hub(Data(source="huggingface", path=str(path), **said), classes)


def png(seed, mode="RGB"):
    from io import BytesIO

    file = BytesIO()
    picture(seed, mode=mode).save(file, "PNG")
    return file.getvalue()


def table(labels, label="label", image="image", first=0, named=("ant", "bee")):
    pictures = [{"bytes": png(first + n), "path": None} for n in range(len(labels))]
    kind = datasets.ClassLabel(names=list(named)) if named else None
    features = {image: datasets.Image()}
    features[label] = kind or datasets.Value("string" if isinstance(labels[0], str) else "int64")
    return datasets.Dataset.from_dict(
        {image: pictures, label: labels}, features=datasets.Features(features)
    )


def parquet(folder, **splits):
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        rows.to_parquet(str(folder / f"{name}.parquet"))
    return folder


def check(samples, labels, first=0):
    assert samples.targets() == labels
    for number, label in enumerate(labels):
        image, target = samples.read(number, "RGB")
        assert target == label
        assert image.tobytes() == picture(first + number).tobytes()


def test_a_folder_of_parquet_files(tmp_path):
    parquet(tmp_path / "pets", train=table([0, 1, 1]), test=table([1, 0], first=10))
    found = opened(tmp_path / "pets")
    check(found.train, [0, 1, 1])
    check(found.held_out, [1, 0], 10)
    assert found.classes == ("ant", "bee")
    assert found.name == "pets"
    assert found.train.label(2).endswith("pets train, row 2")


def test_one_parquet_file_gives_a_share_of_every_class(tmp_path):
    parquet(tmp_path, all=table([0, 1] * 5))
    found = opened(tmp_path / "all.parquet", hold_out=0.2)
    assert np.bincount(found.held_out.targets()).tolist() == [1, 1]
    assert np.bincount(found.train.targets()).tolist() == [4, 4]
    assert opened(tmp_path / "all.parquet", hold_out=0).held_out is None


def test_a_folder_of_images(tmp_path):
    class_folders(tmp_path / "train", {"ant": 2, "bee": 2})
    class_folders(tmp_path / "test", {"ant": 1, "bee": 1})
    found = opened(tmp_path)
    assert found.classes == ("ant", "bee")
    check(found.train, [0, 0, 1, 1], 1)
    assert found.held_out.targets() == [0, 1]


def test_a_data_set_that_was_saved(tmp_path):
    datasets.DatasetDict(train=table([0, 1, 1]), validation=table([1])).save_to_disk(tmp_path / "a")
    found = opened(tmp_path / "a")
    check(found.train, [0, 1, 1])
    assert found.held_out.targets() == [1]
    table([0, 1, 1, 0]).save_to_disk(tmp_path / "b")
    assert len(opened(tmp_path / "b", hold_out=0).train) == 4


def test_texts_become_classes_by_their_order(tmp_path):
    parquet(
        tmp_path,
        train=table(["cow", "ant", "cow"], label="animal", image="photo", named=()),
        test=table(["ant"], label="animal", image="photo", named=()),
    )
    found = opened(tmp_path)
    assert found.classes == ("ant", "cow")
    assert found.train.targets() == [1, 0, 1]
    assert found.held_out.targets() == [0]


def test_numbers_alone_have_no_names(tmp_path):
    parquet(tmp_path, train=table([2, 0], named=()))
    found = opened(tmp_path, hold_out=0)
    assert found.classes == ()
    assert found.train.targets() == [2, 0]


def test_bytes_without_the_librarys_types_are_images(tmp_path):
    rows = datasets.Dataset.from_dict({"img": [png(0), png(1)], "label": [1, 0]})
    parquet(tmp_path, train=rows)
    check(opened(tmp_path, hold_out=0).train, [1, 0])


def test_a_second_column_of_images_is_masks(tmp_path):
    features = datasets.Features(image=datasets.Image(), map=datasets.Image())
    masks = []
    for seed in range(2):
        from io import BytesIO

        from PIL import Image

        file = BytesIO()
        Image.fromarray(np.asarray(picture(seed, mode="L")) % 3).save(file, "PNG")
        masks.append({"bytes": file.getvalue(), "path": None})
    rows = {"image": [{"bytes": png(n), "path": None} for n in range(2)], "map": masks}
    parquet(tmp_path, train=datasets.Dataset.from_dict(rows, features=features))
    samples = opened(tmp_path, masks="map", hold_out=0, image="image").train
    assert samples.targets() is None
    image, mask = samples.read(1, "RGB")
    assert image.tobytes() == picture(1).tobytes()
    assert np.array_equal(mask, np.asarray(picture(1, mode="L")) % 3)
    narrow = opened(tmp_path, 2, masks="map", hold_out=0, image="image").train
    with pytest.raises(ImageFailure, match="holds class 2 of 2"):
        narrow.read(1, "RGB")


def test_columns_and_splits_are_found_or_named(tmp_path):
    rows = table([0, 1, 1]).add_column("id", [1, 2, 3])
    rows = rows.add_column("place", ["a", "b", "c"])
    parquet(tmp_path, train=rows, test=rows, extra=rows)
    assert opened(tmp_path).train.targets() == [0, 1, 1]
    assert opened(tmp_path, label="place").classes == ("a", "b", "c")
    with pytest.raises(EnvironmentFailure, match="no split `tst`") as e:
        opened(tmp_path, held_out="tst")
    assert e.value.help == "did you mean `test`?"
    rows = rows.rename_column("label", "kind")
    parquet(tmp_path / "b", train=rows)
    with pytest.raises(EnvironmentFailure, match="several columns may hold classes; there") as e:
        opened(tmp_path / "b")
    assert e.value.help == "`data.label` names the column"
    with pytest.raises(EnvironmentFailure, match="no column `knd`") as e:
        opened(tmp_path / "b", label="knd")
    assert e.value.help == "did you mean `kind`?"


def test_rows_without_a_class_are_named(tmp_path):
    parquet(tmp_path, train=table([0, -1, 1]))
    with pytest.raises(EnvironmentFailure, match="train, row 1 has no class in `label`"):
        opened(tmp_path)


def test_tables_without_images_are_refused(tmp_path):
    parquet(tmp_path, train=datasets.Dataset.from_dict({"text": ["a"], "label": [1]}))
    with pytest.raises(EnvironmentFailure, match="no column holds images; there are `text`, `lab"):
        opened(tmp_path)


def test_damaged_images_are_failures_of_theirs(tmp_path):
    rows = datasets.Dataset.from_dict({"image": [png(0)[:99], b""], "label": [1, 0]})
    parquet(tmp_path, train=rows)
    samples = opened(tmp_path, hold_out=0).train
    with pytest.raises(ImageFailure, match="train, row 0` cannot be used: it is"):
        samples.read(0, "RGB")
    with pytest.raises(ImageFailure, match="train, row 1` cannot be used: it is empty"):
        samples.read(1, "RGB")


def test_fingerprints_follow_images_and_labels(tmp_path):
    seen = set()
    for name, rows in {
        "a": table([0, 1, 1]),
        "b": table([0, 1, 1]),
        "c": table([0, 1, 0]),
        "d": table([0, 1, 1], first=5),
        "e": table([0, 1, 1, 1]),
    }.items():
        seen.add(opened(parquet(tmp_path / name, train=rows), hold_out=0).fingerprint)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("name", "content"), [("x.parquet", b"no parquet"), ("x.parquet", b""), ("x.csv", b"a,b")]
)
def test_files_that_are_no_parquet_are_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EnvironmentFailure, match=name) as failure:
        opened(tmp_path / name)
    assert "\n" not in failure.value.message
    assert failure.value.__cause__ is None


def test_folders_without_data_are_one_line(tmp_path):
    with pytest.raises(EnvironmentFailure, match="cannot be loaded") as failure:
        opened(tmp_path)
    assert "\n" not in failure.value.message


def test_without_the_library_its_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EnvironmentFailure, match="need the library `datasets`") as failure:
        opened(tmp_path)
    assert failure.value.help == "`pip install 'cnnspec[datasets]'`"
