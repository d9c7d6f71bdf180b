"""How an option that may be left out offers its words: alone and in their order, where tyro's own rule adds None and shuffles them."""

from __future__ import annotations

from types import NoneType
from typing import Any, Literal, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo


def rules() -> ConstructorRegistry:
    """tyro's rules and the one for `Literal[...] | None`."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_words)
    return registry


def _words(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    parts = get_args(info.type)
    if len(parts) != 2 or parts[1] is not NoneType or get_origin(parts[0]) is not Literal:
        return None
    words = get_args(parts[0])
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(words) + "}",
        instance_from_str=lambda given: given[0],
        is_instance=lambda value: value is None or value in words,
        str_from_instance=lambda value: [str(value)],
        choices=words,
    )
