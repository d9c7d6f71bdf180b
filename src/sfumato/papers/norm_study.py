"""Queries and keys with and without a norm, taught at a high rate: how large the logits of attention become between early and late."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..core.attention import Attend, Heads
from ..core.call import Call, Footprint, Session, Site
from ..core.denoiser import Denoiser
from ..training.diffusion import DiffusionTask
from .arms import Arm, Trial
from .claims import Budget
from .study import Cell, Metric, Results
from .trial import attempted, study_of
from .trial_measures import losses, probes
from .world import World

METRICS = (
    Metric("loss", "validation loss at a high rate"),
    Metric("early", "largest logit of the last blocks, early"),
    Metric("late", "largest logit of the last blocks, late"),
    Metric("growth", "largest logit of the last blocks, late over early"),
)


@dataclass
class Logits(Session):
    """Keeps the largest |q k / sqrt(d)| of every row over what it sees; it changes nothing. For networks without rotary positions."""

    footprint: Footprint
    seen: list[Tensor] = field(default_factory=list)

    def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
        asked, keys = (torch.cat(x, dim=2).float() for x in ([h.q for h in heads.values()], [h.k for h in heads.values()]))
        logits = asked @ keys.transpose(-1, -2) / math.sqrt(keys.shape[-1])
        real = torch.cat(
            [h.k.new_ones(h.k.shape[0], h.k.shape[2], dtype=torch.bool) if h.keep is None else h.keep for h in heads.values()], 1
        )
        self.seen.append(logits.abs().masked_fill(~real[:, None, None, :], 0.0).amax((1, 2, 3)))
        return attend(heads, None)

    def largest(self) -> Tensor:
        """(B,)"""
        return torch.stack(self.seen).amax(0)


def learn_norms(name: str, arms: Mapping[str, Arm], early: int, trial: Trial, world: World, budget: Budget) -> Results:
    """Every arm, trained on `early` pictures and anew on the trial's. None in every metric where training did not stay finite."""

    def cell(arm: str, seed: int, folder: Path) -> Cell:
        spent = trial.images + early
        young, old = (attempted(replace(arms[arm], images=n), trial, world, budget, seed) for n in (early, trial.images))
        if young is None or old is None:
            return Cell({m.key: None for m in METRICS}, spent)
        first, last = largest_logit(young, world), largest_logit(old, world)
        return Cell({"loss": losses(old, world)["loss"], "early": first, "late": last, "growth": last / first}, spent)

    return study_of(name, arms, trial, world, budget, METRICS, early=early).run(cell, budget.work)


@torch.no_grad()
def largest_logit(task: DiffusionTask, world: World, pictures: int = 64) -> float:
    """The largest logit of the last two blocks; geometric mean over held-out drawings and noise levels."""
    depth, denoiser = len(task.net.blocks), Denoiser(task.net, task.meaning)
    last = Footprint(frozenset({"attention"}), frozenset(range(max(0, depth - 2), depth)), requires=frozenset({"softmax"}), observes=True)
    logs = list[Tensor]()
    for sample, cond in probes(task, world, "logits", pictures):
        logits = Logits(last)
        denoiser.out(sample.x_t, sample.t, cond, Call((logits,)))
        logs.append(logits.largest().log())
    return float(torch.cat(logs).mean().exp())
