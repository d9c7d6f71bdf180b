"""What flows through a network: named streams of tokens, skips, and the conditioning vectors, all immutable.

A `Stream` is one sequence (image, text, layout, ...); its `role` picks the weights that treat it. A `State` is every stream at one
point of the program. Blocks return new States; nothing is written in place, so checkpointing, caching and re-entry are safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

# Keys and values (B, H, N, d), heads as their attention wants them.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Stream:
    """One sequence of tokens, or the raw thing it is embedded from.

    x: latents (B, C, h, w) or ids at a network's door, tokens (B, N, D) inside it.   role: which weights treat it; "" = its name.
    pos: (B | 1, N, A) coordinates for rotary positions.   grid: token rows and columns of a picture-like stream.
    t: noise level (B,).   keep: (B, N) True = a real token, False = padding.
    known: (B, N) True = given, not to be predicted.   update: False = read by others, never changed.
    cells: (B, N) which cells of the grid the tokens are, where some were left out; None = all of them, row by row.
    """

    x: Tensor
    role: str = ""
    pos: Tensor | None = None
    grid: tuple[int, ...] | None = None
    t: Tensor | None = None
    keep: Tensor | None = None
    known: Tensor | None = None
    update: bool = True
    cells: Tensor | None = None

    @property
    def whole_grid(self) -> tuple[int, ...] | None:
        """The grid, if every cell of it has its token."""
        return self.grid if self.cells is None else None

    def with_x(self, x: Tensor) -> Stream:
        return replace(self, x=x)


@dataclass(frozen=True)
class State:
    """All streams at one point of a program.

    streams: by name, in joint-attention order.   skips: a stack of remembered streams, for long skips; an item sees the last one or none.
    cond: conditioning by name, rows first; families choose their own names and shapes.
    feats: tapped features by site name.   aux: auxiliary losses by name (scalars), where gradients are recorded.
    ready: keys and values computed before the first step, by program item and branch; stored: those of the item that is running.
    """

    streams: Mapping[str, Stream]
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    skips: tuple[Mapping[str, Stream], ...] = ()
    feats: Mapping[str, Tensor] = field(default_factory=dict)
    aux: Mapping[str, Tensor] = field(default_factory=dict)
    ready: Mapping[int, Mapping[str, Pair]] = field(default_factory=dict)
    stored: Mapping[str, Pair] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.streams[name].x

    def role(self, name: str) -> str:
        """Which weights treat a stream."""
        return self.streams[name].role or name

    def with_x(self, tokens: Mapping[str, Tensor]) -> State:
        """The same State with some streams' tokens replaced."""
        return replace(self, streams={n: s.with_x(tokens[n]) if n in tokens else s for n, s in self.streams.items()})

    def attach(self, name: str, stream: Stream) -> State:
        """A stream joins (a transient text, a layout)."""
        return replace(self, streams={**self.streams, name: stream})

    def detach(self, name: str) -> State:
        """A stream leaves."""
        return replace(self, streams={n: s for n, s in self.streams.items() if n != name})

    def push(self, *names: str) -> State:
        """Remember the named streams, with their grids, for a later `pop`."""
        return replace(self, skips=(*self.skips, {n: self.streams[n] for n in names}))

    def pop(self) -> tuple[State, Mapping[str, Stream]]:
        """The most recent skip, and the State without it."""
        return replace(self, skips=self.skips[:-1]), self.skips[-1]

    def note(self, *, feats: Mapping[str, Tensor] | None = None, aux: Mapping[str, Tensor] | None = None) -> State:
        """The same State with features or auxiliary losses added."""
        return replace(self, feats={**self.feats, **(feats or {})}, aux={**self.aux, **(aux or {})})


@dataclass(frozen=True)
class Out:
    """What a network returns. pred: its answer by stream, shaped like that stream's input where it is a prediction of it; logits
    (B, N, K) over ids and features (B, N, D) for a nested head are per token.   feats, aux: see State.
    """

    pred: Mapping[str, Tensor]
    feats: Mapping[str, Tensor] = field(default_factory=dict)
    aux: Mapping[str, Tensor] = field(default_factory=dict)


def _register(cls: type[Any], constants: tuple[str, ...] = ()) -> None:
    """FSDP2 finds tensors in a module's arguments by pytree; an unregistered dataclass would hide them from its backward hooks."""
    moving = tuple(f.name for f in fields(cls) if f.name not in constants)

    def flatten(value: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(value, n) for n in moving], tuple(getattr(value, n) for n in constants)

    def unflatten(children: Any, context: tuple[Any, ...]) -> Any:
        return cls(**dict(zip(moving, children, strict=True)), **dict(zip(constants, context, strict=True)))

    _pytree.register_pytree_node(cls, flatten, unflatten, serialized_type_name=f"sfumato.{cls.__name__}")


_register(Stream, constants=("role", "grid", "update"))
_register(State)
_register(Out)


def require_finite(value: Tensor, where: str) -> None:
    """Raise `NonFiniteError` naming `where`, the dtype and the share of bad values if `value` holds a NaN or an infinity."""
    if not torch.isfinite(value).all():
        from .errors import NonFiniteError

        bad = 1.0 - float(torch.isfinite(value).float().mean())
        raise NonFiniteError(
            f"{where}: {bad:.1%} of the values are not finite ({str(value.dtype).removeprefix('torch.')} on {value.device})",
            "try --dtype float32; if it persists, the weights or the input are at fault",
        )
