"""Layouts of one cost: what AsCANs (arXiv 2411.04967) of convolutions first and attention later learn, and how long they take.

All have as many blocks at either of two levels, and widths that give equal FLOPs to a few percent; so the comparison is of where
convolution and attention stand. They are trained on 8 x 8 cells, where attention costs next to nothing, and timed at four times the width
on 32 x 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ..backbones.ascan import AsCAN, AsCANConfig
from ..training.optimizers import OptimizerConfig
from .arms import Arm, Trial
from .claims import Budget, Finding, Outcome, Verdict
from .inputs import asked
from .study import Interval, Results
from .timing import in_turn, ratio
from .trial import concluded, run_study
from .world import open_world


@dataclass(frozen=True)
class Layout:
    """A word; the widths of the network that learns, and of the one that is timed."""

    word: str
    small: tuple[int, int]
    large: tuple[int, int]

    @property
    def learning(self) -> AsCANConfig:
        """Without blocks of its own for the text, which would weigh more than the picture's."""
        return AsCANConfig(widths=self.small, layout=self.word, head=8, groups=8, text_blocks=0)

    @property
    def timed(self) -> AsCANConfig:
        return AsCANConfig(widths=self.large, layout=self.word, head=32, text_blocks=0, channels=16, text_width=384)


ASYMMETRIC, EVEN, CONVOLUTION, ATTENTION, REVERSED = "asymmetric", "even", "convolution", "attention", "reversed"
SYMMETRIC = (EVEN, CONVOLUTION, ATTENTION)
LAYOUTS = {
    ASYMMETRIC: Layout("CC-CTTT-TT-CTTT-CC", (64, 128), (256, 512)),
    EVEN: Layout("CT-CCTT-CT-CCTT-CT", (56, 128), (256, 480)),
    CONVOLUTION: Layout("CC-CCCC-CC-CCCC-CC", (48, 112), (224, 416)),
    ATTENTION: Layout("TT-TTTT-TT-TTTT-TT", (80, 152), (320, 608)),
    REVERSED: Layout("TT-CCCT-CC-CCCT-TT", (64, 120), (256, 448)),
}
SIZE = 64  # pixels; 8 x 8 and 4 x 4 cells
# The paper's optimiser: Muon takes matrices alone, and would teach attention otherwise than convolution.
OPTIMIZER = OptimizerConfig(name="adamw", lr=1e-3, betas=(0.9, 0.99), warmup=60, decay_from=0.5)
TRIAL = Trial(images=5120, batch=16, ema=0.98, pictures=160, steps=(8,), optimizer=OPTIMIZER)
# name -> time over that of the asymmetric layout
Times = Mapping[str, tuple[float, Interval]]


def measure(budget: Budget) -> Outcome:
    """Five networks a seed; and the time of five larger ones, which needs no training."""
    trial, world = TRIAL.scaled(budget.scale), open_world(budget, SIZE)
    results = run_study("ascan", {name: Arm(layout.learning) for name, layout in LAYOUTS.items()}, trial, world, budget)
    times = speed()
    return concluded(results, trial, budget, lambda found: verdict(found, times))


@torch.no_grad()
def speed(side: int = 32, rounds: int = 5) -> Times:
    """Time of a step of every layout, at `side` x `side` cells, over that of the asymmetric one."""
    runs = {}
    for name, layout in LAYOUTS.items():
        net = AsCAN(layout.timed).eval()
        runs[name] = partial(net, *asked(net, side=side, rows=1, words=14))
    seconds = in_turn(runs, rounds)
    return {name: ratio(seconds, name, ASYMMETRIC) for name in LAYOUTS}


def verdict(results: Results, times: Times) -> tuple[Verdict, str, tuple[Finding, ...]]:
    """One layout is ahead of another where its loss is lower or its time shorter, clear of chance, and neither the other way round.

    Reproduced: the asymmetric one is ahead of the even one and of those of one kind, and the reversed one has the highest loss or takes
    longest. Partly: none is ahead of the asymmetric one, which is ahead of a symmetric one. What the judge says is shown beside.
    """
    losses = {name: _difference(results, name) for name in LAYOUTS if name != ASYMMETRIC}
    signs = {name: (_sign(losses[name]), _sign(times[name], 1.0)) for name in losses}
    behind = [name for name, both in signs.items() if max(both) > 0 and min(both) >= 0]
    ahead = [name for name, both in signs.items() if min(both) < 0 and max(both) <= 0]
    beaten = [name for name in SYMMETRIC if name in behind]
    lost, took = max(losses, key=lambda n: losses[n][0]), max(times, key=lambda n: times[n][0])
    last = (lost == REVERSED and losses[lost][0] > 0) or took == REVERSED
    findings = list[Finding]()
    for name in losses:
        findings.append(Finding(f"loss, {name} minus {ASYMMETRIC}", "above 0", losses[name][0], None, "", losses[name][1]))
        findings.append(Finding(f"time, {name} over {ASYMMETRIC}", "above 1", times[name][0], None, "", times[name][1]))
        passed = name in behind if name in SYMMETRIC else None
        findings.append(Finding(f"{ASYMMETRIC} is ahead of {name}", "yes", "yes" if name in behind else "no", passed))
    findings.append(Finding("highest loss, longest time", f"{REVERSED} in one of them", f"{lost}, {took}", last))
    complete = len(beaten) == len(SYMMETRIC) and last
    reached: Verdict = "reproduced" if complete else "partly" if beaten and not ahead else "not reproduced"
    told = "; ".join(f"{name} {losses[name][0]:+.4f}, {times[name][0]:.2f}" for name in losses)
    return reached, f"loss above and time over {ASYMMETRIC} at equal FLOPs: {told}", tuple(findings)


def _difference(results: Results, name: str) -> tuple[float, Interval]:
    found = results.difference(name, ASYMMETRIC, "loss")
    assert found is not None
    return found


def _sign(measured: tuple[float, Interval], of: float = 0.0) -> int:
    """1 where the whole interval is above `of`, -1 where it is below, 0 where it holds it."""
    low, high = measured[1]
    return (low > of) - (high < of)
