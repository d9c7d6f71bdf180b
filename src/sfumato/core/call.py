"""Everything that varies from one evaluation of a network to the next, as one argument; and the policies that ride on it.

A policy is a frozen config. `begin(run)` opens a Session, which holds whatever it remembers (caches keyed by site, lane and request).
Sessions are listed outermost first. A block that no session, adapter or tap touches receives no Call at all and runs compiled; one that
something touches runs eagerly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from .errors import ConflictError
from .state import Out, State

if TYPE_CHECKING:
    from .attention import Attend, Heads

Hook = str
ByStream = Mapping[str, Tensor]
Core = Callable[[ByStream], ByStream]
HOOKS: tuple[Hook, ...] = ("branch", "attention", "tokens", "blocks", "outputs", "latents")
ITEM_HOOKS: frozenset[Hook] = frozenset({"branch", "attention", "tokens"})  # those inside a block


@dataclass(frozen=True, order=True)
class Site:
    """A stable name for a place in a network: a branch of a block, or one stream of it."""

    block: int
    branch: str
    stream: str = ""

    def __str__(self) -> str:
        return ".".join(["blocks", str(self.block), self.branch, *([self.stream] if self.stream else [])])


@dataclass(frozen=True)
class Footprint:
    """Where a policy acts. blocks: indices of program items (`Network.blocks`) that are blocks, None = all of these.   hooks: which kinds.
    reads, writes: what it takes and alters ("attention", "tokens", "branch", ...).   requires: capabilities of the network ("softmax",
    "joint", "probabilities").   gradients: whether it may run while gradients are recorded (caches may not).   observes: it looks and
    changes nothing, not a bit; lanes that only observers watch are still evaluated as one batch, as without them.
    """

    hooks: frozenset[Hook]
    blocks: frozenset[int] | None = None
    writes: frozenset[str] = frozenset()
    requires: frozenset[str] = frozenset()
    gradients: bool = True
    observes: bool = False

    def covers(self, block: int) -> bool:
        return bool(self.hooks & ITEM_HOOKS) and (self.blocks is None or block in self.blocks)


class Session:
    """A policy at work on one run. Every hook's default lets the computation pass unchanged; a subclass overrides what it needs."""

    footprint: Footprint = Footprint(frozenset())

    def branch(self, site: Site, state: State, inputs: ByStream, compute: Core, call: Call) -> ByStream:
        """Around one branch's core, after norm and modulation and before the gate. `inputs`: what the core reads, tokens (B, N, D) by
        stream; `compute` may be given others (fewer tokens, say) or not be called at all. state: before the branch's group.
        """
        return compute(inputs)

    def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
        """Around attention: per-stream q, k, v (B, H, N, d) after q/k norm, before rotation; returns (B, H, N, d) by stream."""
        return attend(heads, None)

    def tokens(self, block: int, state: State, call: Call) -> State:
        """Before a block."""
        return state

    def blocks(self, state: State, run: Callable[[State, int, int], State], a: int, b: int, call: Call) -> State:
        """Around items a … b − 1, the whole program unless an outer session asked for less: leave early, re-enter, repeat."""
        return run(state, a, b)

    def outputs(self, outs: Mapping[str, Out], step: int) -> Mapping[str, Out]:
        """After a step's evaluations, by lane."""
        return outs

    def latents(self, z: Tensor, step: int) -> Tensor:
        """After a step's update."""
        return z


class Acting(Protocol):
    """Whatever declares where and how it acts: a policy or its session."""

    @property
    def footprint(self) -> Footprint: ...


class Policy(Acting, Protocol):
    """A frozen config that opens Sessions. `footprint` is what is checked for conflicts before anything runs."""

    def begin(self, run: Any) -> Session: ...


class Adapter(Protocol):
    """Around one Linear: x (B, N, D_in) to (B, N, D_out). `base` is the layer itself, or the adapters inside this one (`adapters.py`); a
    quantiser that replaces it never calls it.

    One with an attribute `laneless` that is True does the same in every lane: lanes are then evaluated as one batch, as without it.
    """

    def __call__(self, linear: Any, x: Tensor, base: Callable[[Tensor], Tensor], call: Call) -> Tensor: ...


@dataclass(frozen=True)
class Call:
    """One evaluation. sessions: outermost first.   adapters: by Linear name.   lane: which named evaluation.
    step: index in the run.   t: noise level of the rows (B,), for parts that depend on it.   rows: request ids.
    noise: random tensors drawn beforehand, by purpose.   taps: branches of blocks, each with a stream ("blocks.2.mlp.image"), whose outputs
    are returned in `Out.feats`.
    together: where lanes run as one batch, the rows of each; `lane` then names all of them.   owners: where tokens of all rows stand in
    one, as before an expert, the row of each token (A,) and how many rows there are.
    """

    sessions: tuple[Session, ...] = ()
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    lane: str = "cond"
    step: int = 0
    t: Tensor | None = None
    rows: tuple[int, ...] = ()
    noise: Mapping[str, Tensor] = field(default_factory=dict)
    taps: frozenset[str] = frozenset()
    together: Mapping[str, slice] = field(default_factory=dict)
    owners: tuple[Tensor, int] | None = None

    def rows_of(self, lane: str) -> slice | None:
        """The rows of this batch that are `lane`'s; None when that lane is not evaluated here."""
        return self.together.get(lane, slice(None) if lane == self.lane else None)

    @property
    def acts(self) -> bool:
        """Whether an adapter or a policy may change anything: what was computed without a Call (`Conditions.ready`) then does not hold."""
        return bool(self.adapters) or not all(s.footprint.observes for s in self.sessions)

    def touches(self, block: int) -> bool:
        """Whether anything in this Call acts inside program item `block`."""
        prefix = f"blocks.{block}."
        return (
            any(s.footprint.covers(block) for s in self.sessions)
            or any(name.startswith(prefix) for name in self.adapters)
            or any(tap.startswith(prefix) for tap in self.taps)
        )

    def hooked(self, hook: Hook, block: int | None = None) -> list[Session]:
        """Sessions with this hook here, innermost first (the order to wrap in)."""

        def here(footprint: Footprint) -> bool:
            return hook in footprint.hooks and (block is None or footprint.blocks is None or block in footprint.blocks)

        return [s for s in reversed(self.sessions) if here(s.footprint)]


def check_policies(policies: Iterable[Acting], capabilities: Collection[str], gradients: bool = False) -> None:
    """Raise `ConflictError` when a policy needs what the network lacks, two write the same thing, a cache meets gradients, or an
    observer stands outside a policy whose changes it would not see.
    """
    writers: dict[str, str] = {}
    observers: dict[Hook, str] = {}
    for policy in policies:
        name, footprint = type(policy).__name__, policy.footprint
        if not footprint.observes and (outer := [observers[h] for h in sorted(footprint.hooks & observers.keys())]):
            raise ConflictError(f"{outer[0]} would not see what {name} does", f"list {outer[0]} last: the first listed is the outermost")
        observers |= dict.fromkeys(footprint.hooks, name) if footprint.observes else {}
        if missing := footprint.requires - set(capabilities):
            raise ConflictError(
                f"{name} needs {', '.join(sorted(missing))}",
                f"this network offers {', '.join(sorted(capabilities)) or 'nothing of the kind'}",
            )
        if gradients and not footprint.gradients:
            raise ConflictError(
                f"{name} keeps results from earlier evaluations, which would give wrong gradients",
                "train without it, or evaluate under torch.no_grad()",
            )
        for thing in footprint.writes:
            if thing in writers:
                raise ConflictError(f"{name} and {writers[thing]} both replace {thing}", "use one of them")
            writers[thing] = name
