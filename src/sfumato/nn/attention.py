"""Attention cores: over joined streams with separate weights per role (MM-DiT; Esser et al., arXiv 2403.03206, section 4), and from one
stream to another.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ..core.attention import Attend, Group, Heads, Plan, Rotate, attend
from ..core.call import Call, Session, Site
from ..core.errors import UsageError
from ..core.program import Units
from ..core.state import State, Stream
from .linear import Linear
from .norms import RMSNorm


@dataclass(frozen=True)
class AttentionShape:
    """`width` = `heads` * head width. `qk_norm`: RMS norm of each head's q and k: bounded bf16 logits. `bias`: of q, k and v."""

    width: int
    heads: int
    qk_norm: bool = True
    bias: bool = True


class Reducer(nn.Module):
    """Keys or values of a token grid, `ratio` x `ratio` to one: depth-wise convolution, then LayerNorm (PixArt-Sigma, arXiv 2403.04692).

    One reducer serves keys and values. It starts as the average, so that a trained network keeps working ("Conv Avg").
    """

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, ratio, ratio, groups=width)
        self.norm = nn.LayerNorm(width)
        self.ratio = ratio
        nn.init.constant_(self.conv.weight, 1.0 / ratio**2)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, N, D) to (B, N / ratio^2, D). `UsageError` when the grid does not divide: a strided convolution would drop its edge."""
        if any(side % self.ratio for side in grid):
            raise UsageError(
                f"a grid of {grid[0]} x {grid[1]} tokens does not divide by {self.ratio}",
                f"sides that are multiples of {self.ratio} tokens",
            )
        tokens = self.conv(x.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
        with torch.autocast(x.device.type, enabled=False):
            return layer_norm(tokens, self.norm.normalized_shape, self.norm.weight.to(tokens), self.norm.bias.to(tokens), self.norm.eps)


class Projections(nn.Module):
    """One role's q, k, v and output Linears and its q/k norms. `output` False: read by others, gives nothing (SD3's last text stream).

    `ratio` > 1: keys and values are reduced by that much each way before they are split into heads.
    """

    def __init__(self, shape: AttentionShape, output: bool = True, ratio: int = 1) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q, self.k, self.v = (Linear(shape.width, shape.width, role, bias=shape.bias) for role in ("q", "k", "v"))
        self.out = Linear(shape.width, shape.width, "out") if output else None
        head = shape.width // shape.heads
        self.q_norm = RMSNorm(head) if shape.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head) if shape.qk_norm else nn.Identity()
        self.reduce = Reducer(shape.width, ratio) if ratio > 1 else None

    def slices(self, prefix: str) -> dict[str, tuple[int, int]]:
        """What each head owns, under the parameter names that begin with `prefix`: (dimension, entries)."""
        each = self.q.out_features // self.heads
        parts = {"q": self.q, "k": self.k, "v": self.v} | ({} if self.reduce is None else {"reduce": self.reduce})
        owned = {f"{prefix}.{part}.{name}": (0, each) for part, module in parts.items() for name, _ in module.named_parameters()}
        return owned if self.out is None else owned | {f"{prefix}.out.weight": (1, each)}

    def project(self, x: Tensor, stream: Stream, call: Call | None) -> Heads:
        q, k, v = (layer(x, call) for layer in (self.q, self.k, self.v))
        if self.reduce is not None:
            if stream.grid is None or stream.keep is not None or stream.pos is not None:
                raise UsageError("keys and values are reduced on a whole grid of tokens", "a stream with a grid, without mask or positions")
            k, v = self.reduce(k, stream.grid).to(v.dtype), self.reduce(v, stream.grid).to(v.dtype)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        # Norms may come back in fp32 under autocast; attention wants one type.
        return Heads(self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v, stream.keep, stream.pos, stream.grid)


# The role of projections that serve every stream without projections of its own (FLUX's single-stream blocks).
ANY = "any"


class JointAttention(nn.Module):
    """Every stream's queries against the joined keys and values of all streams. A stream's role picks its projections, or those of `ANY`.

    `rotate`: the family's rotary embedding of q and k; this evaluation's own rates, where it has any, are `State.cond["rates"]`.
    """

    def __init__(
        self,
        shape: AttentionShape,
        roles: tuple[str, ...],
        silent: frozenset[str] = frozenset(),
        ratio: int = 1,
        rotate: Rotate | None = None,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleDict({r: Projections(shape, r not in silent, ratio) for r in roles})
        self.rotate = rotate

    def forward(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        streams, own = state.streams, {n: self._of(state.streams[n].role or n) for n in inputs}
        heads = {n: own[n].project(x, streams[n], call) for n, x in inputs.items()}
        mixed = _hooks(partial(attend, rotate=turning(self.rotate, state)), site, call)(heads, None)
        outputs: dict[str, Tensor] = {}
        for name, x in mixed.items():
            if (out := own[name].out) is not None:
                outputs[name] = out(x.transpose(1, 2).flatten(2), call)
        return outputs

    def units(self, prefix: str) -> Units:
        """Heads and what they own, under the parameter names that begin with `prefix`; a head owns its part of every role's."""
        roles = {role: self._of(role) for role in self.projections}
        owned = [own.slices(f"{prefix}.projections.{role}") for role, own in roles.items()]
        return Units("heads", next(iter(roles.values())).heads, dict(ChainMap(*owned)))

    def _of(self, role: str) -> Projections:
        projections = self.projections[role if role in self.projections else ANY]
        assert isinstance(projections, Projections)
        return projections


class CrossAttention(nn.Module):
    """One stream's queries against another stream's keys and values, `source`, which is read as it is and not changed.

    A row whose source keeps no token (a dropped prompt) gets zeros.
    """

    def __init__(self, shape: AttentionShape, source: str, source_width: int) -> None:
        super().__init__()
        self.heads, self.source = shape.heads, source
        self.q = Linear(shape.width, shape.width, "q")
        self.k = Linear(source_width, shape.width, "k")
        self.v = Linear(source_width, shape.width, "v")
        self.out = Linear(shape.width, shape.width, "out")

    def units(self, prefix: str) -> Units:
        """Heads and what they own, under the parameter names that begin with `prefix`."""
        each = self.q.out_features // self.heads
        owned = {f"{prefix}.{part}.{kind}": (0, each) for part in ("q", "k", "v") for kind in ("weight", "bias")}
        return Units("heads", self.heads, owned | {f"{prefix}.out.weight": (1, each)})

    def forward(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        source = state.streams[self.source]
        split = partial(_split, heads=self.heads)
        k, v = split(self.k(source.x, call)), split(self.v(source.x, call))
        nothing = k[:, :, :0]
        heads = {
            n: Heads(split(self.q(x, call)).to(v.dtype), nothing, nothing, pos=state.streams[n].pos, grid=state.streams[n].grid)
            for n, x in inputs.items()
        }
        heads[self.source] = Heads(nothing, k, v, source.keep, source.pos)
        plan = {n: (Group((self.source,)),) for n in inputs}
        mixed = _hooks(partial(_planned, plan), site, call)(heads, plan)
        return {n: self.out(_heard(mixed[n], source.keep).transpose(1, 2).flatten(2), call) for n in inputs}


def turning(rotate: Rotate | None, state: State) -> Rotate | None:
    """`rotate` with the rates of this evaluation, where it has its own: a larger picture's depend on its size and t (`nn/rope.py`)."""
    rates = state.cond.get("rates")
    return rotate if rotate is None or rates is None else partial(rotate, rates=rates)


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _planned(default: Plan, heads: Mapping[str, Heads], plan: Plan | None) -> Mapping[str, Tensor]:
    return attend(heads, default if plan is None else plan)


def _heard(mixed: Tensor, keep: Tensor | None) -> Tensor:
    """A softmax over no keys is no number."""
    return mixed if keep is None else mixed.masked_fill(~keep.any(1)[:, None, None, None], 0.0)


def _hooks(compute: Attend, site: Site, call: Call | None) -> Attend:
    """`compute` inside the attention hooks of every session at this site."""
    if call is not None:
        for session in call.hooked("attention", site.block):
            compute = partial(_hooked, session, site, compute, call)
    return compute


def _hooked(session: Session, site: Site, inner: Attend, call: Call, heads: Mapping[str, Heads], plan: Plan | None) -> Mapping[str, Tensor]:
    # An outer session that already chose a plan passes it inwards; the innermost session sees the plan through `inner`.
    return session.attention(site, heads, lambda h, p: inner(h, p if p is not None else plan), call)
