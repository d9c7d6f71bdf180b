"""Lumina-Next (Zhuo et al., arXiv 2406.18583): branches between two norms, and rotary positions for pictures larger than in training.

The smoke check holds Next-DiT and its rotary rules against the paper; context drop, the sigmoid grid and the midpoint solver are not built.
The measured claims: bounded branches keep activations from growing
over the depth and bear a high learning rate; and a network trained on small pictures draws larger ones best with time-aware rates.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ..backbones.nextdit import NextDiT, NextDiTConfig, tiny
from ..core.state import State
from ..evaluate.metrics import student
from ..nn.rope import RULES, Rule, Stretch, frequency_aware, interpolated, ntk, plain, proportional, time_aware
from ..sampling.schedules import grid
from .arms import Arm, Trial
from .claims import Budget, Claim, Finding, Outcome, Verdict, exact, reached
from .depth_study import draw_larger, learn_depths
from .inputs import asked, gap, parameters
from .study import Results
from .trial_measures import grids
from .world import open_world

CLAIM = Claim(
    slug="lumina-next",
    title="Lumina-Next: Making Lumina-T2X Stronger and Faster with Next-DiT",
    arxiv="2406.18583",
    statement="Norms before and after every branch, with bounded gates, keep a transformer's activations from growing over its depth; and "
    "time-aware scaling of its rotary positions draws pictures of twice the trained side better than other rules.",
    budgets=("smoke", "cpu"),
)
SIZE = 64
SHAPE = NextDiTConfig(depth=8, width=128, heads=4, kv_heads=4, hidden=352, patch=1, variance=False)
HIGH = {"lr": 1e-2, "muon_lr": 2e-2}  # ten times the trial's
USUAL, OPEN, BOUNDED_HIGH, OPEN_HIGH = "sandwich", "pre-norm", "sandwich, high rate", "pre-norm, high rate"
ARMS = {
    USUAL: Arm(SHAPE),
    OPEN: Arm(replace(SHAPE, sandwich=False)),
    BOUNDED_HIGH: Arm(SHAPE, changes=HIGH),
    OPEN_HIGH: Arm(replace(SHAPE, sandwich=False), changes=HIGH),
}
TRIAL = Trial(images=16_000, batch=32, ema=0.98, pictures=160, steps=(8,))
LARGER = ("none", "interpolated", "ntk", "time")
GROWTH = 3.0  # how many times less activations grow for the claim to hold


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks. Otherwise both measured claims."""
    return Outcome((*network(), *rotary())) if budget.name == "smoke" else measure(budget)


def measure(budget: Budget) -> Outcome:
    """Four networks a seed; the first of them then draws larger pictures by each rule."""
    trial, world = TRIAL.scaled(budget.scale), open_world(budget, SIZE)
    norms = learn_depths(CLAIM.slug, ARMS, trial, world, budget)
    larger = draw_larger(f"{CLAIM.slug}-larger", ARMS[USUAL], LARGER, trial, world, budget)
    found, summary, decisive = verdict(norms, larger, trial.steps[0])
    pictures = grids(larger, f"{trial.steps[0]}-steps", budget)
    known = (f for f in (*norms.findings(), *larger.findings()) if f.found != "not estimable")
    return Outcome((*decisive, *known), found, summary, trial.seeds, pictures)


def verdict(norms: Results, larger: Results, steps: int) -> tuple[Verdict, str, tuple[Finding, ...]]:
    """Norms hold: activations grow at least `GROWTH` times less at both rates, clear of chance, and the high rate's loss is lower, clear of
    chance, or the open network alone did not stay finite. Positions hold: time-aware rates rank first over the judge's scores and draw at
    a smaller kernel distance than none, clear of chance. Reproduced: both; partly: one.
    """
    grown = [_growth(norms, *pair) for pair in ((USUAL, OPEN), (BOUNDED_HIGH, OPEN_HIGH))]
    high = norms.apart(f"loss, {BOUNDED_HIGH} minus {OPEN_HIGH}", BOUNDED_HIGH, OPEN_HIGH, "loss")
    if norms.mean(OPEN_HIGH, "loss") is None and norms.mean(BOUNDED_HIGH, "loss") is not None:
        high = replace(high, found="the latter diverged", passed=True)
    usual = norms.apart(f"loss, {USUAL} minus {OPEN}", USUAL, OPEN, "loss")
    ranks = larger.mean_ranks([f"{kind}@{steps}" for kind in ("kernel", "alignment", "style", "concept")])
    assert ranks is not None
    best = min(ranks, key=lambda rule: ranks[rule])
    first = Finding("rule of the best mean rank over kernel distance, alignment, style, concept", "time", best, best == "time")
    nearer = larger.apart("kernel distance, time-aware minus none", "time", "none", f"kernel@{steps}")
    parts = [all(f.passed for f in part) for part in ((*grown, high), (first, nearer))]
    told = ", ".join(f"{rule} {rank:.2f}" for rule, rank in ranks.items())
    grew = " and ".join(f"{f.found:.2f}" for f in grown if isinstance(f.found, float))
    beside = (replace(usual, passed=None), *(Finding(f"mean rank, {rule}", None, rank) for rule, rank in ranks.items()))
    summary = f"activations grow {grew or 'not estimably'} times less; mean ranks at twice the side: {told}"
    return reached(*parts), summary, (*grown, high, first, nearer, *beside)


def _growth(norms: Results, bounded: str, open: str) -> Finding:
    """How many times more activations grow without the second norm; a network that did not stay finite grew without bound."""
    name, expected = f"growth of activations, {open} over {bounded}", f"at least {GROWTH:g}, clear of 1"
    a, b = norms.values(bounded, "growth"), norms.values(open, "growth")
    if a is None or b is None:
        return Finding(name, expected, "the former diverged" if a is not None else "not estimable", a is not None)
    times, interval = float((b / a).mean()), student(b / a)
    return Finding(name, expected, times, times >= GROWTH and interval[0] > 1, "", interval)


@torch.no_grad()
def network() -> tuple[Finding, ...]:
    """Next-DiT: its size, its start, its bounds, and places that matter by their distance alone."""
    torch.manual_seed(0)
    new, net = NextDiT(NextDiTConfig(depth=2, width=32, heads=4, kv_heads=2, hidden=48, text_width=12)), tiny()
    (streams, cond), (_, other) = asked(new), asked(new, seed=1)
    state = new.start(streams, cond)
    moved = gap(new.run(state, 0, 2)["image"], state["image"])
    answers = max(float(p.abs().max()) for p in new(streams, cond).pred.values())
    nn.init.normal_(new.final.weight)
    _modulate(new, 0.5)
    deaf = gap(*(new(streams, c).pred["image"] for c in (cond, other)))
    state = net.start(streams, cond)
    for name, parameter in net.named_parameters():
        if name.endswith("attention.core.gate"):
            parameter.zero_()  # words have no place, so the way to them is not kept
    image = state.streams["image"]
    assert image.pos is not None
    away = state.attach("image", replace(image, pos=image.pos + torch.tensor([3.0, 11.0])))
    site = net.sites()[0].site
    places = gap(*(net.get_submodule(str(site))(s, site, None)[0]["image"] for s in (state, away)))
    # Published: the query and its norm twice, and a vector for padded pictures.
    return (
        exact(
            "parameters, as published with the query twice", 1_754_898_976, parameters(NextDiTConfig()) + 24 * (2304**2 + 2 * 2304) + 2304
        ),
        exact("a new network's blocks are the identity, largest change", 0, moved),
        exact("a new network answers 0, largest value", 0, answers),
        exact("with closed text gates, the answers to two prompts differ by", 0, deaf),
        exact("largest gated delta over what its norm lets through, modulation a thousand times as large", 1, bound(), 1e-5),
        exact("attention's change when all places move alike", 0, places, 1e-5),
    )


def bound() -> float:
    """The largest |tanh(gate) x| over |x| of any branch under huge modulation: at most 1."""
    net, found = tiny(), 0.0
    _modulate(net, 1e3)
    state: State = net.start(*asked(net))
    for info in net.sites():
        deltas, raw, _, _ = net.get_submodule(str(info.site))(state, info.site, None)
        found = max(found, float((deltas["image"].abs() / raw["image"].abs().clamp(min=1e-12)).max()))
    return found


def _modulate(net: NextDiT, std: float) -> None:
    for name, parameter in net.named_parameters():
        if name.startswith("blocks.") and name.endswith("modulation.linear.weight"):
            nn.init.normal_(parameter, std=std)


def rotary() -> tuple[Finding, ...]:
    """Rates of 36 channels for twice the side, in parts of those trained with, at k = 0, 1, 4, 8, 17."""

    def rates(rule: Rule, t: float = 0.0, scale: float = 2.0) -> list[float]:
        axis = Stretch(36, scale, 64, torch.tensor([1.0 - t]), head=72)  # the paper's t is 0 at noise
        return [float(x) for x in (rule(axis) / plain(axis))[0, [0, 1, 4, 8, 17]]]

    ends = {"NTK": (ntk, 0.0), "time-aware at t = 1": (time_aware, 1.0)}
    same = max(abs(x - 1) for rule in RULES.values() for t in (0.0, 0.5, 1.0) for x in rates(rule, t, 1.0))
    factors = [proportional(tokens, trained_on) for tokens, trained_on in ((16_384, 4096), (256, 64))]
    return (
        *(exact(f"rates: {name}", (1, 0.96222, 0.85724, 0.73487, 0.51963), rates(*of), 6e-6) for name, of in ends.items()),
        exact("rates: frequency-aware", (1, 0.85829, 0.54268, 0.5, 0.5), rates(frequency_aware), 6e-6),
        exact("rates: time-aware at t = 0.5", (1, 0.92685, 0.73797, 0.54461, 0.5), rates(time_aware, 0.5), 6e-6),
        exact("rates: time-aware at t = 0", (1, 0.5, 0.5, 0.5, 0.5), rates(time_aware), 6e-6),
        exact("rates: interpolated", (0.5,) * 5, rates(interpolated), 6e-6),
        exact("at the trained size, any rule's largest change", 0, same),
        exact(
            "times of 10 steps, factor 4, from noise to data",
            (0, 0.0270, 0.0588, 0.0968, 0.1429, 0.2, 0.2727, 0.3684, 0.5, 0.6923, 1),
            (1 - grid(10, 4.0)).tolist(),
            5e-5,
        ),
        exact("proportional factor, 4096 to 16384 and 64 to 256 tokens", (1.080123, 1.154701), factors, 1e-6),
    )
