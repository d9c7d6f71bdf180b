"""LoRAs written for others to read: diffusers' naming, what ours holds apart joined as their modules hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..backbones.checkpoints import Rule
from ..core.errors import UsageError
from ..core.files import refuse_overwrite, write_tensors
from ..core.program import Network
from ..nn.linear import Linear
from .lora import Delta, Lora, check_fit
from .lora_names import Names, weight_of


def save_lora(lora: Lora, net: Network, path: str | Path, overwrite: bool = False) -> Path:
    """Write `lora` as a safetensors file in diffusers' naming (in our own names for a family that diffusers lacks), what it changes in text
    encoders under their folders' names. Returns the path.

    Weight and alpha / rank are folded into B: a reader that overlooks an alpha still draws what `lora` draws here.
    Raises `OutputError` when the file exists, `UsageError` for weights by row, `WeightsError` when `lora` is another network's.
    """
    if isinstance(lora.weight, tuple):
        raise UsageError("a LoRA with a weight for each row cannot be saved", "save with one: lora.at(1.0)")
    path, names = Path(path), Names(net)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is no .safetensors file", f"{path.with_suffix('.safetensors')}")
    refuse_overwrite(path, overwrite)
    check_fit(lora, names.linears)
    folded = {n: replace(d, up=_scaled(d.up, d.scale * lora.weight)) for n, d in lora.to("cpu").deltas.items()}
    tensors: dict[str, Tensor] = {}
    for rule in names.writing():
        ours = names.ours(rule) or ()
        if not any(n in folded for n in ours):
            continue
        like = next(folded[n].up for n in ours if n in folded)
        parts = [folded.get(n) or _nothing(names.linears[n], like) for n in ours]
        down, up = _joined(rule, parts)
        tensors |= {f"{names.component}.{weight_of(rule.theirs)}.lora_{part}.weight": x for part, x in (("A", down), ("B", up))}
    for folder, deltas in lora.to("cpu").texts.items():
        for name, delta in deltas.items():
            stem, up = f"{folder}.{name}", _scaled(delta.up, delta.scale * lora.weight)
            tensors |= {f"{stem}.lora_A.weight": delta.down.detach(), f"{stem}.lora_B.weight": up}
    write_tensors(path, tensors)
    return path


def _joined(rule: Rule, parts: Sequence[Delta]) -> tuple[Tensor, Tensor]:
    """(A, B) of their module from our Linears' changes, scales folded in; for a 1 x 1 convolution, two of them. The inverse of `_split`
    where all share a matrix; else the ranks add up and each part keeps to columns of its own.
    """
    own, shared = ([getattr(p, side) for p in parts] for side in (("up", "down") if rule.dim == 0 else ("down", "up")))
    if any(x.shape != shared[0].shape or not torch.equal(x, shared[0]) for x in shared):
        ends = [sum(p.rank for p in parts[: i + 1]) for i in range(len(parts))]
        own = [_placed(x, end, ends[-1], 1 - rule.dim) for x, end in zip(own, ends, strict=True)]
        common = torch.cat(shared, dim=rule.dim)
    else:
        common = shared[0]
    joined = rule.join(tuple(own))
    if rule.pointwise:
        common = common[..., None, None]
    return (common, joined) if rule.dim == 0 else (joined, common)


def _placed(x: Tensor, end: int, total: int, dim: int) -> Tensor:
    """`x` ending at `end` of `total` along `dim`, zeros elsewhere."""
    shape = list(x.shape)
    shape[dim] = total
    placed = x.new_zeros(shape)
    placed.narrow(dim, end - x.shape[dim], x.shape[dim]).copy_(x)
    return placed


def _scaled(up: Tensor, factor: float) -> Tensor:
    """B times a number, in its own type where that is exact (a power of two, mostly) and in fp32 where it would be rounded."""
    exact = up.detach().double() * factor
    own = exact.to(up.dtype)
    return own if torch.equal(own.double(), exact) else exact.float()


def _nothing(linear: Linear, like: Tensor) -> Delta:
    """A change of rank 0."""
    return Delta(like.new_zeros(0, linear.in_features), like.new_zeros(linear.out_features, 0), 0.0)
