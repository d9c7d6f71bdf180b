"""Configs to JSON and back, strictly."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.config import from_dict, to_dict
from sfumato.core.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    depth: int = 2
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 0.5
    flag: bool = False
    size: tuple[int, int] = (4, 4)
    weights: tuple[float, ...] = ()
    inner: Inner = field(default_factory=Inner)
    maybe: int | None = None
    parts: tuple[Inner, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)


finite = st.floats(allow_nan=False, allow_infinity=False)
inners = st.builds(Inner, depth=st.integers(), kind=st.sampled_from(["a", "b"]))
outers = st.builds(
    Outer,
    name=st.text(),
    rate=finite,
    flag=st.booleans(),
    size=st.tuples(st.integers(), st.integers()),
    weights=st.lists(finite, max_size=3).map(tuple),
    inner=inners,
    maybe=st.none() | st.integers(),
    parts=st.lists(inners, max_size=2).map(tuple),
    notes=st.dictionaries(st.text(), st.integers() | st.text(), max_size=2),
    sums=st.dictionaries(st.text(), st.text(), max_size=2),
)


@given(outers)
def test_round_trip_through_json(config: Outer):
    assert from_dict(Outer, json.loads(json.dumps(to_dict(config)))) == config


@given(st.sampled_from(list(Outer.__dataclass_fields__)), st.integers(0, 6), st.sampled_from("abcdefgh"))
def test_any_misspelt_field_is_refused(name: str, place: int, letter: str):
    wrong = name[:place] + letter + name[place:]
    with pytest.raises(ConfigError, match="unknown field of Outer"):
        from_dict(Outer, {"name": "x", wrong: 1})


def test_a_misspelt_field_is_told_its_nearest():
    with pytest.raises(ConfigError, match="did you mean 'depth'"):
        from_dict(Outer, {"name": "x", "inner": {"deptf": 1}})


def test_a_missing_field_is_named():
    with pytest.raises(ConfigError, match="Outer lacks name"):
        from_dict(Outer, {})


@pytest.mark.parametrize(
    ("field_name", "value"),
    [
        ("name", 3),
        ("rate", "0.5"),
        ("rate", True),
        ("rate", None),
        ("flag", 1),
        ("size", [1, 2, 3]),
        ("size", [1.0, 2]),
        ("size", 4),
        ("size", "44"),
        ("weights", ["x"]),
        ("inner", 5),
        ("inner", "depth"),
        ("inner", [1]),
        ("inner", None),
        ("inner", {"kind": "c"}),
        ("inner", {"depth": True}),
        ("inner", {"depth": 2.0}),
        ("maybe", "1"),
        ("maybe", False),
        ("parts", [{"depth": "2"}]),
        ("parts", [3]),
        ("notes", [1]),
        ("sums", {"file": 3}),
    ],
)
def test_a_wrong_type_is_refused_and_located(field_name: str, value: object):
    with pytest.raises(ConfigError) as caught:
        from_dict(Outer, {"name": "x", field_name: value})
    assert "Inner" in str(caught.value) or f"Outer.{field_name}" in str(caught.value)


@pytest.mark.parametrize("values", [None, 3, "name", ["name"]])
def test_what_is_no_object_is_refused(values: Any):
    with pytest.raises(ConfigError, match="object"):
        from_dict(Outer, values)


def test_whole_numbers_stand_for_floats_only():
    config = from_dict(Outer, {"name": "x", "rate": 2})
    assert config.rate == 2.0 and isinstance(config.rate, float)
