"""A network as a program: an ordered list of items (blocks and rewires) that a State passes through.

`run(state, a, b)` executes items a … b − 1; families supply `condition`, `embed` and `head`. The loop calls each item as a module
(FSDP2 gathers weights only around `forward`) and hands the Call only to items it touches, so that the others run compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .blocks import Block, Rewire, SiteInfo
from .call import ITEM_HOOKS, Acting, Call, Session, Site, check_policies
from .conditions import Conditions, Ready
from .errors import ConflictError, UnknownNameError, UsageError
from .state import Out, State, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable


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

        Evaluations under policies and adapters, which could act on either, do not use it; a network with doors, which could too, gives
        `cond` back, and so does one whose weights are sharded, which come together in a forward alone.
        """
        # A DTensor is known by what it can do: its module is slow to import, and needless to whoever shards nothing.
        if self.doors or any(hasattr(p, "full_tensor") for p in self.parameters()):
            return cond
        words = self.words(cond, None)
        if not words:
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
        """The noise level t (B,) of the image stream. Raises `UsageError` when it has none, or one for each token."""
        t = streams["image"].t
        if t is None:
            raise UsageError("the image stream has no noise level t")
        if t.ndim != 1:
            raise UsageError(f"the image stream's noise level has the shape {tuple(t.shape)}", "(B,), one for each row")
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
        if cond.ready is not None and call is not None and call.acts:
            cond = replace(cond, ready=None)
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
            skips = state.skips
            shown = skips[-1:] if getattr(item, "recalls", True) else ()
            state = replace(state, skips=shown)
            touched = call if call is not None and call.touches(index) else None
            # `_call_impl` is `__call__` with its hooks (FSDP's among them) but without the compiled code.
            step: Callable[[State, Call | None], State] = item if touched is None else item._call_impl
            if ready:
                state = replace(state, stored=ready.get(index, {}))
            if self.checkpointing and torch.is_grad_enabled():
                state = checkpoint(step, state, touched, use_reentrant=False)
            else:
                state = step(state, touched)
            state = replace(state, skips=(*skips[: len(skips) - len(shown)], *state.skips))
            if state.feats or state.aux:
                feats = {**feats, **{f"blocks.{index}.{n}": x for n, x in state.feats.items()}}
                aux = {**aux, **{f"blocks.{index}.{n}": x for n, x in state.aux.items()}}
                state = _bare(state)
        return replace(state, feats=feats, aux=aux, ready=ready, stored={}) if feats or aux or ready else state

    def forward(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None = None) -> Out:
        if call is not None:
            self.admit(call.sessions, gradients=torch.is_grad_enabled())
            self._check_taps(call.taps)
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
        """Refuse policies this network cannot carry (see `check_policies`), and those that wait where no block is. Every forward asks;
        asking before a run refuses sooner.
        """
        policies = tuple(policies)
        check_policies(policies, self.capabilities, gradients)
        blocks = [index for index, item in enumerate(self.blocks) if isinstance(item, Block)] if policies else []
        for policy in policies:
            if policy.footprint.hooks & ITEM_HOOKS and (lost := (policy.footprint.blocks or frozenset()).difference(blocks)):
                hint = f"blocks are the items {', '.join(map(str, blocks))}"
                raise ConflictError(f"{type(policy).__name__} acts on item {min(lost)}, which is no block", hint)

    def _check_taps(self, taps: frozenset[str]) -> None:
        if taps:
            blocks = {i: item for i, item in enumerate(self.blocks) if isinstance(item, Block)}
            sites = {str(Site(i, branch.name)): branch.streams for i, block in blocks.items() for branch in block.branches()}
            for tap in sorted(taps):
                if tap.rpartition(".")[0] not in sites:
                    raise UnknownNameError("tap", tap, (f"{site}.{stream}" for site, streams in sites.items() for stream in streams))


def _bare(state: State) -> State:
    """Without features, losses and other items' keys: they would make every block's input look new to the compiler, as skips would."""
    return replace(state, feats={}, aux={}, ready={}) if state.feats or state.aux or state.ready else state


def _around(session: Session, run: Callable[[State, int, int], State], call: Call, state: State, a: int, b: int) -> State:
    return session.blocks(state, run, a, b, call)
