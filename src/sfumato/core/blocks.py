"""What a program is made of: blocks, which are groups of branches with residual sums, and rewires, which move tokens and streams.

A branch is a site: policies act around its core, surgery counts and cuts its units, costs are told by site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from .call import Call, Core, Session, Site
from .errors import UnknownNameError
from .state import Pair, State, Stream


@dataclass(frozen=True)
class Units:
    """Parts of a site (heads, hidden channels) and the parameters they own.

    count: how many.   slices: parameter name -> (dimension, entries per unit); unit i owns `[i * n, (i + 1) * n)` of that dimension.
    whole: of each unit, the names of the parameters that are its alone (experts have some); () = none.
    coupled: what a unit gives depends on the others (a norm over all heads, a router's softmax over all experts), so that cutting one
    changes the rest. Otherwise each gives the same whatever the others hold, bit for bit.
    """

    kind: str
    count: int
    slices: Mapping[str, tuple[int, int]]
    whole: tuple[tuple[str, ...], ...] = ()
    coupled: bool = False


@dataclass(frozen=True)
class SiteInfo:
    """One site: its streams, the names of its parameters, its units, and `cost(tokens by stream)` in multiply-adds per row.

    The cost is the core's: a modulation acts once a row, whatever the tokens.
    """

    site: Site
    streams: tuple[str, ...]
    parameters: tuple[str, ...]
    units: tuple[Units, ...]
    cost: Callable[[Mapping[str, int]], int]


class Branch(nn.Module):
    """x = close(carry(x) + gate(c) * post(core(mod(pre(x), c)))) for one or more streams; any part may be the identity.

    A subclass implements `prepare` (norm and modulation, giving the core's inputs and the gates) and `compute` (the core).
    `reads` names an earlier branch of its group whose core inputs and gates `prepare` also finds, as `state.cond["<branch>.<stream>"]` and
    `state.cond["<branch>.<stream>.gate"]`: one modulation then feeds several cores (FLUX's singles, a layout beside an image's attention).
    `recalls`: it reads or takes up the skip remembered last; others are shown none.
    """

    name = "branch"
    streams: tuple[str, ...] = ()
    reads: str = ""
    recalls = False

    def prepare(self, state: State, call: Call | None) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Core inputs and gates by stream; a stream without a gate adds its delta unscaled."""
        raise NotImplementedError

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> Mapping[str, Tensor]:
        """The core's output (B, N, D) by stream. Auxiliary losses go through `aux`."""
        raise NotImplementedError

    def aux(self, inputs: Mapping[str, Tensor], state: State, call: Call | None) -> Mapping[str, Tensor]:
        """Auxiliary losses (a router's balance, say) of the core's inputs, added to the State; asked for where gradients are recorded."""
        return {}

    def carry(self, state: State, call: Call | None) -> State:
        """What the group's deltas are added to: the State as it is, or its own way past the branch (projected to another width, brought to
        another grid, fetched from a skip)."""
        return state

    def close(self, tokens: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Streams after the residual sum of the branch's group: the norm of a post-norm block. The default leaves all as they are."""
        return {}

    def stored(self, streams: Mapping[str, Stream]) -> Pair | None:
        """Keys and values that the core reads of `streams`, which no block changes; None when it reads none of them."""
        return None

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        """Cost and units; the default knows parameters only."""
        names = tuple(f"{prefix}.{n}" for n, _ in self.named_parameters())
        return SiteInfo(site, self.streams, names, (), lambda tokens: 0)

    def forward(
        self, state: State, site: Site, call: Call | None
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Gated deltas, the core's raw output, auxiliary losses, and what a branch that reads this one finds: core inputs and gates."""
        inputs, gates = self.prepare(state, call)
        compute: Core = partial(self.compute, state=state, site=site, call=call)
        if call is not None:
            for session in call.hooked("branch", site.block):
                compute = partial(_hooked, session, site, state, compute, call)
        out = compute(inputs)
        losses = self.aux(inputs, state, call) if torch.is_grad_enabled() else {}
        lent = {**inputs, **{f"{n}.gate": gate for n, gate in gates.items()}}
        return {n: gates[n] * x if n in gates else x for n, x in out.items()}, out, losses, lent


# A compiled block that knew its own index would be compiled once per index: nothing but a Call asks for it, and `Network.run` puts it
# into the names of losses and features.
UNPLACED = -1


class Block(nn.Module):
    """Ordered groups of branches. Branches of one group read the same input and add their deltas; groups follow one another."""

    def __init__(self, *groups: Branch | tuple[Branch, ...]) -> None:
        super().__init__()
        self.groups = [tuple(b.name for b in (g if isinstance(g, tuple) else (g,))) for g in groups]
        for group in groups:
            for branch in group if isinstance(group, tuple) else (group,):
                self.add_module(branch.name, branch)
        self.index = 0
        members = list(self.branches())
        self.lending = frozenset(b.reads for b in members if b.reads)
        self.closing = frozenset(b.name for b in members if type(b).close is not Branch.close)
        self.carrying = frozenset(b.name for b in members if type(b).carry is not Branch.carry)
        self.recalls = any(b.recalls for b in members)

    def forward(self, state: State, call: Call | None = None) -> State:
        if call is not None:
            for session in reversed(call.hooked("tokens", self.index)):
                state = session.tokens(self.index, state, call)
        for group in self.groups:
            state = self._group(state, group, call)
        return state

    def _group(self, state: State, names: tuple[str, ...], call: Call | None) -> State:
        base = state
        for name in (n for n in names if n in self.carrying):
            branch = self.get_submodule(name)
            assert isinstance(branch, Branch)
            base = branch.carry(base, call)
        tokens = {n: s.x for n, s in base.streams.items()}
        feats: dict[str, Tensor] = {}
        losses: dict[str, Tensor] = {}
        seen = state
        for name in names:
            site = Site(UNPLACED if call is None else self.index, name)
            deltas, raw, aux, lent = self.get_submodule(name)(seen, site, call)
            if name in self.lending:
                seen = replace(seen, cond={**seen.cond, **{f"{name}.{s}": x for s, x in lent.items()}})
            for stream, delta in deltas.items():
                if state.streams[stream].update:
                    tokens[stream] = tokens[stream] + delta
            losses |= {f"{name}.{k}": v for k, v in aux.items()}
            if call is not None and call.taps:
                feats |= {f"{name}.{s}": raw[s] for s in _tapped(call, site, raw)}
        if self.closing:
            for name in (n for n in names if n in self.closing):
                branch = self.get_submodule(name)
                assert isinstance(branch, Branch)
                tokens |= {n: x for n, x in branch.close(tokens).items() if state.streams[n].update}
        state = base.with_x(tokens)
        return state.note(feats=feats, aux=losses) if feats or losses else state

    def branches(self) -> Iterator[Branch]:
        for group in self.groups:
            for name in group:
                branch = self.get_submodule(name)
                assert isinstance(branch, Branch)
                yield branch


class Rewire(nn.Module):
    """A program item that moves tokens or streams: push / merge a skip, resample, gather / scatter, attach / detach.

    `recalls`: it is shown the skip remembered last.
    """

    index = 0
    recalls = True

    def forward(self, state: State, call: Call | None = None) -> State:
        raise NotImplementedError

    def describe(self, prefix: str) -> tuple[SiteInfo, ...]:
        """Its sites: one per part that owns parameters; the default has none."""
        return ()


def _tapped(call: Call, site: Site, raw: Mapping[str, Tensor]) -> list[str]:
    """The streams of a branch's output whose features are asked for. Raises `UnknownNameError` where it has no such stream."""
    asked = [tap.removeprefix(f"{site}.") for tap in sorted(call.taps) if tap.startswith(f"{site}.")]
    for stream in asked:
        if stream not in raw:
            raise UnknownNameError("tap", f"{site}.{stream}", (f"{site}.{s}" for s in raw))
    return asked


def _hooked(session: Session, site: Site, state: State, inner: Core, call: Call, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return session.branch(site, state, inputs, inner, call)
