"""How the shipped judge is made: train on what it may see, measure on what it never saw (`judge_card.py`), write both down."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
from ..data.restyle import coloured
from ..data.sources import open_source
from ..data.splits import Split
from ..training.batches import Beside, Columns
from ..training.loop import TrainConfig, train
from ..training.optimizers import OptimizerConfig
from .cuts import Cuts
from .eyes import Eyes
from .judge import Judge
from .judge_card import measure, settle_chance
from .judge_net import JudgeConfig, JudgeNet, StyleNet
from .judge_task import JudgeTask, JudgeTaskConfig, StyleTask
from .lessons import COLOURS, Scenery, restyled, scenery
from .locator import MOST, LocatorTask
from .pictures import Pictures
from .reader import Boards, ReaderTask
from .sentences import sentence_vectors

COPY = 12.0


def _config(steps: int, lr: float, ema: float, decay_from: float = 0.4, weight_decay: float = 0.05, clip: float = 2.0) -> TrainConfig:
    optimizer = OptimizerConfig(lr=lr, weight_decay=weight_decay, warmup=50, decay_from=decay_from)
    return TrainConfig(steps=steps, optimizer=optimizer, clip=clip, ema=ema)


@dataclass(frozen=True)
class Sets:
    """What is drawn for the lessons: how often each drawing by other hands; scenes of the train split to learn from, in turn of these
    `difficulties`; `held_out` scenes of all levels from the validation split, on which scores are settled, and from the test split.
    """

    hands: int = 6
    scenes: int = 14000
    difficulties: tuple[int, ...] = (1, 2, 3, 4, 5, 3, 4, 5)
    held_out: int = 1200


@dataclass(frozen=True)
class JudgeRecipe:
    """Everything that makes a judge, given the drawings. `batch`: drawings to name, `things`: cuts from scenes beside them; styles and
    places are learned half a batch at a time.
    """

    net: JudgeConfig = field(default_factory=JudgeConfig)
    task: JudgeTaskConfig = field(default_factory=JudgeTaskConfig)
    sets: Sets = field(default_factory=Sets)
    batch: int = 96
    things: int = 24
    train: TrainConfig = field(default_factory=lambda: _config(4600, 2e-3, 0.998, 0.3))
    style: TrainConfig = field(default_factory=lambda: _config(1200, 4e-3, 0.995))
    locate: TrainConfig = field(default_factory=lambda: _config(1500, 2e-3, 0.998, clip=5.0))
    read: TrainConfig = field(default_factory=lambda: _config(1600, 2e-3, 0.995, weight_decay=0.02))


@dataclass(frozen=True)
class Lessons:
    """The trainable drawings as the Tasks want them, the scenes, and the names of the classes."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    drawings: dict[str, Tensor]
    scenes: Scenery


def train_judge(data: Path, out: Path, recipe: JudgeRecipe, run: Path, more: Path | None = None, quiet: bool = False) -> Judge:
    """Train on the trainable train split of the EmojiWorld folder `data`, measure on the rest, and save the judge in `out`; checkpoints
    and logs go to `run`, and a run that was stopped goes on there. `more`: a folder of further sets (`data/packages.py`, `LESSONS`), whose
    drawings teach concepts and no style. Raises `DataError` when nothing may be trained on, or when `more` holds a style of `data`.
    """
    pictures = Pictures.of(open_source(data, split=None, licences=None, size=recipe.net.size))
    lessons = learn(data, pictures, recipe, more)
    seed = recipe.train.seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator((seed, "judge", 0)).initial_seed())
        net = JudgeNet(recipe.net, len(lessons.concepts), len(lessons.styles), len(COLOURS))
        styler, eyes = StyleNet(recipe.net, len(lessons.styles)), Eyes()
    labels = sentence_vectors([phrase(concept) for concept in lessons.concepts])
    half = recipe.batch // 2
    beside = {"train": Beside({"drawings": Columns(lessons.drawings, recipe.batch, seed), "things": things(lessons, recipe)})}
    told = torch.tensor([coloured(concept) for concept in lessons.concepts])
    task = JudgeTask(net, recipe.task, recipe.net.working, labels, told)
    train(task, beside, recipe.train, run / "concept", quiet=quiet).settle(net)
    with torch.no_grad():
        net.names.copy_(net.embed_text(labels.to(net.names.device)).half())
    own = lessons.drawings["style"] < len(lessons.styles)
    drawings = {name: lessons.drawings[name][own] for name in ("images", "style")}
    train(StyleTask(styler), {"train": Columns(drawings, half, seed)}, recipe.style, run / "style", quiet=quiet).settle(styler)
    where = {"train": Columns(places(lessons.scenes), half, seed)}
    train(LocatorTask(eyes.locator), where, recipe.locate, run / "locate", quiet=quiet).settle(eyes.locator)
    train(ReaderTask(eyes.reader), {"train": Boards(64, seed)}, recipe.read, run / "read", quiet=quiet).settle(eyes.reader)
    judge = Judge(net, styler, recipe.net, lessons.concepts, lessons.styles, {"recipe": to_dict(recipe)}, eyes)
    judge.card["trained_on"] = {"drawings": int(own.sum()), "drawings of other sets": int((~own).sum()), "scenes": len(lessons.scenes)}
    held_out = {split: _scenes(data, recipe, split) for split in ("validation", "test")}
    settle_chance(judge, held_out["validation"])
    judge.card |= measure(judge, pictures, held_out["test"])
    judge.save(out)
    return judge


def learn(data: Path, pictures: Pictures, recipe: JudgeRecipe, more: Path | None) -> Lessons:
    """Draw the lessons; minutes of all cores at full size. `more`: an EmojiWorld folder of other sets, which teach concepts alone."""
    rows = pictures.rows(lambda i: may_train(pictures, i))
    if not rows:
        raise DataError("no picture to train a judge on", f"rows of the train split under {', '.join(TRAINABLE)} are needed")
    concepts, styles = sorted({pictures.concept[i] for i in rows}), sorted({pictures.style[i] for i in rows})
    parts = [_drawings(data, pictures, rows, concepts, styles, recipe)]
    if more is not None:
        others = Pictures.of(open_source(more, split=None, licences=None, size=recipe.net.size))
        if known := sorted(set(others.style) & set(pictures.style)):
            raise DataError(
                f"{more} holds the style {known[0]}, on which the judge is measured", "sets of its own: sfumato data emoji --styles"
            )
        copies = near_copies(others, pictures)
        kept = others.rows(lambda i: may_train(others, i) and others.concept[i] in concepts and i not in copies)
        parts.append(_drawings(more, others, kept, concepts, [*styles, *sorted(set(others.style))], recipe))
    drawings = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Lessons(tuple(concepts), tuple(styles), drawings, _scenes(data, recipe, "train"))


def _drawings(
    data: Path, pictures: Pictures, rows: Sequence[int], concepts: Sequence[str], styles: Sequence[str], recipe: JudgeRecipe
) -> dict[str, Tensor]:
    """The columns of `JudgeTask` of these rows; classes are places in `concepts` and `styles`."""
    svgs, chosen = open_source(data, split=None, licences=None).column("svg"), torch.tensor(rows)
    others = restyled(
        [svgs[i] for i in rows], [pictures.concept[i] for i in rows], recipe.sets.hands, seed=recipe.train.seed, size=recipe.net.size,
        workers=os.cpu_count() or 1,
    )  # fmt: skip
    return {
        "images": pictures.images[chosen],
        "others": others,
        "concept": torch.tensor([concepts.index(pictures.concept[i]) for i in rows]),
        "style": torch.tensor([styles.index(pictures.style[i]) for i in rows]),
        "text": caption_vectors(pictures, rows),
    }


def near_copies(others: Pictures, pictures: Pictures) -> set[int]:
    """Rows of `others` that nearly are a held-out drawing of the same concept: less than `COPY` apart, a mean over all values of 255.

    An older edition of a set may hold a drawing that a newer one kept.
    """
    held: dict[str, list[int]] = {}
    for i in pictures.rows(lambda i: pictures.split[i] != "train"):
        held.setdefault(pictures.concept[i], []).append(i)
    found = set()
    for row in others.rows(lambda i: others.concept[i] in held):
        apart = (pictures.images[held[others.concept[row]]].float() - others.images[row].float()).abs().flatten(1).mean(1)
        if float(apart.min()) < COPY:
            found.add(row)
    return found


def _scenes(data: Path, recipe: JudgeRecipe, split: Split) -> Scenery:
    sets, size, workers = recipe.sets, recipe.net.size, os.cpu_count() or 1
    if split == "train":
        return scenery(data, sets.scenes, (split,), seed=1, difficulties=sets.difficulties, size=size, workers=workers)
    return scenery(data, sets.held_out, (split,), seed=2, size=size, workers=workers)


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
