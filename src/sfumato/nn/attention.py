"""Attention cores: over joined streams with separate weights per role (MM-DiT; Esser et al., arXiv 2403.03206, section 4), from one stream
to another, and both at once.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ..core.attention import Attend, Group, Heads, Plan, Rotate, attend, linear_attend
from ..core.call import Call, Session, Site
from ..core.errors import ConfigError, UsageError
from ..core.program import Units
from ..core.state import Pair, State, Stream
from .grids import plane, tokens
from .linear import Linear
from .norms import LayerNorm, RMSNorm


@dataclass(frozen=True)
class AttentionShape:
    """`width` = `heads` * head width. `qk_norm`: q and k are normalised, for bounded bf16 logits. `bias`: of q, k, v; `out_bias`: of out.

    norm: "rms" of each head; "rms across" and "layer across" of all heads at once, before they are split, "bare layer across" without gain
    and shift.   kv_heads: of keys and values, each serving heads / kv_heads queries (grouped queries; Ainslie et al., arXiv 2305.13245);
    0 = heads.   eps: of the norms.   outer: width of the tokens that queries come from and the output returns to; 0 = width.
    """

    width: int
    heads: int
    qk_norm: bool = True
    bias: bool = True
    norm: Literal["rms", "rms across", "layer across", "bare layer across"] = "rms"
    kv_heads: int = 0
    out_bias: bool = True
    eps: float = 1e-6
    outer: int = 0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.groups:
            raise ConfigError(
                f"width is {self.width}, heads {self.heads}, kv_heads {self.kv_heads}", "the width divides into heads, heads into kv_heads"
            )

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def kv_width(self) -> int:
        return self.groups * self.width // self.heads

    @property
    def width_in(self) -> int:
        """Of the tokens that queries come from."""
        return self.outer or self.width

    def cost(self, queries: int, keys: int) -> int:
        """Multiply-adds of one softmax, projections not counted."""
        return 2 * queries * keys * self.width

    @property
    def projecting(self) -> int:
        """Multiply-adds of a token's q, k, v and output."""
        return 2 * self.width_in * (self.width + self.kv_width)

    def normed(self, width: int) -> nn.Module:
        """The norm of a q or k that is `width` wide before it is split."""
        if not self.qk_norm:
            return nn.Identity()
        if self.norm == "rms":
            return RMSNorm(self.width // self.heads, self.eps)
        across = {"rms across": RMSNorm, "layer across": nn.LayerNorm, "bare layer across": LayerNorm}
        return across[self.norm](width, self.eps)

    def split(self, x: Tensor, norm: nn.Module | None = None, repeat: bool = False) -> Tensor:
        """(B, N, heads d) to (B, heads, N, d), normed. `repeat`: keys or values, of which a head comes once for each query that it serves.

        Heads are counted, not assumed: a surgery may have removed some.
        """
        if norm is not None and self.norm != "rms":
            x = norm(x).to(x.dtype)
        heads = x.unflatten(-1, (-1, self.width // self.heads)).transpose(1, 2)
        if norm is not None and self.norm == "rms":
            heads = norm(heads).to(x.dtype)  # norms may come back in fp32 under autocast; attention wants one type
        return heads.repeat_interleave(self.heads // self.groups, dim=1) if repeat and self.groups < self.heads else heads


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
        y = tokens(self.conv(plane(x, grid)))
        with torch.autocast(x.device.type, enabled=False):
            return layer_norm(y, self.norm.normalized_shape, self.norm.weight.to(y), self.norm.bias.to(y), self.norm.eps)


class Projections(nn.Module):
    """One role's q, k, v and output Linears and its q/k norms. `output` False: read by others, gives nothing (SD3's last text stream).

    `ratio` > 1: keys and values are reduced by that much each way before they are split into heads.
    """

    def __init__(self, shape: AttentionShape, output: bool = True, ratio: int = 1) -> None:
        super().__init__()
        self.shape = shape
        self.q = Linear(shape.width_in, shape.width, "q", bias=shape.bias)
        self.k, self.v = (Linear(shape.width_in, shape.kv_width, role, bias=shape.bias) for role in ("k", "v"))
        self.out = Linear(shape.width, shape.width_in, "out", bias=shape.out_bias) if output else None
        self.q_norm, self.k_norm = shape.normed(shape.width), shape.normed(shape.kv_width)
        self.reduce = Reducer(shape.width, ratio) if ratio > 1 else None

    def slices(self, prefix: str) -> dict[str, tuple[int, int]]:
        """What each unit owns, under the parameter names that begin with `prefix`: (dimension, entries). A unit is a head of keys and
        values with its queries; an "rms" norm serves all of them.
        """
        shared = ("out",) if self.shape.norm != "rms" else ("out", "q_norm", "k_norm")
        owned = {
            f"{prefix}.{name}": (0, len(parameter) // self.shape.groups)
            for name, parameter in self.named_parameters()
            if name.split(".")[0] not in shared
        }
        return owned if self.out is None else owned | {f"{prefix}.out.weight": (1, self.shape.width // self.shape.groups)}

    def project(self, x: Tensor, stream: Stream, call: Call | None) -> Heads:
        """x (B, N, D) as heads."""
        return self.split(self.q(x, call), self.k(x, call), self.v(x, call), stream)

    def written(self, x: Tensor, call: Call | None) -> Tensor:
        """What was heard, (B, N, heads d), as tokens (B, N, D)."""
        assert self.out is not None
        y: Tensor = self.out(x, call)
        return y

    def split(self, q: Tensor, k: Tensor, v: Tensor, stream: Stream) -> Heads:
        """Heads of what was projected from `stream`."""
        if self.reduce is not None:
            if stream.whole_grid is None or stream.keep is not None or stream.pos is not None:
                raise UsageError("keys and values are reduced on a whole grid of tokens", "a stream with a grid, without mask or positions")
            k, v = self.reduce(k, stream.whole_grid).to(v.dtype), self.reduce(v, stream.whole_grid).to(v.dtype)
        split = self.shape.split
        return Heads(split(q, self.q_norm), split(k, self.k_norm, True), split(v, repeat=True), stream.keep, stream.pos, stream.whole_grid)


Weights = TypeVar("Weights", bound=nn.Module)


def by_weights(
    own: Mapping[str, Weights], inputs: Mapping[str, Tensor], compute: Callable[[Weights, Tensor], Sequence[Tensor]]
) -> dict[str, tuple[Tensor, ...]]:
    """`compute(own[n], x)` of every stream's tokens x (B, N, D). Streams under the same weights are one product, which reads those once."""
    sharing: dict[Weights, list[str]] = {}
    for name in inputs:
        sharing.setdefault(own[name], []).append(name)
    found: dict[str, tuple[Tensor, ...]] = {}
    for weights, names in sharing.items():
        joined = inputs[names[0]] if len(names) == 1 else torch.cat([inputs[n] for n in names], dim=1)
        lengths = [inputs[n].shape[1] for n in names]
        parts = (y.split(lengths, dim=1) for y in compute(weights, joined))
        found |= zip(names, zip(*parts, strict=True), strict=True)
    return {n: found[n] for n in inputs}


# The role of projections that serve every stream without projections of its own (FLUX's single-stream blocks).
ANY = "any"


class JointAttention(nn.Module):
    """Every stream's queries against the joined keys and values of all streams. A stream's role picks its projections, or those of `ANY`.

    `silent`: roles that are read and get no output, so that they need no queries.   `rotate`: the rotary embedding of q and k; this
    evaluation's own rates, where it has any, are `State.cond["rates"]`.
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
        self.silent, self.rotate = silent, rotate

    def forward(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        own = {n: self._of(state.role(n)) for n in inputs}
        heard = [n for n in inputs if state.role(n) not in self.silent]
        # A policy that makes plans finds every stream's queries; one that only looks finds what is computed without it.
        planned = call is not None and not all(s.footprint.observes for s in call.hooked("attention", site.block))
        asking = {n: x if planned or n in heard else x[:, :0] for n, x in inputs.items()}
        queries = by_weights(own, asking, lambda its, x: (its.q(x, call),))
        heads: dict[str, Heads] = {}
        for name, (k, v) in by_weights(own, inputs, lambda its, x: (its.k(x, call), its.v(x, call))).items():
            (q,) = queries[name]
            heads[name] = own[name].split(q, k, v, state.streams[name])
        mixed = _hooks(self.mixing(state, inputs), site, call)(heads, None)
        out = by_weights(own, {n: mixed[n].transpose(1, 2).flatten(2) for n in heard}, lambda its, x: (its.written(x, call),))
        return {n: x for n, (x,) in out.items()}

    def mixing(self, state: State, inputs: Mapping[str, Tensor]) -> Attend:
        """What mixes the heads' values; `inputs`: what the heads were projected from."""
        return partial(attend, rotate=turning(self.rotate, state))

    def units(self, prefix: str) -> Units:
        """Heads and what they own, under the parameter names that begin with `prefix`; a head owns its part of every role's."""
        roles = {role: self._of(role) for role in self.projections}
        owned = [own.slices(f"{prefix}.projections.{role}") for role, own in roles.items()]
        return Units("heads", next(iter(roles.values())).shape.groups, dict(ChainMap(*owned)))

    def cost(self, tokens: Mapping[str, int], streams: tuple[str, ...]) -> int:
        """Multiply-adds a row where `streams` attend to one another."""
        own, total = self._of(streams[0]), sum(tokens.get(s, 0) for s in streams)
        ratio = 1 if own.reduce is None else own.reduce.ratio
        reducing = 2 * total * own.shape.kv_width if ratio > 1 else 0
        silent = sum(tokens.get(s, 0) for s in self.silent & set(streams))
        unasked = 2 * silent * own.shape.width * own.shape.width_in  # neither queries nor an output
        return total * own.shape.projecting - unasked + own.shape.cost(total - silent, total // ratio**2) + reducing

    def _of(self, role: str) -> Projections:
        projections = self.projections[role if role in self.projections else ANY]
        assert isinstance(projections, Projections)
        return projections


class LinearAttention(JointAttention):
    """`JointAttention` at a cost that grows with the tokens rather than their square (`core.attention.linear_attend`)."""

    def mixing(self, state: State, inputs: Mapping[str, Tensor]) -> Attend:
        return linear_attend

    def cost(self, tokens: Mapping[str, int], streams: tuple[str, ...]) -> int:
        """Multiply-adds a row where `streams` attend to one another."""
        shape, total = self._of(streams[0]).shape, sum(tokens.get(s, 0) for s in streams)
        each = shape.width // shape.heads
        return total * (shape.projecting + 2 * shape.width * (each + 1))


class CrossAttention(nn.Module):
    """One stream's queries against another stream's keys and values, `source`, which is read as it is and not changed."""

    def __init__(self, shape: AttentionShape, source: str, source_width: int) -> None:
        super().__init__()
        self.shape, self.source = shape, source
        self.q = Linear(shape.width_in, shape.width, "q", bias=shape.bias)
        self.k = Linear(source_width, shape.kv_width, "k", bias=shape.bias)
        self.v = Linear(source_width, shape.kv_width, "v", bias=shape.bias)
        self.out = Linear(shape.width, shape.width_in, "out", bias=shape.out_bias)
        self.q_norm, self.k_norm = shape.normed(shape.width), shape.normed(shape.kv_width)

    def units(self, prefix: str) -> Units:
        """Heads and what they own, under the parameter names that begin with `prefix`."""
        each, parts = self.shape.width // self.shape.groups, ("q", "k", "v")
        owned = {
            f"{prefix}.{name}": (0, len(parameter) // self.shape.groups)
            for name, parameter in self.named_parameters()
            if name.split(".")[0] in (parts if self.shape.norm == "rms" else (*parts, "q_norm", "k_norm"))
        }
        return Units("heads", self.shape.groups, owned | {f"{prefix}.out.weight": (1, each)})

    def cost(self, tokens: Mapping[str, int], streams: tuple[str, ...]) -> int:
        """Multiply-adds a row where `streams` read the source."""
        shape, queries, keys = self.shape, sum(tokens[s] for s in streams), tokens[self.source]
        return 2 * queries * shape.width * shape.width_in + 2 * keys * self.k.in_features * shape.kv_width + shape.cost(queries, keys)

    def heard(self, source: Tensor, call: Call | None = None) -> Pair:
        """Keys and values of `source` (B, N, D)."""
        split = self.shape.split
        return split(self.k(source, call), self.k_norm, True), split(self.v(source, call), repeat=True)

    def forward(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        source, split = state.streams[self.source], self.shape.split
        k, v = state.stored.get(site.branch) or self.heard(source.x, call)
        nothing = k[:, :, :0]
        heads = {
            n: Heads(
                split(self.q(x, call), self.q_norm).to(v.dtype),
                nothing,
                nothing,
                pos=state.streams[n].pos,
                grid=state.streams[n].whole_grid,
            )
            for n, x in inputs.items()
        }
        heads[self.source] = Heads(nothing, k, v, source.keep, source.pos)
        plan = {n: (Group((self.source,)),) for n in inputs}
        mixed = _hooks(partial(_planned, plan, None), site, call)(heads, None)
        return {n: self.out(mixed[n].transpose(1, 2).flatten(2), call) for n in inputs}


class PrefixAttention(nn.Module):
    """One stream attends to itself and to `source` in one softmax, the source's keys and values by Linears of its own (the attention of
    guided-diffusion's U-Net, arXiv 2105.05233, as Kandinsky has it).
    """

    def __init__(self, shape: AttentionShape, stream: str, source: str, source_width: int, rotate: Rotate | None = None) -> None:
        super().__init__()
        self.stream, self.source, self.rotate = stream, source, rotate
        self.own = Projections(shape)
        self.k = Linear(source_width, shape.kv_width, "k", bias=shape.bias)
        self.v = Linear(source_width, shape.kv_width, "v", bias=shape.bias)
        self.k_norm = shape.normed(shape.kv_width)

    def plan(self) -> Plan:
        """What is read."""
        return {self.stream: (Group((self.source, self.stream)),)}

    def units(self, prefix: str) -> Units:
        """Heads and what they own, under the parameter names that begin with `prefix`."""
        shape = self.own.shape
        source = {n: p for n, p in self.named_parameters() if n.split(".")[0] != "own"}
        owned = {f"{prefix}.{n}": (0, len(p) // shape.groups) for n, p in source.items() if shape.norm != "rms" or "norm" not in n}
        return Units("heads", shape.groups, self.own.slices(f"{prefix}.own") | owned)

    def cost(self, tokens: Mapping[str, int], streams: tuple[str, ...]) -> int:
        """Multiply-adds a row."""
        shape, queries, keys = self.own.shape, tokens[self.stream], tokens[self.source]
        words = 2 * keys * self.k.in_features * shape.kv_width
        return queries * shape.projecting + words + shape.cost(queries, queries + keys)

    def heard(self, source: Tensor, call: Call | None = None) -> Pair:
        """Keys and values of `source` (B, N, D)."""
        split = self.own.shape.split
        return split(self.k(source, call), self.k_norm, True), split(self.v(source, call), repeat=True)

    def forward(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        own = self.own.project(inputs[self.stream], state.streams[self.stream], call)
        k, v = state.stored.get(site.branch) or self.heard(inputs[self.source], call)
        heads = {self.stream: own, self.source: Heads(k[:, :, :0], k, v, state.streams[self.source].keep)}
        mixed = _hooks(partial(_planned, self.plan(), turning(self.rotate, state)), site, call)(heads, None)
        assert self.own.out is not None
        return {self.stream: self.own.out(mixed[self.stream].transpose(1, 2).flatten(2), call)}


class GatedAttention(PrefixAttention):
    """The source is heard by a softmax of its own, behind a gate a head (Lumina-T2X, arXiv 2405.05945).

    x -> Out(A(q, k, v) + tanh(g) A(q, k_y, v_y)): one q, which turns; k_y, which does not. The gate starts at 0: the source is not heard.
    """

    def __init__(self, shape: AttentionShape, stream: str, source: str, source_width: int, rotate: Rotate) -> None:
        super().__init__(shape, stream, source, source_width, rotate)
        self.gate = nn.Parameter(torch.zeros(shape.heads))

    def heard(self, source: Tensor, call: Call | None = None) -> Pair:
        # The gate is in the values, in which attention is linear, and not in the plan: a policy with a plan of its own keeps it.
        k, v = super().heard(source, call)
        return k, v * self.gate.tanh()[:, None, None].to(v.dtype)

    def plan(self) -> Plan:
        return {self.stream: (Group((self.stream,)), Group((self.source,)))}


def turning(rotate: Rotate | None, state: State) -> Rotate | None:
    """`rotate` with the rates of this evaluation, where it has its own: a larger picture's depend on its size and t (`nn/rope.py`)."""
    rates = state.cond.get("rates")
    return rotate if rotate is None or rates is None else partial(rotate, rates=rates)


def _planned(default: Plan, rotate: Rotate | None, heads: Mapping[str, Heads], plan: Plan | None) -> Mapping[str, Tensor]:
    return attend(heads, default if plan is None else plan, rotate)


def _hooks(compute: Attend, site: Site, call: Call | None) -> Attend:
    """`compute` inside the attention hooks of every session at this site."""
    if call is not None:
        for session in call.hooked("attention", site.block):
            compute = partial(_hooked, session, site, compute, call)
    return compute


def _hooked(session: Session, site: Site, inner: Attend, call: Call, heads: Mapping[str, Heads], plan: Plan | None) -> Mapping[str, Tensor]:
    # An outer session that already chose a plan passes it inwards; the innermost session sees the plan through `inner`.
    return session.attention(site, heads, lambda h, p: inner(h, p if p is not None else plan), call)
