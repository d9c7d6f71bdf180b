"""Names to parts. One small registry per kind (backbones, codecs, solvers, ...); entries may be lazy so that start-up stays cheap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Generic, TypeVar, cast

from .errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """A named set of parts of one `kind`.

    `add(name)` registers the decorated object; `lazy(name, "module:attribute")` registers one that is imported when
    first asked for. `get(name)` raises `UnknownNameError` with the nearest known names.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T | str] = {}

    def add(self, name: str) -> Callable[[T], T]:
        def register(part: T) -> T:
            self._claim(name, part)
            return part

        return register

    def lazy(self, name: str, target: str) -> None:
        self._claim(name, target)

    def _claim(self, name: str, entry: T | str) -> None:
        present = self._entries.get(name)
        if present is not None and present is not entry:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = entry

    def get(self, name: str) -> T:
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = cast(T, getattr(import_module(module), attribute))
            self._entries[name] = entry
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))
