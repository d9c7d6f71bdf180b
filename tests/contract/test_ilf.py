"""Inner loop feedback: after a full pass at t, the output of block `tap`, moved on by one trained block, re-enters at `entry` for t' < t.

Exercises the `blocks` hook (re-entry mid-stack, under the conditioning of another t), sessions nested around it, an organ at the root of a
network, and values kept from one evaluation to the next by a session rather than by a module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
from tests.builders import conditions, image, mmdit
from torch import Tensor, nn

from sfumato.core.call import Call, Footprint, Session
from sfumato.core.denoiser import Denoiser
from sfumato.core.program import Network
from sfumato.core.rng import Rows
from sfumato.core.state import State
from sfumato.sampling.guidance import ClassifierFree
from sfumato.sampling.loop import draw
from sfumato.sampling.ode import DrawRequest, Ode
from sfumato.sampling.schedules import grid
from sfumato.sampling.solvers import Euler

Run = Callable[[State, int, int], State]
TEXT = conditions([5, 3])


class Feedback(nn.Module):
    """u + gamma F(v): F starts as a copy of the tapped block, gamma at 0."""

    def __init__(self, net: Network, entry: int, tap: int) -> None:
        super().__init__()
        self.entry, self.tap = entry, tap
        self.block = deepcopy(net.blocks[tap])
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, now: State, u: State, v: State) -> State:
        """The State that enters block `entry`: `now` lends its conditioning (t'), u and v are from the pass before."""
        fed = self.block(replace(now, streams=v.streams))
        return u.with_x({"image": u["image"] + self.gamma * fed["image"]})


@dataclass
class InnerLoop(Session):
    """Steps in `inner` re-enter; all others run in full and leave u, v and the embedded input behind, by lane."""

    organ: Feedback
    inner: Callable[[int], bool]
    reembed: bool = False
    held: dict[str, tuple[State, State, State]] = field(default_factory=dict)
    footprint = Footprint(frozenset({"blocks"}), writes=frozenset({"blocks"}))

    def blocks(self, state: State, run: Run, a: int, b: int, call: Call) -> State:
        entry, tap = self.organ.entry, self.organ.tap
        if self.inner(call.step):
            first, u, v = self.held[call.lane]
            u = replace(u, cond=state.cond)
            if self.reembed:
                u = u.with_x({"image": u["image"] + (state["image"] - first["image"])})
            return run(self.organ(state, u, v), entry, b)
        u = run(state, a, entry)
        v = run(u, entry, tap + 1)
        self.held[call.lane] = (state, u, v)
        return run(v, tap + 1, b)


@dataclass
class Spans(Session):
    """Which spans are run."""

    seen: list[tuple[int, int]] = field(default_factory=list)
    footprint = Footprint(frozenset({"blocks"}))

    def blocks(self, state: State, run: Run, a: int, b: int, call: Call) -> State:
        self.seen.append((a, b))
        return run(state, a, b)


def built(depth: int = 6, entry: int = 4, tap: int = 4) -> tuple[Network, Feedback]:
    net = mmdit(depth=depth)
    net.feedback = Feedback(net, entry, tap)
    return net, net.feedback


def evaluated(net: Network, session: Session, step: int, t: float, seed: int = 0, *inside: Session) -> Tensor:
    return net(image(seed=seed, t=t), TEXT, Call((session, *inside), step=step)).pred["image"]


@torch.no_grad()
def test_with_gamma_zero_the_inner_pass_is_the_block_cache() -> None:
    net, organ = built()
    session = InnerLoop(organ, lambda step: step == 1)
    assert torch.equal(evaluated(net, session, 0, 0.8), net(image(t=0.8), TEXT).pred["image"])
    inner = evaluated(net, session, 1, 0.6, seed=3)
    cached = net.run(net.start(image(t=0.8), TEXT), 0, 4)
    later = net.start(image(seed=3, t=0.6), TEXT)
    assert torch.equal(inner, net.head(net.run(replace(cached, cond=later.cond), 4, 6), None)["image"])
    nn.init.normal_(organ.block.get_submodule("mlp.core.image.down").weight)
    assert torch.equal(inner, evaluated(net, session, 1, 0.6, seed=3))
    organ.gamma.fill_(0.5)
    assert not torch.allclose(inner, evaluated(net, session, 1, 0.6, seed=3), atol=1e-3)


@torch.no_grad()
def test_reembedding_at_the_door_is_the_full_pass() -> None:
    net, organ = built(entry=0, tap=4)
    session = InnerLoop(organ, lambda step: step == 1, reembed=True)
    full = evaluated(net, session, 0, 0.8)
    assert torch.equal(full, evaluated(net, session, 1, 0.8))
    moved = evaluated(net, session, 1, 0.8, seed=3)
    assert torch.allclose(moved, net({**image(seed=3, t=0.8)}, TEXT).pred["image"], atol=1e-5)


@torch.no_grad()
def test_sessions_inside_see_the_spans_that_are_run() -> None:
    net, organ = built()
    session, inside, outside = InnerLoop(organ, lambda step: step == 1), Spans(), Spans()
    evaluated(net, session, 0, 0.8, 0, inside)
    full = evaluated(net, session, 1, 0.6, 0, inside)
    assert inside.seen == [(0, 4), (4, 5), (5, 6), (4, 6)]
    again = net(image(t=0.6), TEXT, Call((outside, session), step=1)).pred["image"]
    assert outside.seen == [(0, 6)] and torch.equal(again, full)


def test_gamma_learns_first_and_the_backbone_never() -> None:
    net, organ = built()
    net.requires_grad_(False)
    organ.requires_grad_(True)
    session = InnerLoop(organ, lambda step: step == 1)
    with torch.no_grad():
        target = net(image(t=0.4), TEXT).pred["image"]
        evaluated(net, session, 0, 0.8)
    (evaluated(net, session, 1, 0.4) - target).square().mean().backward()
    assert organ.gamma.grad is not None and organ.gamma.grad != 0
    reached = [p.grad for p in organ.block.parameters() if p.grad is not None]
    assert len(reached) > 10 and not any(grad.any() for grad in reached)
    before: Mapping[str, Tensor] = {n: p.detach().clone() for n, p in net.named_parameters()}
    torch.optim.SGD(organ.parameters(), lr=0.1).step()
    assert {n for n, p in net.named_parameters() if not torch.equal(p, before[n])} == {"feedback.gamma"}
    assert "feedback.gamma" in net.state_dict() and not any(n.startswith("feedback") for i in net.sites() for n in i.parameters)


def test_the_sampler_runs_as_many_blocks_as_the_cost_model_says() -> None:
    net, organ = built(depth=12, entry=9, tap=9)
    counts: Counter[str] = Counter()
    for name, blocks in (("backbone", net.blocks), ("feedback", [organ.block])):
        for block in blocks:
            block.register_forward_hook(lambda *_, name=name: counts.update([name]))

    def sample(inner: Callable[[int], bool]) -> Tensor:
        counts.clear()
        sessions = (InnerLoop(organ, inner),)
        ode = Ode(Denoiser(net), Euler(), grid(20), ClassifierFree(1.0), sessions)
        return draw(ode, DrawRequest((4, 8, 8), {"cond": conditions([5])}), Rows((3,)))

    plain = draw(Ode(Denoiser(net), Euler(), grid(20), ClassifierFree(1.0)), DrawRequest((4, 8, 8), {"cond": conditions([5])}), Rows((3,)))
    assert torch.equal(sample(lambda step: False), plain) and counts == {"backbone": 240}
    inner = sample(lambda step: step % 2 == 1)
    assert counts == {"backbone": 10 * 12 + 10 * 3, "feedback": 10} and counts.total() == 160
    assert not torch.equal(inner, plain)
