"""What happens over a network's depth, and what a trained network makes of larger pictures: two studies that share their networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from ..backbones.nextdit import NextDiT
from ..core.state import Stream
from ..sampling.policies.extrapolation import Extrapolation
from ..training.diffusion import DiffusionTask
from .arms import Arm, Trial
from .claims import Budget
from .study import Cell, Metric, Results
from .trial import attempted, study_of, trained
from .trial_measures import judged, judgements, losses, probes
from .world import World

GROWTH = (Metric("loss", "validation loss"), Metric("growth", "largest activation, last block over first"))


def learn_depths(name: str, arms: Mapping[str, Arm], trial: Trial, world: World, budget: Budget) -> Results:
    """Loss and growth of activations of every arm; None for both where training did not stay finite."""

    def cell(arm: str, seed: int, folder: Path) -> Cell:
        spent = trial.steps_of(arms[arm]) * trial.batch
        task = attempted(arms[arm], trial, world, budget, seed)
        if task is None:
            return Cell({"loss": None, "growth": None}, spent)
        return Cell({"loss": losses(task, world)["loss"], "growth": growth(task, world)}, spent)

    return study_of(name, arms, trial, world, budget, GROWTH).run(cell, budget.work)


@torch.no_grad()
def growth(task: DiffusionTask, world: World, pictures: int = 64) -> float:
    """The largest activation behind the last block over that behind the first; geometric mean over held-out drawings and noise levels."""
    net, logs = task.net, list[torch.Tensor]()
    for sample, cond in probes(task, world, "growth", pictures):
        state = net.start({"image": Stream(sample.x_t, t=sample.t)}, cond)
        first = net.run(state, 0, 1)
        last = net.run(first, 1, len(net.blocks))
        logs.append((last["image"].abs().amax((1, 2)) / first["image"].abs().amax((1, 2))).log())
    return float(torch.cat(logs).mean().exp())


def draw_larger(name: str, arm: Arm, rules: Sequence[str], trial: Trial, world: World, budget: Budget) -> Results:
    """What the judge says of pictures of twice the trained side; an arm a rule for rotary rates, "none" among them."""
    study = study_of(name, dict.fromkeys(rules, arm), trial, world, budget, judgements(trial))
    return study.run(partial(_larger, arm=arm, trial=trial, world=world, budget=budget), budget.work)


def _larger(rule: str, seed: int, folder: Path, arm: Arm, trial: Trial, world: World, budget: Budget) -> Cell:
    task, (side, _) = trained(arm, trial, world, budget, seed), world.pipe.defaults.size
    assert isinstance(task.net, NextDiT)
    tokens = side // world.pipe.codec.factor // task.net.config.patch
    policies = () if rule == "none" else (Extrapolation(task.net.rotary, tokens, rule),)
    return Cell(judged(task, trial, world, folder, size=(2 * side, 2 * side), policies=policies), trial.pictures)
