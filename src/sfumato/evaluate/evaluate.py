"""One evaluation: draw what (concept, style) pairs ask for, and let the judge look at the pictures and at real drawings of the same pairs.

A pair of the train split was seen in training; of a test pair the model saw the concept in other styles only. Pictures are kept as
PNG files and judged from them, so an interrupted evaluation goes on where it stopped and ends in the same numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..core.errors import DataError, NonFiniteError, UsageError
from ..core.files import write_json, write_with
from ..core.rng import generator
from ..data.captions import phrase
from .judge import Judge, Verdict
from .metrics import Score, alignment, frechet, kernel_distance
from .report import Distance, Group, Report, Scores, pair_grid, to_uint8

Pairs = Literal["train", "test"]
Progress = Callable[[int, int], None]


class Pipe(Protocol):
    """What is evaluated. The result has `.images`: (B, 3, H, W) float in [-1, 1], one row per prompt."""

    def __call__(self, prompts: Sequence[str], *, seeds: Sequence[int], steps: int, guidance: float) -> Any: ...


class Drawings(Protocol):
    """Real drawings with names (`data.Source`): columns concept, style, group and split; `[i].image` (3, H, W) uint8."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Any: ...
    def column(self, name: str) -> list[Any]: ...


@dataclass(frozen=True)
class Selection:
    """The pairs asked for: rows of the source, their names, and as many other rows to compare the real drawings with."""

    rows: tuple[int, ...]
    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    groups: tuple[str, ...]
    others: tuple[int, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The second caption form of `data/captions.py`: the label and the style."""
        return tuple(f"{phrase(c)}, {s} style" for c, s in zip(self.concepts, self.styles, strict=True))


def select(source: Drawings, judge: Judge, pairs: str, count: int, seed: int) -> Selection:
    """`count` pairs of the split `pairs` (all, where there are fewer), shuffled by `seed`; only concepts and styles the judge knows.

    Raises `UsageError` on another split or count, `DataError` when no pair is left.
    """
    if pairs not in ("train", "test"):
        raise UsageError(f"pairs is {pairs!r}", "'train' (seen in training) or 'test' (concepts never seen in that style)")
    if count < 1:
        raise UsageError(f"{count} pairs to evaluate", "at least 1")
    names = {name: [str(value) for value in source.column(name)] for name in ("concept", "style", "split", "group")}
    known = [i for i in range(len(source)) if names["concept"][i] in judge.concept_index and names["style"][i] in judge.style_index]
    order = torch.randperm(len(known), generator=generator((seed, "pairs", 0))).tolist()
    # Shuffled by name, not by place: a source that lists the same drawings in another order gives the same pairs.
    known.sort(key=lambda i: (names["concept"][i], names["style"][i], names["split"][i]))
    shuffled = [known[k] for k in order]
    # One drawing a pair: a set may draw a concept twice.
    distinct = {(names["concept"][i], names["style"][i]): i for i in reversed(shuffled) if names["split"][i] == pairs}
    chosen = [i for i in shuffled if names["split"][i] == pairs and distinct[names["concept"][i], names["style"][i]] == i][:count]
    if not chosen:
        raise DataError(f"no pair of the {pairs} split whose concept and style the judge knows", f"styles: {', '.join(judge.styles)}")
    taken = set(chosen)
    others = [i for i in shuffled if i not in taken and names["split"][i] == "train"][: len(chosen)]
    concepts, styles, groups = (tuple(names[name][i] for i in chosen) for name in ("concept", "style", "group"))
    return Selection(tuple(chosen), concepts, styles, tuple(g or "other" for g in groups), tuple(others))


def evaluate(
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
) -> Report:
    """Judge `pipe` on `count` pairs; writes pictures/, report.json, report.md and grid.png into `out` and returns the report.

    `progress(done, all)` is called after each batch. An `out` with pictures of the same plan is gone on with; one of another plan is
    refused (`model` is how models are told apart: a name with a checksum). Raises `UsageError` on bad arguments or picture
    sizes, `NonFiniteError` naming the prompts whose pictures are not finite.
    """
    started = time.monotonic()
    if batch < 1:
        raise UsageError(f"batch is {batch}", "at least 1")
    selection = select(source, judge, pairs, count, seed)
    plan = {"model": model, "pairs": pairs, "seed": seed, "steps": steps, "guidance": guidance, "prompts": list(selection.prompts)}
    _claim(out, plan)
    generated = draw(pipe, selection.prompts, seed, steps, guidance, batch, judge.config.size, out / "pictures", progress)
    real = torch.stack([source[i].image for i in selection.rows])
    others = torch.stack([source[i].image for i in selection.others]) if selection.others else real[:0]
    seen, ceiling, rest = (_look(judge, images) for images in (generated, real, others))
    captions = judge.embed_captions(selection.prompts)
    right, right_real = _named(seen, judge, selection), _named(ceiling, judge, selection)
    report = Report(
        model=model,
        pairs=pairs,
        count=len(selection.rows),
        seed=seed,
        steps=steps,
        guidance=guidance,
        generated=_scores(seen, judge, selection, captions),
        real=_scores(ceiling, judge, selection, captions),
        distance=_distance(seen.embedding, ceiling.embedding),
        reference=_distance(rest.embedding, ceiling.embedding),
        groups=_groups(selection.groups, right, right_real),
        judge={k: v for k, v in judge.card.items() if k != "recipe"},
        prompts=selection.prompts,
        guesses=tuple(judge.concepts[k] for k in seen.concept.argmax(1).tolist()),
        seconds=round(time.monotonic() - started, 1),
    )
    report.save(out / "report.json")
    write_with(out / "report.md", lambda temporary: temporary.write_text(report.markdown(), encoding="utf-8"))
    marks = ["" if hit else f" (seen as {guess})" for hit, guess in zip(right.tolist(), report.guesses, strict=True)]
    pair_grid(generated, real, [p + mark for p, mark in zip(selection.prompts, marks, strict=True)], out / "grid.png")
    return report


def draw(
    pipe: Pipe,
    prompts: Sequence[str],
    seed: int,
    steps: int,
    guidance: float,
    batch: int,
    size: int,
    folder: Path,
    progress: Progress | None = None,
) -> Tensor:
    """(N, 3, size, size) uint8: picture i is drawn with seed `seed + i` and kept as a PNG in `folder`; those already there are read."""
    from PIL import Image

    paths = [folder / f"{i:06d}.png" for i in range(len(prompts))]
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    if progress:
        progress(len(prompts) - len(missing), len(prompts))
    for start in range(0, len(missing), batch):
        rows = missing[start : start + batch]
        asked = [prompts[i] for i in rows]
        images: Tensor = pipe(asked, seeds=[seed + i for i in rows], steps=steps, guidance=guidance).images
        _check(images, asked, size)
        for i, picture in zip(rows, to_uint8(images), strict=True):
            encoded = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            write_with(paths[i], lambda temporary, encoded=encoded: encoded.save(temporary, format="PNG"))  # type: ignore[misc]
        if progress:
            progress(len(prompts) - len(missing) + start + len(rows), len(prompts))
    return torch.stack([_read(path) for path in paths])


def _read(path: Path) -> Tensor:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
    except OSError as error:
        raise DataError(f"cannot read the kept picture {path}: {error}", "delete it and evaluate again: it is drawn anew") from error


def _check(images: Tensor, prompts: Sequence[str], size: int) -> None:
    if tuple(images.shape) != (len(prompts), 3, size, size):
        raise UsageError(f"the model drew {tuple(images.shape)} for {len(prompts)} prompts", f"this judge sees pictures of {size} x {size}")
    finite = images.isfinite().flatten(1).all(1)
    if not finite.all():
        bad = [p for p, whole in zip(prompts, finite.tolist(), strict=True) if not whole]
        raise NonFiniteError(f"{len(bad)} of {len(prompts)} pictures hold NaN or infinity ({images.dtype}), first: {bad[0]!r}")


def _claim(out: Path, plan: dict[str, Any]) -> None:
    """Write the plan, or make sure that the one in `out` is the same; more or fewer pairs of the same order are the same plan."""
    path = out / "plan.json"
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            shared = min(len(found["prompts"]), len(plan["prompts"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"damaged file {path}: {error!r}", "name another folder, or remove this one") from error
        changed = [name for name in plan if name != "prompts" and found.get(name) != plan[name]]
        changed += ["prompts"] if found["prompts"][:shared] != plan["prompts"][:shared] else []
        if changed:
            raise UsageError(f"{out} holds another evaluation; different: {', '.join(changed)}", "name another folder, or remove this one")
        if shared == len(plan["prompts"]):
            return
    write_json(path, plan)


def _look(judge: Judge, images: Tensor) -> Verdict:
    """The judge's verdict on (N, 3, H, W) uint8, a few hundred at a time: floats of thousands of pictures would fill the memory."""
    parts = [judge(chunk.float() / 127.5 - 1.0) for chunk in images.split(256)] or [judge(images.float())]
    return Verdict(*(torch.cat([getattr(p, name) for p in parts]) for name in ("concept", "style", "embedding")))


def _truth(judge: Judge, selection: Selection) -> Tensor:
    return torch.tensor([judge.concept_index[c] for c in selection.concepts])


def _named(verdict: Verdict, judge: Judge, selection: Selection) -> Tensor:
    """(N,) whether the likeliest concept is the one asked for."""
    return verdict.concept.argmax(1) == _truth(judge, selection)


def _scores(verdict: Verdict, judge: Judge, selection: Selection, captions: Tensor) -> Scores:
    five = verdict.concept.topk(min(5, len(judge.concepts)), dim=1).indices
    style = torch.tensor([judge.style_index[s] for s in selection.styles])
    return Scores(
        concept_top1=Score.rate(_named(verdict, judge, selection)),
        concept_top5=Score.rate((five == _truth(judge, selection)[:, None]).any(1)),
        style=Score.rate(verdict.style.argmax(1) == style),
        alignment=Score.mean(alignment(verdict.embedding, captions)),
    )


def _distance(a: Tensor, b: Tensor) -> Distance:
    """Of embeddings (N, E) of unit length, scaled to entries of about 1: so that x.y / E in the cubic kernel is their cosine."""
    scale = a.shape[1] ** 0.5
    return Distance(frechet(scale * a, scale * b), kernel_distance(scale * a, scale * b))


def _groups(names: Sequence[str], right: Tensor, right_real: Tensor) -> dict[str, Group]:
    places = {name: torch.tensor([n == name for n in names]) for name in sorted(set(names))}
    return {name: Group(Score.rate(right[place]), Score.rate(right_real[place])) for name, place in places.items()}
