"""Device files to `Device`: a few keys, checked with positions like a spec.

name: NVIDIA A100 SXM 80 GB
source: https://...
bandwidth: 2.039e12         # bytes a second
peak: {float32: 19.5e12, float16: 312e12}
vector: {float16: 78e12}    # elementwise, where it differs
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cnnspec.device import RATES, Device
from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, listed
from cnnspec.frontend import tree
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.reader import read
from cnnspec.frontend.reading import Reader
from cnnspec.slots import Float
from cnnspec.source import Source

__all__ = ["bundled_devices", "device_path", "read_device"]

_REQUIRED = ("name", "bandwidth", "peak")
_KEYS = (*_REQUIRED, "vector", "source")
_RATE = Float(least=1)


def bundled_devices() -> dict[str, Path]:
    """The device files that come with cnnspec, by the name that `--device` takes."""
    folder = Path(__file__).parents[1] / "devices"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def device_path(given: str) -> Path:
    """The file that a path or a bundled name means."""
    bundled = bundled_devices()
    if given in bundled and not Path(given).is_file():
        return bundled[given]
    if Path(given).suffix:
        return Path(given)
    raise EnvironmentFailure(
        f"there is no device `{given}`",
        help=did_you_mean(given, bundled) or f"name a file, or one of {listed(bundled)}",
    )


def read_device(source: Source) -> Device:
    """A device from the text of its file. Raises `SpecError` with everything that is wrong."""
    problems = Problems()
    reader = Reader(problems)
    root = reader.mapping(read(source), "a device file")
    items: dict[str, tree.Node] = {}
    if root is not None:
        reader.known_keys(root, _KEYS, "a device file")
        items = {key.text: value for key, value in root.items}
        missing = [key for key in _REQUIRED if key not in items]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            reader.error("missing-key", f"{listed(missing)} {verb} missing", root)
    found = Device(
        name=_text(reader, items, "name"),
        bandwidth=_number(reader, items["bandwidth"], "bandwidth") if "bandwidth" in items else 0,
        peak=_rates(reader, items["peak"], "peak") if "peak" in items else {},
        vector=_rates(reader, items["vector"], "vector") if "vector" in items else {},
        source=_text(reader, items, "source"),
    )
    problems.stop()
    return found


def _text(reader: Reader, items: Mapping[str, tree.Node], key: str) -> str:
    scalar = reader.scalar(items[key], f"`{key}`") if key in items else None
    return "" if scalar is None else scalar.text


def _number(reader: Reader, node: tree.Node, name: str) -> float:
    value = reader.plain(node)
    if not reader.accepted(node, _RATE, 1, name, value):
        return 0
    number: float = _RATE.accept(value, 1)
    return number


def _rates(reader: Reader, node: tree.Node, name: str) -> Mapping[str, float]:
    mapping = reader.mapping(node, f"`{name}`")
    if mapping is None:
        return {}
    reader.known_keys(mapping, RATES, f"`{name}`")
    if not mapping.items:
        reader.error(
            "missing-key", f"`{name}` has no rate", node, help=f"types are {listed(RATES)}"
        )
    return {key.text: _number(reader, value, key.text) for key, value in mapping.items}
