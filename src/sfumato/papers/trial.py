"""Training objectives compared by what small networks learn from them: one MM-DiT per arm and seed, equal pictures seen, equal starts.

Each cell trains on EmojiWorld's latents, then draws never-seen (concept, style) pairs at several numbers of Euler steps for the judge,
and takes the loss on held-out drawings at even noise levels. A paper brings the arms and the rule; this file brings the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..backbones.mmdit import MMDiT, MMDiTConfig
from ..core.config import to_dict
from ..core.denoiser import Denoiser, Meaning
from ..core.files import write_bytes
from ..core.rng import normal
from ..data.sources import Source, open_source
from ..evaluate.evaluate import evaluate
from ..evaluate.judge import Judge
from ..objectives.denoising import Denoising
from ..pipelines import TextToImage, load
from ..text import Cached
from ..training.diffusion import DiffusionTask, LatentStream
from ..training.loop import TrainConfig, train
from ..training.optimizers import OptimizerConfig
from ..training.precompute import Precomputed, precompute
from ..training.recipes import ModelRecipe
from .claims import Budget, Outcome, drawings
from .plots import Line, Panel, chart
from .study import Cell, Metric, Results, Rule, Study
from .tuning import AsTrained, fingerprint

# Even noise levels of the validation loss; t = 1, where the target is all of the data's variance, is left out (arXiv 2403.03206).
LEVELS = tuple(k / 8 for k in range(1, 8))


@dataclass(frozen=True)
class Trial:
    """How large the comparison is. `images`: training pictures an arm sees. `pictures`: test pairs drawn at each number of `steps`.

    The widths of `shape` that depend on codec and text encoder are set from them.
    """

    images: int
    batch: int
    shape: MMDiTConfig
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


@dataclass(frozen=True)
class World:
    """What all cells share: drawings, latents and captions of the train and validation splits, a pipeline to put networks into, a judge."""

    source: Source
    train: Precomputed
    validation: Precomputed
    pipe: TextToImage
    judge: Judge

    def mark(self) -> str:
        """A fingerprint: cells measured on other drawings, through another codec or by another judge are other cells."""
        return fingerprint(self.source.column("id"), (self.pipe.codec, self.judge.net, self.judge.styler))


def open_world(budget: Budget) -> World:
    """Drawings, codec, text encoder and judge as `budget` names them. Raises `DataError` or `WeightsError` for what is missing."""
    folder = drawings(budget)
    judge = Judge.load(budget.judge)
    judge.net.to(budget.device)
    judge.styler.to(budget.device)
    pipe = load(budget.model, device=budget.device, dtype=torch.float32)
    return build_world(folder, replace(pipe, encoder=Cached(pipe.encoder, 4096)), judge, budget.work / "latents")


def build_world(folder: Path, pipe: TextToImage, judge: Judge, cache: Path) -> World:
    """The world of an EmojiWorld folder through these parts; latents and text states are kept in `cache`."""
    opened = partial(open_source, folder, size=judge.config.size)
    train_split, validation = (precompute(opened(split=s), pipe.codec, pipe.encoder, cache) for s in ("train", "validation"))
    return World(opened(), train_split, validation, pipe, judge)


def metrics(trial: Trial) -> tuple[Metric, ...]:
    """Everything a cell measures."""
    found = [Metric("loss", "validation loss, mean over t")] + [Metric(f"loss@{t:g}", f"validation loss at t = {t:g}") for t in LEVELS]
    for n in trial.steps:
        found += [Metric(f"frechet@{n}", f"Fréchet distance, {n} steps"), Metric(f"kernel@{n}", f"kernel distance, {n} steps")]
        found += [Metric(f"{kind}@{n}", f"{kind} named right, {n} steps", "higher", "share") for kind in ("concept", "style")]
    return tuple(found)


def compare(name: str, arms: Mapping[str, Denoising], trial: Trial, world: World, budget: Budget, rule: Rule) -> Outcome:
    """Run the study and draw its pictures. `rule(results)` gives verdict, summary and the findings they rest on."""
    described = {
        arm: {"law": [type(o.law).__name__, to_dict(o.law)], "path": o.path.name, "prediction": o.prediction} for arm, o in arms.items()
    }
    setting = {**to_dict(trial), "world": world.mark(), "device": budget.device}
    study = Study(name, described, trial.seeds, "images", metrics(trial), setting)
    results = study.run(lambda arm, seed, folder: run_cell(arms[arm], trial, world, budget.device, seed, folder), budget.work)
    verdict, summary, decisive = rule(results)
    return Outcome((*decisive, *results.findings()), verdict, summary, trial.seeds, draw_results(trial, results, budget))


def run_cell(objective: Denoising, trial: Trial, world: World, device: str, seed: int, folder: Path) -> Cell:
    """Train one network and measure its averaged weights."""
    pipe = world.pipe
    torch.manual_seed(seed)
    net = MMDiT(_shape(trial.shape, pipe)).to(device)
    task = DiffusionTask(net, objective, Meaning(objective.prediction, objective.path.name), pipe.slots)
    stream = LatentStream(world.train.latents, world.train.captions, world.train.table, ModelRecipe().forms, trial.batch, seed)
    config = TrainConfig(trial.images // trial.batch, trial.optimizer, ema=trial.ema, device=device, seed=seed)
    run = train(task, {"train": stream}, config, folder / "train", quiet=True)
    with run.averaged():
        net.eval().requires_grad_(False)
        found: dict[str, float | None] = {**losses(task, world.validation, device)}
        drawn = AsTrained(replace(pipe, denoiser=Denoiser(net, task.meaning)))
        for n in trial.steps:
            options: dict[str, Any] = {"count": trial.pictures, "steps": n, "guidance": trial.guidance, "batch": 64}
            report = evaluate(drawn, world.source, world.judge, out=folder / f"{n}-steps", model=folder.name, **options)
            found |= {f"frechet@{n}": report.distance.frechet.value, f"kernel@{n}": report.distance.kernel.value}
            found |= {f"concept@{n}": report.generated.concept_top1.value, f"style@{n}": report.generated.style.value}
    # The checkpoints served to resume; pictures and reports stay.
    shutil.rmtree(folder / "train")
    return Cell(found, spent=config.steps * trial.batch)


def _shape(shape: MMDiTConfig, pipe: TextToImage) -> MMDiTConfig:
    pooled = pipe.encoder.pooled_width
    assert pooled is not None
    side = pipe.defaults.size[0] // pipe.codec.factor // shape.patch
    return replace(shape, channels=pipe.codec.latent_channels, text_width=pipe.encoder.width, pooled_width=pooled, base_grid=side)


@torch.no_grad()
def losses(task: DiffusionTask, held_out: Precomputed, device: str) -> dict[str, float]:
    """Mean loss over held-out drawings under their second caption, with fixed noise, at each of `LEVELS`, and its mean over them."""
    denoiser = Denoiser(task.net, task.meaning)
    found: dict[str, float] = {}
    for t in LEVELS:
        errors = []
        for rows in torch.arange(len(held_out.latents)).split(64):
            x0 = held_out.latents[rows].float().to(device)
            eps = torch.stack([normal(x0.shape[1:], (int(row), "validation", 0)) for row in rows]).to(device)
            sample = task.objective.at(x0, eps, torch.full((len(rows),), t, device=device))
            cond = held_out.table.conditions(held_out.captions[rows, 1]).to(device)
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
    few, steps = trial.steps[0], [str(n) for n in trial.steps]
    panels = [Panel(title, steps, "Euler steps", lines([f"{kind}@{n}" for n in steps])) for kind, title in titles.items()]
    panels.append(Panel("validation loss", [f"{t:g}" for t in LEVELS], "t", lines([f"loss@{t:g}" for t in LEVELS])))
    paths = [chart(panels, budget.pictures / f"{budget.name}-curves.svg")]
    for arm, folders in results.folders.items():
        paths.append(budget.pictures / f"{budget.name}-{arm}-{few}-steps.png")
        write_bytes(paths[-1], (folders[0] / f"{few}-steps" / "grid.png").read_bytes())
    return tuple(paths)
