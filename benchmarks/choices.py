"""What to choose for a small model: arms that differ from one base in one thing, trained at equal FLOPs with three seeds on EmojiWorld.

    python benchmarks/choices.py                     # all arms; the table of docs/models.md
    python benchmarks/choices.py --arms base adamw   # some of them
    python benchmarks/choices.py --images 192        # to see that it runs

Cells that are finished are kept in --work; the same command goes on. The error is that of the flow eps - x0 on held-out drawings, whatever
an arm predicts, so that arms can be compared; the rest is the judge's word on drawings of never-seen pairs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sfumato.backbones.mmdit import MMDiTConfig
from sfumato.core.denoiser import Denoiser
from sfumato.objectives.denoising import Denoising
from sfumato.objectives.times import Uniform
from sfumato.papers.arms import Arm, Trial
from sfumato.papers.claims import Budget
from sfumato.papers.study import Cell, Metric, Results
from sfumato.papers.trial import as_costly, cost, study_of, trained
from sfumato.papers.trial_measures import judged, judgements, probes
from sfumato.papers.world import World, open_world
from sfumato.training.diffusion import DiffusionTask

SHAPE = MMDiTConfig(depth=6, width=192, heads=3, positions="span")  # emoji-mmdit-64's
ARMS: Mapping[str, Arm] = {
    "base": Arm(SHAPE),
    "patch 1, 64 tokens": Arm(replace(SHAPE, patch=1)),
    "wide, 3 x 256": Arm(replace(SHAPE, depth=3, width=256, heads=4)),
    "deep, 12 x 128": Arm(replace(SHAPE, depth=12, width=128, heads=2)),
    # eps says nothing of x0 at t = 1, where Euler begins: on this path it cannot be drawn with.
    "predicts x0": Arm(SHAPE, Denoising(prediction="x0")),
    "uniform times": Arm(SHAPE, Denoising(Uniform())),
    "adamw": Arm(SHAPE, changes={"name": "adamw"}),
    "half the rates": Arm(SHAPE, changes={"lr": 5e-4, "muon_lr": 1e-3}),
    "twice the rates": Arm(SHAPE, changes={"lr": 2e-3, "muon_lr": 4e-3}),
    "four times the rates": Arm(SHAPE, changes={"lr": 4e-3, "muon_lr": 8e-3}),
    "ten times the rates": Arm(SHAPE, changes={"lr": 1e-2, "muon_lr": 2e-2}),
}
TRIAL = Trial(images=19_200, batch=96, ema=0.98, pictures=160, steps=(20,))
SIZE = 64
SHOWN = ("error", "kernel@20", "alignment@20", "style@20", "concept@20")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--images", type=int, default=TRIAL.images, help="training pictures of the base")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--work", type=Path, default=Path("runs/choices"))
    asked = parser.parse_args()
    budget = Budget("cpu", work=asked.work, data=asked.data)
    world, trial = open_world(budget, SIZE), TRIAL.scaled(asked.images / TRIAL.images)
    arms = {name: as_costly(ARMS[name], ARMS["base"], trial, world) for name in asked.arms}
    metrics = (Metric("error", "error of the flow"), *judgements(trial))
    study = study_of("choices", arms, trial, world, budget, metrics, "flops")
    print(table(study.run(partial(cell, arms=arms, trial=trial, world=world, budget=budget), budget.work), arms, trial))


def cell(name: str, seed: int, folder: Path, arms: Mapping[str, Arm], trial: Trial, world: World, budget: Budget) -> Cell:
    arm = arms[name]
    task = trained(arm, trial, world, budget, seed)
    return Cell({"error": error(task, world), **judged(task, trial, world, folder)}, arm.images * cost(arm, world))


@torch.no_grad()
def error(task: DiffusionTask, world: World) -> float:
    """Mean squared error of the flow over held-out drawings and noise levels."""
    denoiser, found = Denoiser(task.net, task.meaning), list[torch.Tensor]()
    flow = Denoising()
    x0 = world.validation.latents.float()
    for sample, cond in probes(task, world, "choices", len(x0)):
        eps = (sample.x_t - (1 - sample.t.view(-1, 1, 1, 1)) * x0) / sample.t.view(-1, 1, 1, 1)
        wanted = flow.at(x0, eps, sample.t)
        found.append(flow.loss(denoiser.flow(sample.x_t, sample.t, cond), wanted))
    return float(torch.cat(found).mean())


def table(results: Results, arms: Mapping[str, Arm], trial: Trial) -> str:
    """Means over the seeds with their 95% intervals, as Markdown."""
    metrics = [m for m in results.metrics if m.key in SHOWN]
    head = ["arm", "pictures", *(m.title for m in metrics)]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, arm in arms.items():
        means = [results.mean(name, m.key) for m in metrics]
        cells = ["not estimable" if m is None else f"{m[0]:.3f} [{m[1][0]:.3f}, {m[1][1]:.3f}]" for m in means]
        rows.append([name, f"{trial.steps_of(arm) * trial.batch:,}", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
