"""Small images on disks, for tests of sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cnnspec.runtime.preparing import Preparation, preparation


def picture(seed: int, height: int = 12, width: int = 10, mode: str = "RGB") -> Image.Image:
    channels = () if mode == "L" else (3,)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels))
    return Image.fromarray(pixels.astype(np.uint8))


def put(path: Path, seed: int, **kind: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, **kind).save(path)  # type: ignore[arg-type]
    return path


def class_folders(root: Path, classes: dict[str, int], suffix: str = ".png") -> Path:
    """So many images of each class."""
    seed = 0
    for name, count in classes.items():
        for number in range(count):
            seed += 1
            put(root / name / f"{number:03}{suffix}", seed)
    return root


def to(*shape: int, **said: object) -> Preparation:
    """How images become an input of `shape`, CxHxW."""
    return preparation(said or None, (1, *shape))
