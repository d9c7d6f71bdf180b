"""A network as a program: an ordered list of items (blocks and rewires) that a State passes through.

`run(state, a, b)` executes items a … b − 1; families supply `condition`, `embed` and `head`. The loop calls each item as a module
(FSDP2 gathers weights only around `forward`) and hands the Call only to items it touches, so that the others run compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .call import Acting, Call, Core, Session, Site, check_policies
from .conditions import Conditions, Ready
from .errors import UsageError
from .state import Out, Pair, State, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Units:
    """Independent parts of a site (heads, hidden channels) and the parameters they own.

    count: how many.   slices: parameter name -> (dimension, entries per unit); unit i owns `[i * n, (i + 1) * n)` of that dimension.
    whole: of each unit, the names of the parameters that are its alone (experts have some); () = none.
    """

    kind: str
    count: int
    slices: Mapping[str, tuple[int, int]]
    whole: tuple[tuple[str, ...], ...] = ()


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
    """

    name = "branch"
    streams: tuple[str, ...] = ()
    reads: str = ""

    def prepare(self, state: State, call: Call | None) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """Core inputs and gates by stream; a stream without a gate adds its delta unscaled."""
        raise NotImplementedError

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> Mapping[str, Tensor]:
        """The core's output (B, N, D) by stream. Auxiliary losses go through `aux`."""
        raise NotImplementedError

    def aux(self, inputs: Mapping[str, Tensor], state: State, call: Call | None) -> Mapping[str, Tensor]:
        """Auxiliary losses (a router's balance, say) of the core's inputs, added to the State."""
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
        lent = {**inputs, **{f"{n}.gate": gate for n, gate in gates.items()}}
        return {n: gates[n] * x if n in gates else x for n, x in out.items()}, out, self.aux(inputs, state, call), lent


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
                feats |= {f"{name}.{s}": x for s, x in raw.items() if f"{site}.{s}" in call.taps}
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
    """A program item that moves tokens or streams: push / merge a skip, resample, gather / scatter, attach / detach."""

    index = 0

    def forward(self, state: State, call: Call | None = None) -> State:
        raise NotImplementedError

    def describe(self, prefix: str) -> tuple[SiteInfo, ...]:
        """Its sites: one per part that owns parameters; the default has none."""
        return ()


class Network(nn.Module):
    """A backbone. `capabilities`: what policies may rely on ("softmax", "joint", ...). `inputs`: names of the streams it takes.

    `slots`: the conditioning slots it reads, all needed; any other is refused unless a door names it in its own `slots`.

    `doors`: modules `(State, Conditions, Call | None) -> State` that surgery adds, by name. Each sees the slots once, at the start, and
    brings in what the grafted parts of the program read: a stream, or an entry of `State.cond`. A door whose slot is absent leaves the
    State alone.
    """

    capabilities: frozenset[str] = frozenset()
    inputs: tuple[str, ...] = ("image",)
    slots: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.doors = nn.ModuleDict()
        self.checkpointing = False

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> Mapping[str, Tensor]:
        """Conditioning tensors for `State.cond` from the streams' times and the filled slots; "time" is the embedding of t alone."""
        raise NotImplementedError

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> Mapping[str, Stream]:
        """Token streams from latents, ids and token slots. A stream that the family cannot embed is refused."""
        raise NotImplementedError

    def words(self, cond: Conditions, call: Call | None) -> Mapping[str, Stream]:
        """The part of `embed` that follows from the slots alone, whatever t and the picture; the default has none."""
        return {}

    def told(self, cond: Conditions, call: Call | None) -> Mapping[str, Stream]:
        """`words`, from before the first step where they were prepared."""
        return self.words(cond, call) if cond.ready is None else cond.ready.streams

    def prepare(self, cond: Conditions) -> Conditions:
        """`cond` with all that is the same at every step computed once: `words`, and the keys and values of those that no block changes.

        For evaluations without policies and adapters, which could act on either; a network with doors, which could too, gives `cond` back.
        """
        words = self.words(cond, None)
        if not words or self.doors:
            return cond
        fixed = {name: stream for name, stream in words.items() if not stream.update}
        pairs = {
            i: {b.name: pair for b in item.branches() if (pair := b.stored(fixed))}
            for i, item in enumerate(self.blocks)
            if isinstance(item, Block)
        }
        return replace(cond, ready=Ready(words, {i: found for i, found in pairs.items() if found}))

    def head(self, state: State, call: Call | None) -> Mapping[str, Tensor]:
        """Predictions by stream, shaped like the inputs."""
        raise NotImplementedError

    def level(self, streams: Mapping[str, Stream]) -> Tensor:
        """The noise level t of the image stream. Raises `UsageError` when it has none."""
        t = streams["image"].t
        if t is None:
            raise UsageError("the image stream has no noise level t")
        return t

    def refuse_strangers(self, streams: Mapping[str, Stream]) -> None:
        """Raise `UsageError` on a stream that is not among `inputs`."""
        if strangers := sorted(streams.keys() - set(self.inputs)):
            raise UsageError(f"a {type(self).__name__} cannot embed the stream {strangers[0]!r}", f"it takes {', '.join(self.inputs)}")

    def set_program(self, items: list[nn.Module]) -> None:
        """Install the program and give every item its index."""
        self.blocks = nn.ModuleList(items)
        for index, item in enumerate(items):
            item.index = index  # type: ignore[assignment]

    def start(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None = None) -> State:
        """The State that enters the program. Raises `UsageError` on a missing slot and on one that nothing here reads."""
        self._check_slots(cond)
        ready = {} if cond.ready is None else cond.ready.stored
        state = State(self.embed(streams, cond, call), self.condition(streams, cond, call), ready=ready)
        for door in self.doors.values():
            state = door(state, cond, call)
        return state

    def _check_slots(self, cond: Conditions) -> None:
        optional = frozenset().union(*(getattr(door, "slots", ()) for door in self.doors.values()))
        for kind, names in (("needs", self.slots - cond.names), ("does not read", cond.names - self.slots - optional)):
            if names:
                raise UsageError(
                    f"{type(self).__name__} {kind} the conditioning slot {', '.join(sorted(names))}",
                    f"it reads {', '.join(sorted(self.slots | optional)) or 'none'}",
                )

    def run(self, state: State, a: int, b: int, call: Call | None = None) -> State:
        """Items a … b − 1."""
        feats, aux, ready = state.feats, state.aux, state.ready
        state = _bare(state)
        for index in range(a, b):
            item = self.blocks[index]
            touched = call if call is not None and call.touches(index) else None
            # `_call_impl` is `__call__` with its hooks (FSDP's among them) but without the compiled code.
            step: Callable[[State, Call | None], State] = item if touched is None else item._call_impl
            if ready:
                state = replace(state, stored=ready.get(index, {}))
            if self.checkpointing and torch.is_grad_enabled():
                state = checkpoint(step, state, touched, use_reentrant=False)
            else:
                state = step(state, touched)
            if state.feats or state.aux:
                feats = {**feats, **{f"blocks.{index}.{n}": x for n, x in state.feats.items()}}
                aux = {**aux, **{f"blocks.{index}.{n}": x for n, x in state.aux.items()}}
                state = _bare(state)
        return replace(state, feats=feats, aux=aux, ready=ready, stored={}) if feats or aux or ready else state

    def forward(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None = None) -> Out:
        if call is not None and call.sessions:
            self.admit(call.sessions, gradients=torch.is_grad_enabled())
        state = self.start(streams, cond, call)
        state = self._whole(state, call)
        return Out(self.head(state, call), state.feats, state.aux)

    def _whole(self, state: State, call: Call | None) -> State:
        run: Callable[[State, int, int], State] = partial(self.run, call=call)
        if call is None or not call.sessions:
            return run(state, 0, len(self.blocks))
        for session in call.hooked("blocks"):
            run = partial(_around, session, run, call)
        return run(state, 0, len(self.blocks))

    def sites(self) -> tuple[SiteInfo, ...]:
        """Every branch of every block, and every rewire that owns parameters, in program order."""
        found: list[SiteInfo] = []
        for index, item in enumerate(self.blocks):
            if isinstance(item, Block):
                found += (b.describe(Site(index, b.name), f"blocks.{index}.{b.name}") for b in item.branches())
            elif isinstance(item, Rewire):
                found += item.describe(f"blocks.{index}")
        return tuple(found)

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile every program item by itself; items that a policy touches still run eagerly through the same module.

        Raises torch's limit of graphs for one function, of which all blocks are instances: beyond it they would run eagerly without a word,
        and a U-Net's blocks are of more kinds than the eight it allows.
        """
        limits = torch._dynamo.config
        name = "recompile_limit" if hasattr(limits, "recompile_limit") else "cache_size_limit"
        setattr(limits, name, max(getattr(limits, name), 8 * len(self.blocks)))
        for item in self.blocks:
            item.compile(dynamic=False, backend=backend)

    def admit(self, policies: Iterable[Acting], gradients: bool = False) -> None:
        """Refuse policies this network cannot carry (see `check_policies`). Every forward asks; asking before a run refuses sooner."""
        check_policies(policies, self.capabilities, gradients)


def _bare(state: State) -> State:
    """Without features, losses and other items' keys: they would make every block's input look new to the compiler."""
    return replace(state, feats={}, aux={}, ready={}) if state.feats or state.aux or state.ready else state


def _hooked(session: Session, site: Site, state: State, inner: Core, call: Call, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return session.branch(site, state, inputs, inner, call)


def _around(session: Session, run: Callable[[State, int, int], State], call: Call, state: State, a: int, b: int) -> State:
    return session.blocks(state, run, a, b, call)
