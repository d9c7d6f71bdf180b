"""A trained PixArt with keys and values compressed in some blocks, taught on: how fast it adapts, how well it ends, how fast it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..backbones.pixart import PixArt
from ..core.config import to_dict
from ..core.denoiser import Denoiser
from ..nn.projections import Reducer
from ..training.diffusion import DiffusionTask
from .arms import Arm, Trial
from .claims import Budget
from .inputs import asked
from .study import Cell, Interval, Metric, Results, Study
from .timing import in_turn, ratio
from .trial import setting, trained
from .trial_measures import judged, judgements, losses
from .tuning import AsTrained, Lessons, Tuning, tune
from .world import World


@dataclass(frozen=True)
class Compression:
    """`base`: what is trained dense by `trial`, and then by `tuning` in every arm. `blocks`: those that compress, by arm. `random`: arms
    whose convolutions start from random weights. `held_out`: drawings that a loss on the way is taken on.
    """

    base: Arm
    trial: Trial
    tuning: Tuning
    blocks: Mapping[str, tuple[int, ...]]
    random: tuple[str, ...]
    held_out: int = 128

    def scaled(self, scale: float) -> Compression:
        return replace(self, trial=self.trial.scaled(scale), tuning=self.tuning.scaled(scale))


def learn_compressed(name: str, plan: Compression, world: World, budget: Budget) -> Results:
    """Every arm from the same trained network of a seed."""
    own = {"tuning": to_dict(plan.tuning), "base": plan.base.described(), "held out": plan.held_out}
    marks = (0, *plan.tuning.marks, plan.tuning.images)
    looks = tuple(Metric(f"loss@{n}", f"validation loss after {n} pictures") for n in marks)
    arms = {arm: list(blocks) for arm, blocks in plan.blocks.items()}
    study = Study(name, arms, plan.trial.seeds, "images", (*looks, *judgements(plan.trial)), {**setting(plan.trial, world, budget), **own})
    return study.run(partial(_cell, plan=plan, world=world, budget=budget), budget.work)


def _cell(arm: str, seed: int, folder: Path, plan: Compression, world: World, budget: Budget) -> Cell:
    """Compress the trained network of a seed and teach it on; its loss on the way and what the judge says at the end."""
    base = trained(plan.base, plan.trial, world, budget, seed)
    torch.manual_seed(seed)
    task = replace(base, net=compressed(base.net, plan.blocks[arm], average=arm not in plan.random))
    data, table = world.train, world.table(world.train, base.net)

    def look(images: int, pipe: AsTrained, place: Path) -> dict[str, float | None]:
        now: DiffusionTask = replace(base, net=pipe.pipe.denoiser.net)
        found = judged(now, plan.trial, world, place) if images == plan.tuning.images else {}
        return {f"loss@{images}": losses(now, world, plan.held_out)["loss"], **found}

    before = losses(task, world, plan.held_out)["loss"]
    lessons = Lessons(data.latents, data.captions[:, 1:2], table)
    found = tune(world.around(Denoiser(task.net, task.meaning)), lessons, plan.tuning, seed, folder, look)
    return Cell({"loss@0": before, **found}, spent=plan.tuning.images)


def compressed(net: nn.Module, blocks: tuple[int, ...], average: bool = True) -> PixArt:
    """A copy of a dense PixArt whose `blocks` reduce their keys and values; `average` False: by a convolution of random weights."""
    assert isinstance(net, PixArt)
    copy = PixArt(replace(net.config, compress=blocks))
    copy.load_state_dict(net.state_dict(), strict=False)
    for module in copy.modules():
        if isinstance(module, Reducer) and not average:
            module.conv.reset_parameters()
    return copy.eval()


@torch.no_grad()
def speed(arm: Arm, blocks: tuple[int, ...], sides: tuple[int, ...] = (32, 64, 128), rounds: int = 3) -> dict[int, tuple[float, Interval]]:
    """By the side in tokens, up to the paper's at 2048 pixels: time of a network that compresses `blocks` over that of the dense one."""
    dense = PixArt(replace(arm.shape, channels=16, text_width=384)).eval()
    half, found = compressed(dense, blocks), {}
    for side in sides:
        given = asked(dense, side=side, rows=1)
        found[side] = ratio(in_turn({"half": partial(half, *given), "dense": partial(dense, *given)}, rounds), "half", "dense")
    return found
