"""How the shipped perceptual network is made, and how it compares with MSE and SSIM on drawings and distortions that it never saw.

Two questions, each asked of taught distortions and of those kept back (`training/distortions.py`): is the stronger of two of a kind
further (`order`)? And over all kinds and strengths of one drawing, does the distance grow with what the judge no longer recognises
(`agreement`, Spearman's rank correlation with the fall of the log-probability of the true concept)? The judge measures; it taught nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.config import to_dict
from ..core.errors import DataError
from ..core.rng import Draws, generator
from ..data.sources import open_source
from ..perceptual import Perceptual, PerceptualConfig, PerceptualNet
from ..training.batches import Columns
from ..training.distortions import KEPT_BACK, TAUGHT, Distortion
from ..training.loop import TrainConfig, train
from ..training.optimizers import OptimizerConfig
from ..training.perceptual import PerceptualTask, PerceptualTaskConfig
from .judge import Judge
from .judge_recipe import may_train
from .metrics import Score, ssim
from .pictures import Pictures, resized

STRENGTHS = (0.1, 0.25, 0.5, 0.75, 1.0)
Distance = Callable[[Tensor, Tensor], Tensor]


def _config() -> TrainConfig:
    optimizer = OptimizerConfig(lr=1e-3, warmup=50, decay_from=0.4, weight_decay=1e-4)
    # A seed of its own: neither the judge's nor the critic's.
    return TrainConfig(steps=1000, optimizer=optimizer, ema=0.995, seed=2)


@dataclass(frozen=True)
class PerceptualRecipe:
    """`batch` drawings a step; `held_out` drawings of the test split measure the result."""

    net: PerceptualConfig = field(default_factory=PerceptualConfig)
    task: PerceptualTaskConfig = field(default_factory=PerceptualTaskConfig)
    batch: int = 32
    held_out: int = 100
    train: TrainConfig = field(default_factory=_config)


def train_perceptual(data: Path, out: Path, recipe: PerceptualRecipe, run: Path, judge: Judge, quiet: bool = False) -> Perceptual:
    """Train on the trainable train split of the EmojiWorld folder `data`, measure on the test split, and save the network in `out`;
    checkpoints and logs go to `run`, and a run that was stopped goes on there. Raises `DataError` when nothing may be trained on.
    """
    pictures = Pictures.of(open_source(data, split=None, licences=None))
    rows = pictures.rows(lambda i: may_train(pictures, i))
    if len(rows) < 2:
        raise DataError(f"{len(rows)} drawings to train a perceptual network on", "two of the train split, under a licence that may ship")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator((recipe.train.seed, "perceptual", 0)).initial_seed())
        net = PerceptualNet(recipe.net)
    stream = Columns({"images": pictures.images[torch.tensor(rows)]}, recipe.batch, recipe.train.seed)
    train(PerceptualTask(net, recipe.task), {"train": stream}, recipe.train, run, quiet=quiet).settle(net)
    perceptual = Perceptual(net.cpu(), {"recipe": to_dict(recipe), "trained_on": {"drawings": len(rows)}})
    unseen = pictures.rows(lambda i: pictures.split[i] == "test")[: recipe.held_out]
    perceptual.card["held_out"] = measure(perceptual, pictures, unseen, judge)
    perceptual.save(out)
    return perceptual


def measure(perceptual: Perceptual, pictures: Pictures, rows: list[int], judge: Judge) -> dict[str, Any]:
    """By group of distortions, by name of a distance: `order` and `agreement`, see above, with 95% intervals over the `rows` whose
    concepts the judge knows; empty where it knows none.
    """
    distances: Mapping[str, Distance] = {
        "perceptual": perceptual,
        "mse": lambda a, b: (a - b).square().mean((1, 2, 3)),
        "1 - ssim": lambda a, b: 1 - ssim(a, b),
    }
    known = [row for row in rows if pictures.concept[row] in judge.concept_index]
    if not known:
        return {}
    truth = torch.tensor([judge.concept_index[pictures.concept[row]] for row in known])
    groups = {"taught": TAUGHT, "kept back": KEPT_BACK}
    return {name: _measured(distances, pictures.unit(known), truth, judge, tuple(kinds.values())) for name, kinds in groups.items()}


@torch.no_grad()
def _measured(
    distances: Mapping[str, Distance], images: Tensor, truth: Tensor, judge: Judge, kinds: Sequence[Distortion]
) -> dict[str, Any]:
    count = len(images)
    far = {name: torch.zeros(len(kinds), len(STRENGTHS), count) for name in distances}
    lost = torch.zeros(len(kinds), len(STRENGTHS), count)
    for k, change in enumerate(kinds):
        for s, strength in enumerate(STRENGTHS):
            changed = 1 - 2 * change((1 - images) / 2, torch.full((count,), strength), Draws(0, 0)).clamp(0, 1)
            lost[k, s] = -_told(judge, changed, truth)
            for name, distance in distances.items():
                far[name][k, s] = torch.cat([distance(a, b) for a, b in zip(images.split(32), changed.split(32), strict=True)])
    return {name: {"order": asdict(_order(d)), "agreement": asdict(_agreement(d, lost))} for name, d in far.items()}


def _order(far: Tensor) -> Score:
    """How often the stronger of two neighbours in strength is further, of distances (kinds, strengths, N)."""
    return Score.mean((far[:, 1:] > far[:, :-1]).float().mean((0, 1)))


def _agreement(far: Tensor, lost: Tensor) -> Score:
    """Rank correlation over all kinds and strengths of a drawing, of (kinds, strengths, N) each."""
    return Score.mean(torch.tensor([spearman(a.flatten(), b.flatten()) for a, b in zip(far.unbind(2), lost.unbind(2), strict=True)]))


def _told(judge: Judge, images: Tensor, truth: Tensor) -> Tensor:
    """(B,) log-probability of the true concept."""
    logits = judge(resized(images, judge.config.size)).concept
    return logits.log_softmax(1)[torch.arange(len(truth)), truth]


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation of a (N,) and b (N,); 0 where one of them is constant."""
    from scipy.stats import spearmanr

    if len(a.unique()) < 2 or len(b.unique()) < 2:
        return 0.0
    return float(spearmanr(a.numpy(), b.numpy()).statistic)
