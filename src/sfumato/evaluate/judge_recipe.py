"""How the shipped judge is made: train on what it may see, measure on what it never saw (`judge_card.py`), write both down."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.config import to_dict
from ..core.errors import DataError
from ..core.rng import generator
from ..data.captions import phrase
from ..data.packages import TRAINABLE
from ..data.sources import open_source
from ..training.batches import Beside, Columns
from ..training.loop import TrainConfig, train
from ..training.optimizers import OptimizerConfig
from .cuts import Cuts
from .eyes import Eyes
from .judge import Judge
from .judge_card import measure, settle_chance
from .judge_net import JudgeConfig, JudgeNet, StyleNet
from .judge_task import JudgeTask, JudgeTaskConfig, StyleTask
from .kept import settle
from .lessons import COLOURS, Scenery, restyled, scenery
from .locator import MOST, LocatorTask
from .pictures import Pictures
from .reader import Boards, ReaderTask
from .sentences import sentence_vectors


def _config(steps: int, lr: float, ema: float, decay_from: float = 0.4) -> TrainConfig:
    optimizer = OptimizerConfig(lr=lr, weight_decay=0.05, warmup=50, decay_from=decay_from)
    return TrainConfig(steps=steps, optimizer=optimizer, clip=2.0, ema=ema)


@dataclass(frozen=True)
class Sets:
    """What is drawn for the lessons: how often each drawing by other hands, how many scenes to learn from and of each split to measure on.

    Scenes take half of each held-out split's first ones to settle scores (validation) or to measure (test).
    """

    hands: int = 6
    scenes: int = 14000
    held_out: int = 1200
    difficulties: tuple[int, ...] = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class JudgeRecipe:
    """Everything that makes a judge, given the drawings. `batch`: drawings; `things`: cuts from scenes beside them."""

    net: JudgeConfig = field(default_factory=JudgeConfig)
    task: JudgeTaskConfig = field(default_factory=JudgeTaskConfig)
    sets: Sets = field(default_factory=Sets)
    batch: int = 96
    things: int = 24
    train: TrainConfig = field(default_factory=lambda: _config(9000, 2e-3, 0.998, 0.3))
    style: TrainConfig = field(default_factory=lambda: _config(2500, 4e-3, 0.995))
    locate: TrainConfig = field(default_factory=lambda: _config(4000, 2e-3, 0.998))
    read: TrainConfig = field(default_factory=lambda: _config(4000, 2e-3, 0.995))


@dataclass(frozen=True)
class Lessons:
    """The trainable drawings as the Tasks want them, the scenes, and the names of the classes."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    drawings: dict[str, Tensor]
    scenes: Scenery


def train_judge(data: Path, out: Path, recipe: JudgeRecipe, run: Path, quiet: bool = False) -> Judge:
    """Train on the trainable train split of the EmojiWorld folder `data`, measure on the rest, and save the judge in `out`; checkpoints
    and logs go to `run`, and a run that was stopped goes on there. Raises `DataError` when nothing may be trained on.
    """
    pictures = Pictures.of(open_source(data, split=None, licences=None, size=recipe.net.size))
    lessons = learn(data, pictures, recipe)
    seed = recipe.train.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator((seed, "judge", 0)).initial_seed())
        net = JudgeNet(recipe.net, len(lessons.concepts), len(lessons.styles), len(COLOURS))
        styler, eyes = StyleNet(recipe.net, len(lessons.styles)), Eyes()
    labels = sentence_vectors([phrase(concept) for concept in lessons.concepts])
    drawings = {"train": Columns(lessons.drawings, recipe.batch, seed)}
    beside = {"train": Beside({"drawings": drawings["train"], "things": things(lessons, recipe)})}
    settle(net, train(JudgeTask(net, recipe.task, recipe.net.working, labels), beside, recipe.train, run / "concept", quiet=quiet))
    with torch.no_grad():
        net.names.copy_(net.embed_text(labels.to(net.names.device)).half())
    settle(styler, train(StyleTask(styler), drawings, recipe.style, run / "style", quiet=quiet))
    where = {"train": Columns(places(lessons.scenes), recipe.batch // 2, seed)}
    settle(eyes.locator, train(LocatorTask(eyes.locator), where, recipe.locate, run / "locate", quiet=quiet))
    settle(eyes.reader, train(ReaderTask(eyes.reader), {"train": Boards(64, seed)}, recipe.read, run / "read", quiet=quiet))
    judge = Judge(net, styler, recipe.net, lessons.concepts, lessons.styles, {"recipe": to_dict(recipe)}, eyes)
    judge.card["trained_on"] = {"drawings": len(lessons.drawings["images"]), "scenes": len(lessons.scenes)}
    held_out = {split: _scenes(data, recipe, split, recipe.sets.held_out) for split in ("validation", "test")}
    settle_chance(judge, held_out["validation"])
    judge.card |= measure(judge, pictures, held_out["test"])
    judge.save(out)
    return judge


def learn(data: Path, pictures: Pictures, recipe: JudgeRecipe) -> Lessons:
    """Draw the lessons; minutes of all cores at full size."""
    rows = pictures.rows(lambda i: may_train(pictures, i))
    if not rows:
        raise DataError("no picture to train a judge on", f"rows of the train split under {', '.join(TRAINABLE)} are needed")
    concepts, styles = sorted({pictures.concept[i] for i in rows}), sorted({pictures.style[i] for i in rows})
    svgs, chosen = open_source(data, split=None, licences=None).column("svg"), torch.tensor(rows)
    others = restyled(
        [svgs[i] for i in rows], [pictures.concept[i] for i in rows], recipe.sets.hands, seed=recipe.train.seed, size=recipe.net.size,
        workers=os.cpu_count() or 1,
    )  # fmt: skip
    drawings = {
        "images": pictures.images[chosen],
        "others": others,
        "concept": torch.tensor([concepts.index(pictures.concept[i]) for i in rows]),
        "style": torch.tensor([styles.index(pictures.style[i]) for i in rows]),
        "text": caption_vectors(pictures, rows),
    }
    return Lessons(tuple(concepts), tuple(styles), drawings, _scenes(data, recipe, "train", recipe.sets.scenes))


def _scenes(data: Path, recipe: JudgeRecipe, split: str, count: int) -> Scenery:
    sets = recipe.sets
    return scenery(data, count, (split,), seed=1, difficulties=sets.difficulties, size=recipe.net.size, workers=os.cpu_count() or 1)


def things(lessons: Lessons, recipe: JudgeRecipe) -> Cuts:
    """The things in the scenes of which at least half is seen."""
    scenes, index = lessons.scenes, {name: i for i, name in enumerate(lessons.concepts)}
    kept = [i for i in range(len(scenes.boxes)) if scenes.visible[i] >= 0.5 and scenes.concept[i] in index]
    columns = {
        "place": scenes.place[kept],
        "boxes": scenes.boxes[kept],
        "concept": torch.tensor([index[scenes.concept[i]] for i in kept]),
        "style": torch.tensor([lessons.styles.index(scenes.style[i]) for i in kept]),
        "colour": torch.tensor([COLOURS.index(scenes.colour[i]) for i in kept]),
    }
    return Cuts(scenes.images, Columns(columns, recipe.things, recipe.train.seed), recipe.net.size)


def places(scenes: Scenery) -> dict[str, Tensor]:
    """Columns of `LocatorTask`; things of which less than a quarter is seen are nobody's to find."""
    boxes, kind, taken = torch.zeros(len(scenes), MOST, 4), torch.full((len(scenes), MOST), -1), [0] * len(scenes)
    seen = [(int(m), box, 0) for m, box, share in zip(scenes.place, scenes.boxes, scenes.visible, strict=True) if share >= 0.25]
    seen += [(int(m), box, 1) for m, box in zip(scenes.sign_place, scenes.sign_boxes, strict=True)]
    for m, box, what in seen:
        boxes[m, taken[m]], kind[m, taken[m]] = box, what
        taken[m] += 1
    return {"images": scenes.images, "boxes": boxes, "kind": kind}


def may_train(pictures: Pictures, row: int) -> bool:
    """Whether weights that ship may have seen this drawing."""
    return pictures.split[row] == "train" and pictures.licence[row] in TRAINABLE


def caption_vectors(pictures: Pictures, rows: Any) -> Tensor:
    """(len(rows), F, 384) fp16 sentence vectors of every caption form; about 300 captions a second on a core."""
    flat = [caption for i in rows for caption in pictures.captions[i]]
    return sentence_vectors(flat).half().view(len(rows), -1, 384)
