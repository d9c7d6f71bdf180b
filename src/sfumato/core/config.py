"""Frozen dataclasses to and from JSON, strictly: an unknown field or a wrong type is an error that names the nearest field."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import ConfigError, UnknownNameError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a config as JSON-ready values (tuples become lists, nested configs become objects)."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build `cls` from `values`. Raises `ConfigError` on an unknown field, a missing one or a value of the wrong type."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{cls.__name__} is {values!r}, a {type(values).__name__}", "an object is needed")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise ConfigError(UnknownNameError(f"field of {cls.__name__}", name, fields).args[0])
    required = [n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    missing = [n for n in required if n not in values]
    if missing:
        raise ConfigError(f"{cls.__name__} lacks {', '.join(missing)}")
    return cls(**{n: _typed(hints[n], v, f"{cls.__name__}.{n}") for n, v in values.items()})


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{where} is {value!r}", f"one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} is {value!r}", "an object")
        return {k: _typed(arguments[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, typing.cast(type, hint)) else from_dict(typing.cast(type, hint), value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} is {value!r}, a {type(value).__name__}", f"a {getattr(hint, '__name__', hint)} is needed")
    return value


def _one_of(options: tuple[Any, ...], value: Any, where: str) -> Any:
    configs = [option for option in options if dataclasses.is_dataclass(option)]
    if isinstance(value, Mapping) and len(configs) == 1:
        # Only one can be meant: its own error names the field that is wrong.
        return _typed(configs[0], value, where)
    for option in options:
        if option is type(None):
            if value is None:
                return None
            continue
        try:
            return _typed(option, value, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} is {value!r}", f"one of {', '.join(getattr(o, '__name__', str(o)) for o in options)}")


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} is {value!r}", "a list is needed")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_typed(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(arguments) != len(value):
        raise ConfigError(f"{where} has {len(value)} values", f"{len(arguments)} are needed")
    return tuple(_typed(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True)))
