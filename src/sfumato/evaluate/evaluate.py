"""One evaluation: draw what (concept, style) pairs ask for, and let the judge look at the pictures and at real drawings of the same pairs.

Pictures are kept as PNG files and judged from them (`drawing.py`). `examine` returns all that was seen, for `compare.py` to set two
models side by side; `evaluate` the report alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.errors import UsageError
from ..core.files import write_with
from .drawing import Order, Pipe, Progress, claim, draw
from .features import Features, JudgeFeatures
from .judge import Judge, Verdict
from .metrics import Score, alignment, cmmd, frechet, kernel_distance, manifolds, retrieval
from .report import Distance, Group, LeftOut, Report, Scores, pair_grid
from .selection import Drawings, Selection, select

Pairs = Literal["train", "test"]


@dataclass(frozen=True)
class Examined:
    """A report and what it was made from: `images` and `real` (N, 3, H, W) uint8 of the pairs `selection`, at `places` among those asked
    for; the judge's verdict, the captions' embeddings, and both sides' features, in the order of the pictures."""

    report: Report
    selection: Selection
    places: tuple[int, ...]
    images: Tensor
    real: Tensor
    verdict: Verdict
    captions: Tensor
    features: Tensor
    real_features: Tensor


def evaluate(pipe: Pipe, source: Drawings, judge: Judge, **options: Any) -> Report:
    """The report of `examine`, which has the options."""
    return examine(pipe, source, judge, **options).report


def examine(
    pipe: Pipe,
    source: Drawings,
    judge: Judge,
    *,
    pairs: Pairs = "test",
    count: int = 300,
    seed: int = 0,
    steps: int = 20,
    guidance: float = 4.0,
    batch: int = 16,
    out: Path,
    progress: Progress | None = None,
    model: str = "",
    features: Features | None = None,
    weights: int = 0,
) -> Examined:
    """Judge `pipe` on `count` pairs; writes pictures/, cost.json, report.json, report.md and grid.png into `out`.

    `progress(done, all)` is called after each batch. An `out` with pictures of the same plan is gone on with; one of another plan is
    refused (`model` is how models are told apart: a name with a checksum). `features`: what sets are compared in, None = the judge's
    embedding. `weights`: bytes of the model's weights. Pictures with NaN are left out of every number and named in the report.
    Raises `UsageError` on bad arguments or picture sizes, `NonFiniteError` when no picture is whole.
    """
    started = time.monotonic()
    if batch < 1:
        raise UsageError(f"batch is {batch}", "at least 1")
    asked = select(source, judge, pairs, count, seed)
    claim(out, {"model": model, "pairs": pairs, "seed": seed, "steps": steps, "guidance": guidance, "prompts": list(asked.prompts)})
    drawn = draw(pipe, asked.prompts, Order(seed, steps, guidance, batch, judge.config.size, weights), out / "pictures", progress)
    selection, generated = asked.only(drawn.places), drawn.images
    real = torch.stack([source[i].image for i in selection.rows])
    others = torch.stack([source[i].image for i in selection.others]) if selection.others else real[:0]
    seen, ceiling, rest = (_look(judge, images) for images in (generated, real, others))
    sides = [
        JudgeFeatures.scaled(verdict.embedding) if features is None else _extract(features, images)
        for verdict, images in ((seen, generated), (ceiling, real), (rest, others))
    ]
    captions = judge.embed_captions(selection.prompts)
    right, right_real = named(seen, judge, selection), named(ceiling, judge, selection)
    report = Report(
        model=model,
        pairs=pairs,
        count=len(selection.rows),
        seed=seed,
        steps=steps,
        guidance=guidance,
        generated=_scores(seen, judge, selection, captions),
        real=_scores(ceiling, judge, selection, captions),
        features="judge" if features is None else features.name,
        distance=_distance(sides[0], sides[1]),
        reference=_distance(sides[2], sides[1]),
        groups=_groups(selection.groups, right, right_real),
        judge={k: v for k, v in judge.card.items() if k != "recipe"},
        prompts=selection.prompts,
        guesses=tuple(judge.concepts[k] for k in seen.concept.argmax(1).tolist()),
        left_out=tuple(LeftOut(i, asked.prompts[i], why) for i, why in sorted(drawn.failed.items())),
        cost=drawn.cost,
        seconds=round(time.monotonic() - started, 1),
    )
    report.save(out / "report.json")
    write_with(out / "report.md", lambda temporary: temporary.write_text(report.markdown(), encoding="utf-8"))
    marks = ["" if hit else f" (seen as {guess})" for hit, guess in zip(right.tolist(), report.guesses, strict=True)]
    pair_grid(generated, real, [p + mark for p, mark in zip(selection.prompts, marks, strict=True)], out / "grid.png")
    return Examined(report, selection, drawn.places, generated, real, seen, captions, sides[0], sides[1])


def _look(judge: Judge, images: Tensor) -> Verdict:
    """The judge's verdict on (N, 3, H, W) uint8, a few hundred at a time: floats of thousands of pictures would fill the memory."""
    parts = [judge(chunk.float() / 127.5 - 1.0) for chunk in images.split(256)] or [judge(images.float())]
    return Verdict(*(torch.cat([getattr(p, name) for p in parts]) for name in ("concept", "style", "embedding")))


def _truth(judge: Judge, selection: Selection) -> Tensor:
    return torch.tensor([judge.concept_index[c] for c in selection.concepts])


def named(verdict: Verdict, judge: Judge, selection: Selection) -> Tensor:
    """(N,) whether the likeliest concept is the one asked for."""
    return verdict.concept.argmax(1) == _truth(judge, selection)


def _scores(verdict: Verdict, judge: Judge, selection: Selection, captions: Tensor) -> Scores:
    five = verdict.concept.topk(min(5, len(judge.concepts)), dim=1).indices
    style = torch.tensor([judge.style_index[s] for s in selection.styles])
    return Scores(
        concept_top1=Score.rate(named(verdict, judge, selection)),
        concept_top5=Score.rate((five == _truth(judge, selection)[:, None]).any(1)),
        style=Score.rate(verdict.style.argmax(1) == style),
        alignment=Score.mean(alignment(verdict.embedding, captions)),
        retrieval=retrieval(verdict.embedding, captions),
    )


def _distance(a: Tensor, b: Tensor) -> Distance:
    found = manifolds(a, b)
    return Distance(frechet(a, b), kernel_distance(a, b), cmmd(a, b), found.precision, found.recall, found.density, found.coverage)


def _extract(features: Features, images: Tensor) -> Tensor:
    """(N, dims) of (N, 3, H, W) uint8."""
    return torch.cat([features(chunk.float() / 127.5 - 1.0) for chunk in images.split(256)] or [features(images.float())])


def _groups(names: Sequence[str], right: Tensor, right_real: Tensor) -> dict[str, Group]:
    places = {name: torch.tensor([n == name for n in names]) for name in sorted(set(names))}
    return {name: Group(Score.rate(right[place]), Score.rate(right_real[place])) for name, place in places.items()}
