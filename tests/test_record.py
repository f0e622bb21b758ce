"""Frozen values without methods of their own: what a frozen dataclass promises, they keep."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from cnnspec.record import Record


class Point(Record):
    x: int
    y: int = 0


class Place(Point):
    name: str = "here"


class Other(Record):
    x: int
    y: int = 0


def test_fields_are_given_in_order_or_by_name() -> None:
    assert [f.name for f in fields(Place)] == ["x", "y", "name"]  # type: ignore[arg-type]
    for place in (Place(1, 2, "there"), Place(1, name="there", y=2), Place(name="there", y=2, x=1)):
        assert (place.x, place.y, place.name) == (1, 2, "there")
    assert (Place(1).y, Place(1).name) == (0, "here")


@pytest.mark.parametrize(
    ("values", "named", "message"),
    [
        ((), {}, "Point needs x"),
        ((), {"y": 1}, "Point needs x"),
        ((1, 2, 3), {}, "Point takes x, y, each once"),
        ((1,), {"x": 2}, "Point takes x, y, each once"),
        ((1,), {"z": 2}, "Point takes x, y, each once"),
    ],
)
def test_wrong_fields_are_refused(
    values: tuple[int, ...], named: dict[str, int], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        Point(*values, **named)


def test_values_do_not_change() -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert point == Point(1)


def test_equality_is_by_class_and_fields_however_they_were_given() -> None:
    assert Point(1) == Point(y=0, x=1)
    assert len({Point(1), Point(1, 0), Point(x=1)}) == 1
    assert Point(1) != Point(2)
    assert Point(1) != Other(1)
    assert Point(1) != Place(1)


def test_copies_and_what_is_shown() -> None:
    place = Place(1, name="there")
    assert deepcopy(place) == place
    assert replace(place, x=3) == Place(3, 0, "there")
    assert repr(place) == "Place(x=1, y=0, name='there')"
    match place:
        case Point(x, y):
            assert (x, y) == (1, 0)
