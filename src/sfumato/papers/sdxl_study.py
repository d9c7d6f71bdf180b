"""A small U-Net that is told what was done to its training pictures: what it draws when told that nothing was.

Two comparisons. Sizes: pictures of which some are blurred by enlarging, left out, or kept and said to be whole, or kept and told of.
Crops: squares cut out of wider and taller pictures, said to be whole, or told of. All arms are the same network; only what it is told and
which pictures it sees differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..backbones.unet_plan import UNetConfig
from ..core.config import to_dict
from ..core.denoiser import Denoiser
from ..evaluate.drawing import Order, draw
from ..evaluate.selection import Selection, select
from ..training.diffusion import DiffusionTask
from .arms import Arm, Trial
from .claims import Budget
from .study import Cell, Metric, Results, Study
from .told import Taught, cropped, cut, detail, middle, shrunk, whole
from .trial import trained
from .trial_measures import judged, judgements, losses
from .tuning import AsTrained
from .world import World

DROPPED, KEPT, SIZED = "small ones left out", "small ones kept", "size told"
CUT, CROPPED = "crops kept", "crop told"


@dataclass(frozen=True)
class ToldPlan:
    """`trial`: of the sizes; `crops`: training pictures of an arm of the crops.   drawn: test pairs that are drawn as often as something
    else is told.
    """

    shape: UNetConfig
    trial: Trial
    crops: int
    drawn: int = 96

    def scaled(self, scale: float) -> ToldPlan:
        crops, drawn = max(self.trial.batch, int(scale * self.crops)), max(2, int(scale * self.drawn))
        return self if scale == 1.0 else replace(self, trial=self.trial.scaled(scale), crops=crops, drawn=drawn)

    def setting(self, world: World, budget: Budget) -> dict[str, object]:
        """What all cells share."""
        side = world.pipe.defaults.size[0]
        return {**to_dict(self), "sides": sides(side), "lefts": lefts(side), "world": world.mark, "device": budget.device}


def sides(side: int) -> tuple[int, ...]:
    """Original sizes that are told: as training shrank, between them, and none."""
    return side // 4, 3 * side // 8, side // 2, side


def learn_sizes(name: str, plan: ToldPlan, world: World, budget: Budget) -> Results:
    """Three arms on the drawings of which some are blurred."""
    side = world.pipe.defaults.size[0]
    told = shrunk(world, budget.work / "latents")
    sharp = (told.told["original_size"][:, 0] == side).nonzero().flatten()
    arms = {DROPPED: told.rows(sharp), KEPT: told.saying(**whole(side)), SIZED: told}
    details = (Metric(f"detail@{n}", f"detail over that of real drawings, told {n} pixels", "higher") for n in sides(side))
    lost = Metric("loss", "validation loss, mean over t")
    recall = Metric(f"recall@{plan.trial.steps[0]}", "real pictures within the drawn ones' manifold", "higher", "share")
    metrics = (lost, *judgements(plan.trial), recall, *details)
    study = Study(
        name, {arm: taught.mark for arm, taught in arms.items()}, plan.trial.seeds, "images", metrics, plan.setting(world, budget)
    )
    return study.run(partial(_sized, arms=arms, plan=plan, world=world, budget=budget), budget.work)


def _sized(arm: str, seed: int, folder: Path, arms: Mapping[str, Taught], plan: ToldPlan, world: World, budget: Budget) -> Cell:
    task, side = trained(Arm(plan.shape), plan.trial, world, budget, seed, arms[arm]), world.pipe.defaults.size[0]
    real = detail(torch.stack([world.source.at(side)[i].image for i in asked_for(plan, world).rows]))
    found: dict[str, float | None] = {f"detail@{n}": None for n in sides(side)}
    for n in sides(side) if arm == SIZED else (side,):
        found[f"detail@{n}"] = detail(drawn(task, plan, world, folder / f"told-{n}", original_size=(n, n))) / real
    found |= {"loss": losses(task, world, told=whole(side))["loss"], **judged(task, plan.trial, world, folder)}
    return Cell(found, plan.trial.images)


def learn_crops(name: str, plan: ToldPlan, world: World, budget: Budget) -> Results:
    """Two arms on squares cut out of larger pictures."""
    side = world.pipe.defaults.size[0]
    told = cropped(world, budget.work / "latents")
    arms = {CUT: told.saying(**whole(side)), CROPPED: told}
    middles = (Metric(f"middle@{n}", f"middle of the ink, told to begin {n} pixels from the left", "lower") for n in lefts(side))
    metrics = (Metric("cut", "drawings cut by the border, told (0, 0)", "lower", "share"), *middles)
    study = Study(
        name, {arm: taught.mark for arm, taught in arms.items()}, plan.trial.seeds, "images", metrics, plan.setting(world, budget)
    )
    return study.run(partial(_cropped, arms=arms, plan=plan, world=world, budget=budget), budget.work)


def lefts(side: int) -> tuple[int, ...]:
    """Left edges that are told, from a quarter of a picture's side to all of it. None are (0, 0), which whole pictures are told: they stand
    in the middle, as crops that begin at half of the side do.
    """
    return side // 4, side // 2, 3 * side // 4, side


def _cropped(arm: str, seed: int, folder: Path, arms: Mapping[str, Taught], plan: ToldPlan, world: World, budget: Budget) -> Cell:
    trial, side = replace(plan.trial, images=plan.crops), world.pipe.defaults.size[0]
    task = trained(Arm(plan.shape), trial, world, budget, seed, arms[arm])
    told = lefts(side) if arm == CROPPED else ()
    images = {n: drawn(task, plan, world, folder / f"left-{n}", crop=(0, n)) for n in (0, *told)}
    middles = {f"middle@{n}": middle(images[n]) if n in told else None for n in lefts(side)}
    return Cell({"cut": float(cut(images[0]).double().mean()), **middles}, trial.images)


def known_crops(plan: ToldPlan, world: World, budget: Budget) -> dict[str, float]:
    """Share of training pictures that are found to be cut: of those told to begin at (0, 0), which are whole but for a few, and of all."""
    told = cropped(world, budget.work / "latents")
    parts = {"told (0, 0)": (told.told["crop"] == 0).all(1).nonzero().flatten(), "all": torch.arange(len(told.data.latents))}
    return {name: float(cut(_seen(told.data.latents[rows[: plan.drawn]], world)).double().mean()) for name, rows in parts.items()}


def _seen(latents: Tensor, world: World) -> Tensor:
    """(N, 3, H, W) uint8 through the codec, as drawn pictures come."""
    return ((world.pipe.decode(latents.float()) + 1) * 127.5).round().to(torch.uint8).cpu()


def asked_for(plan: ToldPlan, world: World) -> Selection:
    """The test pairs that are drawn again and again."""
    return select(world.source, world.judge, "test", plan.drawn, 0)


def drawn(task: DiffusionTask, plan: ToldPlan, world: World, folder: Path, **told: Sequence[float]) -> Tensor:
    """(N, 3, S, S) uint8, drawn where the network is told these numbers and else that nothing was done to the picture."""
    pipe = AsTrained(world.around(Denoiser(task.net, task.meaning)), options={"micro": told})
    order = Order(0, plan.trial.steps[0], plan.trial.guidance, 64, world.pipe.defaults.size[0])
    return draw(pipe, asked_for(plan, world).prompts, order, folder / "pictures").images
