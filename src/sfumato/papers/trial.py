"""What small networks learn, compared: one network per arm and seed, trained from its start on equal means, then looked at.

Each cell trains on EmojiWorld's latents, then draws never-seen (concept, style) pairs at several numbers of Euler steps for the judge,
and takes the loss on held-out drawings at even noise levels. A paper brings the arms (shapes, objectives, optimisers) and the rule.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from ..backbones import backbones
from ..core.config import to_dict
from ..core.denoiser import Meaning
from ..core.errors import NonFiniteError
from ..core.files import read_tensors, write_tensors
from ..pipelines import TextToImage
from ..training import networks
from ..training.diffusion import DiffusionTask, LatentStream
from ..training.loop import TrainConfig, train
from ..training.recipes import ModelRecipe
from .arms import Arm, Trial
from .claims import Budget, Outcome
from .study import Cell, Equal, Metric, Results, Rule, Study
from .told import Taught, ToldStream
from .trial_measures import draw_results, flops, judged, losses, metrics
from .world import World


def run_study(name: str, arms: Mapping[str, Arm], trial: Trial, world: World, budget: Budget, equal: Equal = "images") -> Results:
    """Train and measure every arm with every seed."""
    study = study_of(name, arms, trial, world, budget, metrics(trial), equal)
    return study.run(lambda arm, seed, folder: run_cell(arms[arm], trial, world, budget, seed, folder, equal), budget.work)


def study_of(
    name: str,
    arms: Mapping[str, Arm],
    trial: Trial,
    world: World,
    budget: Budget,
    measured: tuple[Metric, ...],
    equal: Equal = "images",
    **more: Any,
) -> Study:
    """The study of these arms; `more`: what else its cells depend on."""
    described = {arm: a.described() for arm, a in arms.items()}
    return Study(name, described, trial.seeds, equal, measured, {**setting(trial, world, budget), **more})


def setting(trial: Trial, world: World, budget: Budget) -> dict[str, Any]:
    """What all cells of a trial depend on."""
    return {**to_dict(trial), "world": world.mark, "device": budget.device}


def concluded(results: Results, trial: Trial, budget: Budget, rule: Rule) -> Outcome:
    """What a rule makes of results, and their pictures."""
    verdict, summary, decisive = rule(results)
    return Outcome((*decisive, *results.findings()), verdict, summary, trial.seeds, draw_results(trial, results, budget))


def run_cell(arm: Arm, trial: Trial, world: World, budget: Budget, seed: int, folder: Path, equal: Equal = "images") -> Cell:
    """Train one network and measure its averaged weights."""
    task = trained(arm, trial, world, budget, seed)
    images = trial.steps_of(arm) * trial.batch
    spent = images * cost(arm, world) if equal == "flops" else images
    return Cell({**losses(task, world), **judged(task, trial, world, folder)}, spent)


def trained(arm: Arm, trial: Trial, world: World, budget: Budget, seed: int, taught: Taught | None = None) -> DiffusionTask:
    """The arm's network with its averaged weights, trained once for all studies that begin with it; on `taught` or the world's drawings."""
    torch.manual_seed(seed)
    objective, optimizer = arm.objective, replace(trial.optimizer, **arm.changes)
    # A shorter run warms up for as large a part of it.
    optimizer = replace(optimizer, warmup=max(1, optimizer.warmup * trial.steps_of(arm) // trial.steps_of(replace(arm, images=0))))
    net = backbones.build(fitted(arm.shape, world.pipe)).to(budget.device)
    task = DiffusionTask(net, objective, Meaning(objective.prediction, objective.path.name), world.slots(net))
    config = TrainConfig(trial.steps_of(arm), optimizer, ema=trial.ema, device=budget.device, seed=seed)
    own = [taught.mark] if taught else []
    key = json.dumps([arm.described(), trial.batch, to_dict(config), world.mark, *own], sort_keys=True)
    folder = budget.work / "networks" / hashlib.sha256(key.encode()).hexdigest()[:12]
    kept = folder / "net.safetensors"
    if not kept.is_file():
        data, told = (taught.data, taught.told) if taught else (world.train, {})
        stream = LatentStream(data.latents, data.captions, world.table(data, net), ModelRecipe().forms, trial.batch, seed)
        run = train(task, {"train": ToldStream(stream, told)}, config, folder / "train", quiet=True)
        with run.averaged():
            write_tensors(kept, {name: tensor.cpu() for name, tensor in net.state_dict().items()})
        shutil.rmtree(folder / "train")
    net.load_state_dict(read_tensors(kept))
    net.eval().requires_grad_(False)
    return task


def attempted(arm: Arm, trial: Trial, world: World, budget: Budget, seed: int) -> DiffusionTask | None:
    """`trained`, or None where training did not stay finite."""
    try:
        return trained(arm, trial, world, budget, seed)
    except NonFiniteError:
        return None


def cost(arm: Arm, world: World) -> float:
    """FLOPs of one of the arm's training pictures."""
    with torch.device("meta"):
        return flops(backbones.build(fitted(arm.shape, world.pipe)), world)


def as_costly(arm: Arm, base: Arm, trial: Trial, world: World) -> Arm:
    """`arm` with as many pictures as the FLOPs of `base` allow, in whole steps."""
    steps = round(trial.steps_of(base) * cost(base, world) / cost(arm, world))
    return replace(arm, images=max(1, steps) * trial.batch)


def fitted(shape: Any, pipe: TextToImage) -> Any:
    """`shape` with what depends on codec, text encoder and picture size set from `pipe`."""
    side = pipe.defaults.size[0] // pipe.codec.factor // getattr(shape, "patch", 1)
    sizes: dict[str, Any] = {"base_grid": side, "grid": side, "span": float(side), "words": pipe.encoder.max_tokens}
    sizes = {f.name: sizes[f.name] for f in fields(shape) if f.name in sizes}
    return replace(networks.fitted(shape, pipe.codec, pipe.encoder), **sizes)
