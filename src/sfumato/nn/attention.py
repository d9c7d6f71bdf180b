"""Attention cores: over joined streams with separate weights per role (MM-DiT; Esser et al., arXiv 2403.03206, section 4), from one stream
to another, and both at once.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..core.attention import Attend, Group, Heads, Plan, Rotate, attend, linear_attend
from ..core.blocks import Units
from ..core.call import Call, Session, Site
from ..core.state import Pair, State
from .linear import Linear
from .projections import AttentionShape, Projections, by_weights

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
        first = next(iter(roles.values()))
        # Reduced keys pass a norm over all of them.
        coupled = first.shape.coupled or first.reduce is not None
        return Units("heads", first.shape.groups, dict(ChainMap(*owned)), coupled=coupled)

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
        return Units("heads", self.shape.groups, owned | {f"{prefix}.out.weight": (1, each)}, coupled=self.shape.coupled)

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
        return Units("heads", shape.groups, self.own.slices(f"{prefix}.own") | owned, coupled=shape.coupled)

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
