"""How the shipped critic is made: train on what it may see, measure on what it never saw (`critic_card.py`), write both down."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..core.config import to_dict
from ..core.errors import DataError
from ..core.rng import generator
from ..data.scenes import Cast
from ..data.sources import open_source
from ..training.batches import Columns
from ..training.loop import TrainConfig, train
from ..training.optimizers import OptimizerConfig
from .critic import Critic
from .critic_card import measure, scene_questions
from .critic_lessons import DrawingQuestions, Lessons, Pair, Questions, Rivals, SceneQuestions
from .critic_net import CriticConfig, CriticNet
from .critic_task import Aligner, CriticTask, CriticTaskConfig
from .judge_recipe import may_train
from .lessons import Scenery, scenery
from .pictures import Pictures
from .sentences import Phrases


def _config() -> TrainConfig:
    optimizer = OptimizerConfig(name="muon", lr=1e-3, muon_lr=2e-3, weight_decay=0.05, warmup=50, decay_from=0.3)
    # A seed of its own: nothing the critic does repeats what the judge, trained from seed 0, did.
    return TrainConfig(steps=1100, optimizer=optimizer, clip=2.0, ema=0.995, seed=1)


@dataclass(frozen=True)
class CriticRecipe:
    """Everything that makes a critic, given the drawings. A step sees `batch` drawings and `scenes` scenes of the `composed` ones;
    `held_out` scenes of the test split measure it.
    """

    net: CriticConfig = field(default_factory=CriticConfig)
    task: CriticTaskConfig = field(default_factory=CriticTaskConfig)
    batch: int = 32
    scenes: int = 32
    composed: int = 3000
    held_out: int = 400
    difficulties: tuple[int, ...] = (1, 2, 3, 4, 5)
    train: TrainConfig = field(default_factory=_config)


def train_critic(data: Path, out: Path, recipe: CriticRecipe, run: Path, quiet: bool = False) -> Critic:
    """Train on the trainable train split of the EmojiWorld folder `data`, measure on the rest, and save the critic in `out`; checkpoints
    and logs go to `run`, and a run that was stopped goes on there. Raises `DataError` when nothing may be trained on.
    """
    pictures = Pictures.of(open_source(data, split=None, licences=None, size=recipe.net.size))
    cast, seed = Cast.open(data), recipe.train.seed
    scenes = scenes_of(data, recipe, "train", recipe.composed)
    lessons, shown = learn(pictures, scenes, scene_questions(cast, scenes, seed), recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator((seed, "critic", 0)).initial_seed())
        net, aligner = CriticNet(recipe.net), Aligner(recipe.net)
    train(CriticTask(net, aligner, recipe.task), {"train": lessons}, recipe.train, run, quiet=quiet).settle(net)
    critic = Critic(net.cpu(), recipe.net, {"recipe": to_dict(recipe), "trained_on": {"drawings": len(shown), "scenes": len(scenes)}})
    styles = frozenset(pictures.style[i] for i in shown)
    critic.card["held_out"] = measure(critic, pictures, styles, scenes_of(data, recipe, "test", recipe.held_out), cast, seed)
    critic.save(out)
    return critic


def learn(pictures: Pictures, scenes: Scenery, pairs: list[list[Pair]], recipe: CriticRecipe) -> tuple[Lessons, list[int]]:
    """The lessons, every caption's states among them (minutes of a core), and the numbers of the drawings that they show."""
    seed = recipe.train.seed
    allowed = pictures.rows(lambda i: may_train(pictures, i))
    rivals = Rivals(pictures, allowed)
    # A style's only concept has no wrong caption of its style.
    rows = [row for row in allowed if rivals.pair(row, 0, "concept", random.Random(0))]
    if not rows:
        raise DataError("no drawings to train a critic on", "two concepts in a style, of the train split and under a licence that may ship")
    said = [caption for row in rows for caption in pictures.captions[row]]
    said += [caption for some in pairs for pair in some for caption in (pair.true, pair.wrong)]
    asked: dict[str, Questions] = {
        "drawings": DrawingQuestions(rivals, Columns({"row": torch.tensor(rows)}, recipe.batch, seed)),
        "scenes": SceneQuestions(scenes.images, pairs, Columns({"row": torch.arange(len(scenes))}, recipe.scenes, seed + 1)),
    }
    return Lessons(asked, Phrases(said)), rows


def scenes_of(data: Path, recipe: CriticRecipe, split: str, count: int) -> Scenery:
    """`count` scenes of a split, drawn at the network's size."""
    # Not the judge's scenes: those are of seed 1. As many processes as torch has threads: one where it was given one core.
    workers = torch.get_num_threads()
    return scenery(data, count, (split,), seed=2, difficulties=recipe.difficulties, size=recipe.net.size, workers=workers)
