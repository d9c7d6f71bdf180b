"""Conditioning: named slots of what a picture should be like. Every slot owns its dropout and its null form, saved with the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from .errors import ConfigError
from .state import Pair, Stream

KINDS = ("tokens", "vectors", "scalars", "spatial", "images")


@dataclass(frozen=True)
class Tokens:
    """Token states (B, N, D) with keep (B, N), True = a real token. States at padding are zero."""

    states: Tensor
    keep: Tensor

    def silenced(self, dtype: torch.dtype) -> Tensor:
        """The states (B, N, D) in `dtype`, zero at padding: finite whatever was there, so that masked keys contribute exactly nothing."""
        return self.states.to(dtype).masked_fill(~self.keep[..., None], 0.0)

    def trimmed(self) -> Tokens:
        """The same tokens without the padding on the right that all rows share; one token at least."""
        longest = max(1, int((self.keep * torch.arange(1, self.keep.shape[1] + 1, device=self.keep.device)).max()))
        return Tokens(self.states[:, :longest], self.keep[:, :longest])

    def pad_to(self, length: int) -> Tokens:
        """The same tokens, padded on the right to `length`."""
        missing = length - self.states.shape[1]
        if missing <= 0:
            return self
        pad = torch.nn.functional.pad
        return Tokens(pad(self.states, (0, 0, 0, missing)), pad(self.keep, (0, missing), value=False))


@dataclass(frozen=True)
class Ready:
    """What a network made of the slots once, for all steps (`Network.prepare`). streams: embedded from them.

    stored: keys and values of streams that no block changes, by program item and branch.
    """

    streams: Mapping[str, Stream]
    stored: Mapping[int, Mapping[str, Pair]] = field(default_factory=dict)


@dataclass(frozen=True)
class Conditions:
    """All slots of a batch. tokens: text-like sequences.   vectors: (B, D), pooled text, say.   scalars: (B,), sizes and crops.

    spatial: (B, C, h, w), channels beside the latents.   images: (B, N, D) image embeddings. Time is never in here.
    ready: what the network that reads them has already made of them; other rows or values have none.
    """

    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    spatial: Mapping[str, Tensor] = field(default_factory=dict)
    images: Mapping[str, Tensor] = field(default_factory=dict)
    ready: Ready | None = field(default=None, kw_only=True)

    @property
    def names(self) -> frozenset[str]:
        """Every filled slot."""
        return frozenset().union(self.tokens, self.vectors, self.scalars, self.spatial, self.images)

    def to(self, device: torch.device | str) -> Conditions:
        return Conditions(
            {n: Tokens(v.states.to(device), v.keep.to(device)) for n, v in self.tokens.items()},
            *({n: v.to(device) for n, v in slot.items()} for slot in (self.vectors, self.scalars, self.spatial, self.images)),
        )

    def only(self, names: Collection[str]) -> Conditions:
        """The slots among `names`."""
        return Conditions(
            {n: v for n, v in self.tokens.items() if n in names},
            *({n: v for n, v in slot.items() if n in names} for slot in (self.vectors, self.scalars, self.spatial, self.images)),
        )

    def rows(self, index: Tensor | slice) -> Conditions:
        """Some rows of the batch."""
        return Conditions(
            {n: Tokens(v.states[index], v.keep[index]) for n, v in self.tokens.items()},
            *({n: v[index] for n, v in slot.items()} for slot in (self.vectors, self.scalars, self.spatial, self.images)),
        )


def concatenate(parts: Sequence[Conditions]) -> Conditions:
    """One batch of all rows; token slots are padded to the longest part. Every part must fill the same slots."""

    def joined(name: str) -> Tokens:
        length = max(p.tokens[name].states.shape[1] for p in parts)
        padded = [p.tokens[name].pad_to(length) for p in parts]
        return Tokens(torch.cat([p.states for p in padded]), torch.cat([p.keep for p in padded]))

    for kind in KINDS:
        filled = {frozenset(getattr(p, kind)) for p in parts}
        if len(filled) > 1:
            raise ConfigError(f"rows fill different {kind} slots: {', '.join(str(sorted(f)) for f in filled)}")
    return Conditions(
        {name: joined(name) for name in parts[0].tokens},
        *({name: torch.cat([getattr(p, kind)[name] for p in parts]) for name in getattr(parts[0], kind)} for kind in KINDS[1:]),
    )


def picture_sizes(size: tuple[int, int], rows: int) -> Tensor:
    """The slot "sizes" (rows, 3) of pictures of `size` (height, width) pixels: both sides, and height / width (PixArt-alpha at 1024)."""
    height, width = size
    return torch.tensor([[height, width, height / width]]).repeat(rows, 1)


@dataclass(frozen=True)
class Slot:
    """What a model knows of one slot: its name, how often training drops it, and what stands in when it is absent.

    null "zeros": zero states, every token masked away.   null "empty": the encoder's states of the empty prompt.
    null "value": the number `value`, in a slot of scalars and only there: zero is a class or a size like any other.
    Slots of one `group` are dropped together.
    """

    name: str
    dropout: float = 0.1
    null: Literal["zeros", "empty", "value"] = "zeros"
    group: str = "text"
    value: float = 0.0

    def nulled(self, cond: Conditions, rows: Tensor, empty: Conditions | None = None) -> Conditions:
        """`cond` with this slot's null form in `rows` (B,) bool; `empty`: one row, for null "empty". Raises `ConfigError` where the slot
        is not filled or has no such null form.
        """
        kind = next((kind for kind in KINDS if self.name in getattr(cond, kind)), None)
        if kind is None:
            raise ConfigError(
                f"slot {self.name!r} is dropped, and nothing fills it", f"filled are {', '.join(sorted(cond.names)) or 'none'}"
            )
        if (kind == "scalars") != (self.null == "value"):
            right = "'value', the number that stands for none" if kind == "scalars" else "'zeros' or 'empty'"
            raise ConfigError(f"slot {self.name!r} of {kind} has the null form {self.null!r}", right)
        filled = getattr(cond, kind)[self.name]
        if self.null != "empty":
            null = self._nothing(filled)
        elif empty is None:
            raise ConfigError(f"slot {self.name!r} has the null form 'empty'", "pass the empty prompt's conditions")
        else:
            null = getattr(empty, kind)[self.name]
        return replace(cond, **{kind: {**getattr(cond, kind), self.name: _chosen(rows, null, filled)}}, ready=None)

    def _nothing(self, filled: Tokens | Tensor) -> Tokens | Tensor:
        if isinstance(filled, Tokens):
            return Tokens(torch.zeros_like(filled.states[:1]), torch.zeros_like(filled.keep[:1]))
        if self.null == "value" and not filled.is_floating_point() and not float(self.value).is_integer():
            raise ConfigError(f"slot {self.name!r} holds whole numbers and its null form is {self.value}", "a whole number")
        return torch.full_like(filled[:1], self.value if self.null == "value" else 0)


def nulled(cond: Conditions, slots: Sequence[Slot], dropped: Mapping[str, Tensor], empty: Conditions | None = None) -> Conditions:
    """`cond` with the rows of `dropped[group]` (B,) bool replaced by each slot's null form. `empty`: one row, for null "empty"."""
    for slot in slots:
        if slot.group in dropped:
            cond = slot.nulled(cond, dropped[slot.group], empty)
    return cond


def _chosen(rows: Tensor, null: Any, filled: Any) -> Any:
    """`null` (one row) in `rows` and `filled` in the others; tokens are padded to the longer of both."""
    if isinstance(filled, Tokens):
        length = max(filled.states.shape[1], null.states.shape[1])
        null, filled = null.pad_to(length), filled.pad_to(length)
        return Tokens(_chosen(rows, null.states, filled.states), _chosen(rows, null.keep, filled.keep))
    return torch.where(rows.to(filled.device).view(-1, *[1] * (filled.ndim - 1)), null, filled)
