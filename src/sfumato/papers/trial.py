"""What small networks learn, compared: one network per arm and seed, trained from its start on equal means, then looked at.

Each cell trains on EmojiWorld's latents, then draws never-seen (concept, style) pairs at several numbers of Euler steps for the judge,
and takes the loss on held-out drawings at even noise levels. A paper brings the arms (shapes, objectives, optimisers) and the rule.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..backbones import backbones
from ..core.config import to_dict
from ..core.denoiser import Denoiser, Meaning
from ..core.files import read_tensors, write_bytes, write_tensors
from ..core.program import Network
from ..core.rng import normal
from ..evaluate.evaluate import evaluate
from ..objectives.denoising import Denoising
from ..pipelines import TextToImage
from ..training.diffusion import DiffusionTask, LatentStream
from ..training.loop import TrainConfig, train
from ..training.optimizers import OptimizerConfig
from ..training.recipes import ModelRecipe
from .claims import Budget, Outcome
from .plots import Line, Panel, chart
from .study import Cell, Equal, Metric, Results, Rule, Study
from .tuning import AsTrained
from .world import World

# Even noise levels of the validation loss; t = 1, where the target is all of the data's variance, is left out (arXiv 2403.03206).
LEVELS = tuple(k / 8 for k in range(1, 8))


@dataclass(frozen=True)
class Arm:
    """What is particular to one arm. `shape`: a family's config; the sizes that depend on codec and text encoder are set from them.

    `changes`: of the trial's optimiser.   `images`: training pictures, 0 = the trial's.
    """

    shape: Any
    objective: Denoising = field(default_factory=Denoising)
    changes: Mapping[str, Any] = field(default_factory=dict)
    images: int = 0

    def described(self) -> dict[str, Any]:
        """As JSON values: they name the cells."""
        asked = self.objective
        objective = {"law": [type(asked.law).__name__, to_dict(asked.law)], "path": asked.path.name, "prediction": asked.prediction}
        shape = [type(self.shape).__name__, to_dict(self.shape)]
        return {"shape": shape, "objective": objective, "changes": dict(self.changes), "images": self.images}


@dataclass(frozen=True)
class Trial:
    """How large the comparison is. `images`: training pictures an arm sees. `pictures`: test pairs drawn at each number of `steps`."""

    images: int
    batch: int
    seeds: tuple[int, ...] = (0, 1, 2)
    pictures: int = 472
    steps: tuple[int, ...] = (5, 10, 25, 50)
    guidance: float = 3.0
    ema: float = 0.995
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(name="muon", lr=1e-3, muon_lr=2e-3, warmup=60, decay_from=0.5, weight_decay=0.01)
    )

    def scaled(self, scale: float) -> Trial:
        """The same at `scale` times the pictures, at least one step and two drawings."""
        images, pictures = max(self.batch, int(scale * self.images)), max(2, int(scale * self.pictures))
        return self if scale == 1.0 else replace(self, images=images, pictures=pictures)

    def steps_of(self, arm: Arm) -> int:
        """Optimiser steps of an arm."""
        return (arm.images or self.images) // self.batch


def metrics(trial: Trial) -> tuple[Metric, ...]:
    """Everything a cell measures."""
    lost = (Metric(f"loss@{t:g}", f"validation loss at t = {t:g}") for t in LEVELS)
    return (Metric("loss", "validation loss, mean over t"), *lost, *judgements(trial))


def judgements(trial: Trial) -> tuple[Metric, ...]:
    """What the judge says of pictures drawn at each number of steps."""
    found = list[Metric]()
    for n in trial.steps:
        found += [Metric(f"frechet@{n}", f"Fréchet distance, {n} steps"), Metric(f"kernel@{n}", f"kernel distance, {n} steps")]
        found += [Metric(f"{kind}@{n}", f"{kind} named right, {n} steps", "higher", "share") for kind in ("concept", "style")]
        found += [Metric(f"alignment@{n}", f"picture and caption, cosine, {n} steps", "higher")]
    return tuple(found)


def compare(name: str, arms: Mapping[str, Arm], trial: Trial, world: World, budget: Budget, rule: Rule) -> Outcome:
    """Run the study at equal pictures and draw its own. `rule(results)` gives verdict, summary and the findings they rest on."""
    return concluded(run_study(name, arms, trial, world, budget), trial, budget, rule)


def run_study(name: str, arms: Mapping[str, Arm], trial: Trial, world: World, budget: Budget, equal: Equal = "images") -> Results:
    """Train and measure every arm with every seed."""
    setting = {**to_dict(trial), "world": world.mark, "device": budget.device}
    study = Study(name, {arm: a.described() for arm, a in arms.items()}, trial.seeds, equal, metrics(trial), setting)
    return study.run(lambda arm, seed, folder: run_cell(arms[arm], trial, world, budget, seed, folder, equal), budget.work)


def concluded(results: Results, trial: Trial, budget: Budget, rule: Rule) -> Outcome:
    """What a rule makes of results, and their pictures."""
    verdict, summary, decisive = rule(results)
    return Outcome((*decisive, *results.findings()), verdict, summary, trial.seeds, draw_results(trial, results, budget))


def run_cell(arm: Arm, trial: Trial, world: World, budget: Budget, seed: int, folder: Path, equal: Equal = "images") -> Cell:
    """Train one network and measure its averaged weights."""
    task = trained(arm, trial, world, budget, seed)
    images = trial.steps_of(arm) * trial.batch
    spent = images * flops(task.net, world) if equal == "flops" else images
    return Cell({**losses(task, world), **judged(task, trial, world, folder)}, spent)


def trained(arm: Arm, trial: Trial, world: World, budget: Budget, seed: int) -> DiffusionTask:
    """The arm's network with its averaged weights, trained once for all studies that begin with it."""
    torch.manual_seed(seed)
    objective, optimizer = arm.objective, replace(trial.optimizer, **arm.changes)
    net = backbones.build(fitted(arm.shape, world.pipe)).to(budget.device)
    task = DiffusionTask(net, objective, Meaning(objective.prediction, objective.path.name), world.slots(net))
    config = TrainConfig(trial.steps_of(arm), optimizer, ema=trial.ema, device=budget.device, seed=seed)
    key = json.dumps([arm.described(), trial.batch, to_dict(config), world.mark], sort_keys=True)
    folder = budget.work / "networks" / hashlib.sha256(key.encode()).hexdigest()[:12]
    kept = folder / "net.safetensors"
    if not kept.is_file():
        data = world.train
        stream = LatentStream(data.latents, data.captions, world.table(data, net), ModelRecipe().forms, trial.batch, seed)
        run = train(task, {"train": stream}, config, folder / "train", quiet=True)
        with run.averaged():
            write_tensors(kept, {name: tensor.cpu() for name, tensor in net.state_dict().items()})
        shutil.rmtree(folder / "train")
    net.load_state_dict(read_tensors(kept))
    net.eval().requires_grad_(False)
    return task


def fitted(shape: Any, pipe: TextToImage) -> Any:
    """`shape` with what depends on codec, text encoder and picture size set from `pipe`."""
    side = pipe.defaults.size[0] // pipe.codec.factor // shape.patch
    sizes: dict[str, Any] = {
        "channels": pipe.codec.latent_channels,
        "text_width": pipe.encoder.width,
        "pooled_width": pipe.encoder.pooled_width,
    }
    sizes |= {"base_grid": side, "grid": side, "span": float(side), "words": pipe.encoder.max_tokens}
    return replace(shape, **{f.name: sizes[f.name] for f in fields(shape) if f.name in sizes})


def flops(net: Network, world: World) -> float:
    """FLOPs of one training picture with a caption of mean length: three forward passes of two for every multiply-add."""
    words = float(world.train.table.offsets.diff().double().mean())
    shape: Any = net.config
    tokens = {"image": (world.pipe.defaults.size[0] // world.pipe.codec.factor // shape.patch) ** 2, "text": round(words), "time": 1}
    return 6.0 * sum(info.cost(tokens) for info in net.sites())


def judged(task: DiffusionTask, trial: Trial, world: World, folder: Path, **drawing: Any) -> dict[str, float | None]:
    """What the judge says of never-seen pairs, drawn at each number of steps; `drawing`: further options of the pipeline."""
    drawn = AsTrained(world.around(Denoiser(task.net, task.meaning)), world.judge.config.size, drawing)
    found: dict[str, float | None] = {}
    for n in trial.steps:
        options: dict[str, Any] = {"count": trial.pictures, "steps": n, "guidance": trial.guidance, "batch": 64}
        report = evaluate(drawn, world.source, world.judge, out=folder / f"{n}-steps", model=folder.name, **options)
        seen, distance = report.generated, report.distance
        found |= {f"frechet@{n}": distance.frechet.value, f"kernel@{n}": distance.kernel.value, f"alignment@{n}": seen.alignment.value}
        found |= {f"concept@{n}": seen.concept_top1.value, f"style@{n}": seen.style.value}
    return found


@torch.no_grad()
def losses(task: DiffusionTask, world: World) -> dict[str, float]:
    """Mean loss over held-out drawings under their second caption, with fixed noise, at each of `LEVELS`, and its mean over them."""
    device, denoiser = next(task.net.parameters()).device, Denoiser(task.net, task.meaning)
    held_out, table = world.validation, world.table(world.validation, task.net)
    found: dict[str, float] = {}
    for t in LEVELS:
        errors = []
        for rows in torch.arange(len(held_out.latents)).split(64):
            x0 = held_out.latents[rows].float().to(device)
            eps = torch.stack([normal(x0.shape[1:], (int(row), "validation", 0)) for row in rows]).to(device)
            sample = task.objective.at(x0, eps, torch.full((len(rows),), t, device=device))
            cond = table.conditions(held_out.captions[rows, 1]).to(device)
            errors.append(task.objective.loss(denoiser.out(sample.x_t, sample.t, cond).pred["image"], sample))
        found[f"loss@{t:g}"] = float(torch.cat(errors).mean())
    return {"loss": sum(found.values()) / len(found), **found}


def draw_results(trial: Trial, results: Results, budget: Budget) -> tuple[Path, ...]:
    """The curves with intervals, and what each arm drew at the fewest steps with the first seed."""

    def lines(keys: Sequence[str]) -> list[Line]:
        means = {arm: [results.mean(arm, key) for key in keys] for arm in results.cells}
        return [Line(arm, [m and (m[0], *m[1]) for m in found]) for arm, found in means.items()]

    titles = {
        "frechet": "Fréchet distance (lower is better)",
        "concept": "share of concepts named right",
        "style": "share of styles named right",
    }
    steps = [str(n) for n in trial.steps]
    panels = [Panel(title, steps, "Euler steps", lines([f"{kind}@{n}" for n in steps])) for kind, title in titles.items()]
    panels.append(Panel("validation loss", [f"{t:g}" for t in LEVELS], "t", lines([f"loss@{t:g}" for t in LEVELS])))
    curves = chart(panels, budget.pictures / f"{budget.name}-curves.svg")
    return curves, *grids(results, f"{trial.steps[0]}-steps", budget)


def grids(results: Results, place: str, budget: Budget) -> tuple[Path, ...]:
    """What each arm drew with the first seed, beside the real drawings; `place`: the evaluation's folder in a cell's."""
    paths = []
    for arm, folders in results.folders.items():
        paths.append(budget.pictures / f"{budget.name}-{arm.replace(' ', '-')}-{place.split('/')[-1]}.png")
        write_bytes(paths[-1], (folders[0] / place / "grid.png").read_bytes())
    return tuple(paths)
