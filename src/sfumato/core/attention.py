"""The attention contract: per-stream heads, and the sum of weighted groups each stream's output is made of.

output[stream] = sum over its groups g of  weight_g * softmax(q K_g^T / sqrt(d), mask_g) V_g,   K_g, V_g = the group's sources joined.
Sources are streams or stored keys and values. Masks (True = attend) and padding are combined by AND; a query that they leave no key gets
zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .errors import ConflictError


@dataclass(frozen=True)
class Heads:
    """q, k, v: (B, H, N, d).   keep: (B, N), True = a real key.   pos: (B | 1, N, A) coordinates, rotated by the core.

    grid: token rows and columns of a picture-like stream.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    keep: Tensor | None = None
    pos: Tensor | None = None
    grid: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Stored:
    """Keys and values (B, H, M, d) from elsewhere: a bank, a reference lane, a reduced set. As in Heads, k comes before rotation and the
    core rotates it by `pos` (B | 1, M, A): what one lane saw in the attention hook serves in another as it is.
    """

    k: Tensor
    v: Tensor
    keep: Tensor | None = None
    pos: Tensor | None = None


@dataclass(frozen=True)
class Group:
    """One softmax. sources: stream names or Stored, joined in order.   mask: broadcastable to (B, H, Nq, Nk), True = attend.
    weight: a number or a tensor broadcastable to (B, H, Nq, d).
    """

    sources: tuple[str | Stored, ...]
    mask: Tensor | None = None
    weight: float | Tensor = 1.0


Plan = Mapping[str, Sequence[Group]]


class Attend(Protocol):
    """Computes attention from heads by a plan; `None` = every stream attends every stream."""

    def __call__(self, heads: Mapping[str, Heads], plan: Plan | None) -> Mapping[str, Tensor]: ...


Rotate = Callable[..., Tensor]  # (x, pos), and `rates` where an evaluation has its own


def attend(heads: Mapping[str, Heads], plan: Plan | None, rotate: Rotate | None = None) -> dict[str, Tensor]:
    """(B, H, N, d) by stream. Without a plan: one softmax over the joined sequence, the fast path.

    `rotate(x, pos)`: the family's rotary embedding of q and k (B, H, N, d), which a family with one binds; None = no rotation.
    """
    if rotate is not None:
        heads = {n: replace(h, q=_rotated(h.q, h.pos, rotate), k=_rotated(h.k, h.pos, rotate)) for n, h in heads.items()}
    if plan is None:
        return _joint(heads)
    return {name: _grouped(heads, heads[name].q, groups, rotate) for name, groups in plan.items()}


def _rotated(x: Tensor, pos: Tensor | None, rotate: Rotate | None) -> Tensor:
    # A stream that is only read has positions and no queries.
    return x if rotate is None or pos is None or not x.shape[2] else rotate(x, pos)


def _joint(heads: Mapping[str, Heads]) -> dict[str, Tensor]:
    streams = list(heads.values())
    out = _over(torch.cat([s.q for s in streams], dim=2), streams, None)
    return dict(zip(heads, out.split([s.q.shape[2] for s in streams], dim=2), strict=True))


def _grouped(heads: Mapping[str, Heads], q: Tensor, groups: Sequence[Group], rotate: Rotate | None) -> Tensor:
    total: Tensor | None = None
    for group in groups:
        sources = [heads[s] if isinstance(s, str) else replace(s, k=_rotated(s.k, s.pos, rotate)) for s in group.sources]
        out = _over(q, sources, group.mask) * group.weight
        total = out if total is None else total + out
    if total is None:
        raise ValueError("a stream's plan needs at least one group")
    return total


def _over(q: Tensor, sources: Sequence[Heads | Stored], mask: Tensor | None) -> Tensor:
    """One softmax over the joined sources."""
    k, v = torch.cat([s.k for s in sources], dim=2), torch.cat([s.v for s in sources], dim=2)
    padding = _padding([(s.k, s.keep) for s in sources])
    whole = mask is None and any(s.keep is None for s in sources)
    mask = padding if mask is None else mask if padding is None else mask & padding
    if mask is None or whole:
        return _softmax(q, k, v, mask)
    # A softmax over no keys (a dropped text that attends to itself) is no number, and neither is its gradient: such a query attends to
    # everything instead, and what it heard is not used.
    heard = mask.any(-1, keepdim=True)
    return _softmax(q, k, v, mask | ~heard).masked_fill(~heard, 0.0)


def linear_attend(heads: Mapping[str, Heads], plan: Plan | None, floor: float = 0.0) -> dict[str, Tensor]:
    """(B, H, N, d) by stream of all streams joined: q (sum_j k_j v_j^T) / (q . sum_j k_j), q and k made positive by ReLU, to which `floor`
    is added (Katharopoulos et al., arXiv 2006.16236). Its cost grows with N, not N^2. In fp32 at least: the sums overflow half precision.

    Raises `ConflictError` for a plan, whose groups and masks need the scores that are never formed.
    """
    if plan is not None:
        raise ConflictError("linear attention forms no scores, so it cannot follow a plan", "plans need a network with softmax attention")
    first = next(iter(heads.values())).q
    dtype = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        keys = [
            h.k.to(dtype).relu() + floor if h.keep is None else (h.k.to(dtype).relu() + floor) * h.keep[:, None, :, None]
            for h in heads.values()
        ]
        k, v = torch.cat(keys, dim=2), torch.cat([h.v.to(dtype) for h in heads.values()], dim=2)
        total, mass = k.transpose(-1, -2) @ v, k.sum(2, keepdim=True).transpose(-1, -2)
        queries = {n: h.q.to(dtype).relu() + floor for n, h in heads.items()}
        # Without a floor, Sana's guard against a query that is nowhere positive.
        guard = 0.0 if floor else 1e-15
        return {n: ((q @ total) / (q @ mass + guard)).to(heads[n].v.dtype) for n, q in queries.items()}


# Below this many scores per head, torch's fused kernel on a CPU spends more on its backward pass than the scores themselves cost:
# at 80 tokens it takes three times as long, forward and backward, as these few lines (benchmarks/attention.py).
_SMALL = 256 * 256


def _softmax(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d), mask) v, (B, H, Nq, d)."""
    small = q.device.type == "cpu" and q.requires_grad and q.shape[2] * k.shape[2] <= _SMALL
    if not small:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    batch, heads, count, width = q.shape
    scores = q.new_zeros(()) if mask is None else torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    bias = scores.expand(batch, heads, count, k.shape[2]).reshape(batch * heads, count, -1)
    logits = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=width**-0.5)
    return (logits.softmax(-1).to(v.dtype) @ v.flatten(0, 1)).view(batch, heads, count, width)


def _padding(sources: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """(B, 1, 1, Nk) True = attend; None when no source has padding."""
    if all(keep is None for _, keep in sources):
        return None
    rows = [torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device) if keep is None else keep for k, keep in sources]
    return torch.cat(rows, dim=1)[:, None, None, :]
