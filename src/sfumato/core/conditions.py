"""Conditioning: named slots of what a picture should be like. Every slot owns its dropout and its null form, saved with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from .errors import ConfigError


@dataclass(frozen=True)
class Tokens:
    """Token states (B, N, D) with keep (B, N), True = a real token. States at padding are zero."""

    states: Tensor
    keep: Tensor

    def silenced(self, dtype: torch.dtype) -> Tensor:
        """The states (B, N, D) in `dtype`, zero at padding: finite whatever was there, so that masked keys contribute exactly nothing."""
        return self.states.to(dtype).masked_fill(~self.keep[..., None], 0.0)

    def pad_to(self, length: int) -> Tokens:
        """The same tokens, padded on the right to `length`."""
        missing = length - self.states.shape[1]
        if missing <= 0:
            return self
        pad = torch.nn.functional.pad
        return Tokens(pad(self.states, (0, 0, 0, missing)), pad(self.keep, (0, missing), value=False))


@dataclass(frozen=True)
class Conditions:
    """All slots of a batch. tokens: text-like sequences.   vectors: (B, D), pooled text, say.   scalars: (B,), sizes and crops.

    spatial: (B, C, h, w), channels beside the latents.   images: (B, N, D) image embeddings. Time is never in here.
    """

    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    spatial: Mapping[str, Tensor] = field(default_factory=dict)
    images: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Every filled slot."""
        return frozenset().union(self.tokens, self.vectors, self.scalars, self.spatial, self.images)

    def to(self, device: torch.device | str) -> Conditions:
        return Conditions(
            {n: Tokens(v.states.to(device), v.keep.to(device)) for n, v in self.tokens.items()},
            *({n: v.to(device) for n, v in slot.items()} for slot in (self.vectors, self.scalars, self.spatial, self.images)),
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

    kinds = ("vectors", "scalars", "spatial", "images")
    for kind in ("tokens", *kinds):
        filled = {frozenset(getattr(p, kind)) for p in parts}
        if len(filled) > 1:
            raise ConfigError(f"rows fill different {kind} slots: {', '.join(str(sorted(f)) for f in filled)}")
    return Conditions(
        {name: joined(name) for name in parts[0].tokens},
        *({name: torch.cat([getattr(p, kind)[name] for p in parts]) for name in getattr(parts[0], kind)} for kind in kinds),
    )


@dataclass(frozen=True)
class Slot:
    """What a model knows of one slot: its name, how often training drops it, and what stands in when it is absent.

    null "zeros": zero states, every token masked away.   null "empty": the encoder's states of the empty prompt.
    Slots of one `group` are dropped together.
    """

    name: str
    dropout: float = 0.1
    null: Literal["zeros", "empty"] = "zeros"
    group: str = "text"


def nulled(cond: Conditions, slots: Sequence[Slot], dropped: Mapping[str, Tensor], empty: Conditions | None = None) -> Conditions:
    """`cond` with the rows of `dropped[group]` (B,) bool replaced by each slot's null form. `empty`: one row, for null "empty"."""
    tokens, vectors, scalars = dict(cond.tokens), dict(cond.vectors), dict(cond.scalars)
    for slot in slots:
        rows = dropped.get(slot.group)
        if rows is None:
            continue
        if slot.null == "empty" and empty is None:
            raise ConfigError(f"slot {slot.name!r} has the null form 'empty'", "pass the empty prompt's conditions")
        if slot.name in tokens:
            filled = tokens[slot.name]
            absent = empty.tokens[slot.name] if slot.null == "empty" and empty else None
            if absent:
                length = max(filled.states.shape[1], absent.states.shape[1])
                filled, absent = filled.pad_to(length), absent.pad_to(length)
            states = absent.states if absent else torch.zeros_like(filled.states[:1])
            keep = absent.keep if absent else torch.zeros_like(filled.keep[:1])
            tokens[slot.name] = Tokens(
                torch.where(rows[:, None, None], states, filled.states), torch.where(rows[:, None], keep, filled.keep)
            )
        if slot.name in vectors:
            vector = vectors[slot.name]
            instead = empty.vectors[slot.name] if slot.null == "empty" and empty else torch.zeros_like(vector[:1])
            vectors[slot.name] = torch.where(rows[:, None], instead, vector)
        if slot.name in scalars:
            scalar = scalars[slot.name]
            scalars[slot.name] = torch.where(
                rows, empty.scalars[slot.name] if slot.null == "empty" and empty else torch.zeros_like(scalar[:1]), scalar
            )
    return replace(cond, tokens=tokens, vectors=vectors, scalars=scalars)
