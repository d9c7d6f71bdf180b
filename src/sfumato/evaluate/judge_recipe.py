"""How the shipped judge is made: train on the drawings that weights may be trained on, measure on those it never saw, write both down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.config import to_dict
from ..core.errors import DataError
from ..core.rng import generator
from ..data.packages import TRAINABLE
from ..training.batches import Columns
from ..training.loop import Run, TrainConfig, train
from ..training.optimizers import OptimizerConfig
from .judge import Judge
from .judge_net import JudgeConfig, JudgeNet, StyleNet
from .judge_task import JudgeTask, JudgeTaskConfig, StyleTask
from .metrics import wilson
from .pictures import Pictures
from .sentences import sentence_vectors

# Alike in every style, so easy to recognise: a rate without them says more about drawings proper.
LETTERED = {"flags", "keycap"}


@dataclass(frozen=True)
class JudgeRecipe:
    """Everything that makes a judge, given the drawings. The defaults made the one that ships: about 20 minutes of one core."""

    net: JudgeConfig = field(default_factory=JudgeConfig)
    task: JudgeTaskConfig = field(default_factory=JudgeTaskConfig)
    batch: int = 96
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=3000, optimizer=OptimizerConfig(lr=2e-3, weight_decay=0.05, warmup=50), clip=2.0, ema=0.998
        )
    )
    style: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=500, optimizer=OptimizerConfig(lr=4e-3, weight_decay=0.05, warmup=50), clip=2.0, ema=0.99)
    )


def train_judge(pictures: Pictures, out: Path, recipe: JudgeRecipe, run: Path, text: Tensor | None = None, quiet: bool = False) -> Judge:
    """Train on the trainable train split of `pictures`, measure on the rest, and save the judge in `out`; checkpoints and logs go to `run`.

    `pictures` holds all splits and styles (open the source with split=None, licences=None). `text` (N, F, 384): the captions' sentence
    vectors where they are known already. Raises `DataError` when nothing may be trained on.
    """
    rows = pictures.rows(lambda i: _may_train(pictures, i))
    if not rows:
        raise DataError("no picture to train a judge on", f"rows of the train split under {', '.join(TRAINABLE)} are needed")
    concepts, styles = sorted({pictures.concept[i] for i in rows}), sorted({pictures.style[i] for i in rows})
    columns = {
        "images": pictures.images[torch.tensor(rows)],
        "concept": torch.tensor([concepts.index(pictures.concept[i]) for i in rows]),
        "style": torch.tensor([styles.index(pictures.style[i]) for i in rows]),
        "text": text[torch.tensor(rows)] if text is not None else caption_vectors(pictures, rows),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator((recipe.train.seed, "judge", 0)).initial_seed())
        net, styler = JudgeNet(recipe.net, len(concepts), len(styles)), StyleNet(recipe.net, len(styles))
    data = {"train": Columns(columns, recipe.batch, recipe.train.seed)}
    _settle(net, train(JudgeTask(net, recipe.task, recipe.net.working), data, recipe.train, run / "concept", quiet=quiet))
    _settle(styler, train(StyleTask(styler), data, recipe.style, run / "style", quiet=quiet))
    judge = Judge(net, styler, recipe.net, concepts, styles, {"recipe": to_dict(recipe), "trained_on": len(rows)})
    judge.card |= measure(judge, pictures)
    judge.save(out)
    return judge


def _may_train(pictures: Pictures, row: int) -> bool:
    return pictures.split[row] == "train" and pictures.licence[row] in TRAINABLE


def _settle(net: nn.Module, run: Run) -> None:
    """Give `net` its averaged weights, through fp16 once, so that what is measured is what is saved."""
    with run.averaged():
        halved = {n: t.half().to(t.dtype) if t.is_floating_point() else t.clone() for n, t in net.state_dict().items()}
    net.load_state_dict(halved)


def caption_vectors(pictures: Pictures, rows: Sequence[int]) -> Tensor:
    """(len(rows), F, 384) fp16 sentence vectors of every caption form; about 300 captions a second on a core."""
    flat = [caption for i in rows for caption in pictures.captions[i]]
    return sentence_vectors(flat).half().view(len(rows), -1, 384)


def measure(judge: Judge, pictures: Pictures) -> dict[str, Any]:
    """The judge's own accuracy on real drawings it never saw. Only drawings of concepts it has a class for are counted.

    `held_out`: validation and test pairs of the trained styles, a concept never seen in that style. `unseen_styles`: share-alike
    styles of which it saw no drawing. Each: concept top-1 and top-5 with a 95% Wilson interval, the same without flags and keycaps,
    style accuracy, top-1 by style, by group and by the number of styles in which the concept was seen in training.
    """
    known = judge.concept_index

    def held_out(i: int) -> bool:
        return pictures.split[i] != "train" and pictures.style[i] in judge.style_index and pictures.concept[i] in known

    def unseen(i: int) -> bool:
        return pictures.style[i] not in judge.style_index and pictures.concept[i] in known

    kinds = {"held_out": held_out, "unseen_styles": unseen}
    return {name: accuracy(judge, pictures, pictures.rows(keep)) for name, keep in kinds.items()}


def accuracy(judge: Judge, pictures: Pictures, rows: Sequence[int]) -> dict[str, Any]:
    """Concept and style accuracy of `judge` on these rows of `pictures`; every concept must be one of its classes."""
    if not rows:
        return {"count": 0}
    hits1: list[bool] = []
    hits5: list[bool] = []
    styled: list[bool] = []
    for start in range(0, len(rows), 256):
        chunk = rows[start : start + 256]
        verdict = judge(pictures.unit(chunk))
        best = verdict.concept.topk(min(5, len(judge.concepts)), dim=1).indices.tolist()
        truth = [judge.concept_index[pictures.concept[i]] for i in chunk]
        hits1 += [t == b[0] for t, b in zip(truth, best, strict=True)]
        hits5 += [t in b for t, b in zip(truth, best, strict=True)]
        named = [judge.styles[s] for s in verdict.style.argmax(1).tolist()]
        styled += [pictures.style[i] == s for i, s in zip(chunk, named, strict=True)]
    plain = [hit for i, hit in zip(rows, hits1, strict=True) if not {pictures.group[i], pictures.concept[i].split(":")[0]} & LETTERED]
    result: dict[str, Any] = {"count": len(rows), "concept_top1": _rate(hits1), "concept_top5": _rate(hits5)}
    result |= {"concept_top1_without_flags_keycaps": _rate(plain), "top1_by_style": _by([pictures.style[i] for i in rows], hits1)}
    taught = {(pictures.concept[i], pictures.style[i]) for i in range(len(pictures)) if _may_train(pictures, i)}
    times = Counter(concept for concept, _ in taught)
    result["top1_by_styles_seen"] = _by([str(times[pictures.concept[i]]) for i in rows], hits1)
    result["top1_by_group"] = _by([pictures.group[i] or "other" for i in rows], hits1)
    if all(pictures.style[i] in judge.style_index for i in rows):
        result["style"] = _rate(styled)
    return result


def _rate(hits: Sequence[bool]) -> dict[str, Any]:
    low, high = wilson(sum(hits), len(hits))
    return {"value": round(sum(hits) / max(1, len(hits)), 4), "low": round(low, 4), "high": round(high, 4), "count": len(hits)}


def _by(names: Sequence[str], hits: Sequence[bool]) -> dict[str, float]:
    totals, right = Counter(names), Counter(n for n, hit in zip(names, hits, strict=True) if hit)
    return {name: round(right[name] / totals[name], 4) for name in sorted(totals)}
