"""What an evaluation found: numbers with their intervals, the same numbers on real drawings beside them, as JSON, table and markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.config import to_dict
from ..core.files import write_json
from .metrics import Estimate, Retrieval, Score

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Scores:
    """What the judge says of one set of pictures. `alignment`: mean cosine of picture and prompt in the judge's space; `retrieval`: whether
    either finds the other among the set by that cosine."""

    concept_top1: Score
    concept_top5: Score
    style: Score
    alignment: Score
    retrieval: Retrieval


@dataclass(frozen=True)
class Distance:
    """How two sets of pictures lie to each other in a feature space (`metrics/sets.py`, `metrics/manifolds.py`)."""

    frechet: Estimate
    kernel: Estimate
    cmmd: Estimate
    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


@dataclass(frozen=True)
class LeftOut:
    """A picture that stands in no number: its place among those asked for, its prompt, and why."""

    place: int
    prompt: str
    reason: str


@dataclass(frozen=True)
class Cost:
    """What drawing took: `seconds` for `pictures`, over all sittings; `memory` in bytes, `kind` says of what. 0 = unknown."""

    pictures: int
    seconds: float
    memory: int
    kind: str


@dataclass(frozen=True)
class Group:
    """Concept top-1 within one group of concepts: of the generated pictures and of the real ones."""

    generated: Score
    real: Score


@dataclass(frozen=True)
class Report:
    """`generated` beside `real`, the same pairs as drawn by people: the ceiling of what the judge can recognise.

    `distance` is generated to real in the space `features`; `reference` is those real drawings to as many other real ones, what chance
    and the choice of concepts alone make of it. `judge` is the judge's own card. `prompts` and `guesses` are in the order of the pictures.
    """

    model: str
    pairs: str
    count: int
    seed: int
    steps: int
    guidance: float
    generated: Scores
    real: Scores
    features: str
    distance: Distance
    reference: Distance
    groups: Mapping[str, Group]
    judge: Mapping[str, Any]
    prompts: tuple[str, ...]
    guesses: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    cost: Cost
    seconds: float

    def save(self, path: Path) -> None:
        """Write the report as JSON, atomically."""
        write_json(path, to_dict(self))

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(measure, generated, real drawings of the same pairs, judge's own on held-out drawings) as text."""
        own = self.judge.get("held_out", {})
        names = (("concept top-1", "concept_top1"), ("concept top-5", "concept_top5"), ("style", "style"))
        rows = [(title, percent(getattr(self.generated, n)), percent(getattr(self.real, n)), own_rate(own.get(n))) for title, n in names]
        rows.append(("alignment (cosine)", plain(self.generated.alignment), plain(self.real.alignment), ""))
        a, b = self.generated.retrieval, self.real.retrieval
        for k in a.caption_at:
            rows.append((f"caption found, R@{k} of {a.among}", percent(a.caption_at[k]), percent(b.caption_at[k]), ""))
            rows.append((f"picture found, R@{k} of {a.among}", percent(a.picture_at[k]), percent(b.picture_at[k]), ""))
        space = "" if self.features == "judge" else f" in {self.features}"
        for field, title in SET_MEASURES.items():
            rows.append((title + space, estimate(getattr(self.distance, field)), estimate(getattr(self.reference, field)), ""))
        return rows

    def remarks(self) -> list[str]:
        """What the reader of the numbers must know."""
        return left_out_remarks(self.count, self.left_out)

    def title(self) -> str:
        return f"{self.model or 'model'}: {self.kind_title()}, {self.steps} steps, guidance {self.guidance:g}, seed {self.seed}"

    def kind_title(self) -> str:
        seen = {"train": "pairs seen in training", "test": "pairs never seen in that style"}.get(self.pairs, self.pairs)
        return f"{self.count} {seen}"

    def table(self) -> Table:
        """The scores as a rich table for the terminal."""
        from rich.table import Table

        doubt = "95% intervals, ± standard error (of the kernel distance: deviation over subsets)"
        caption = f"{doubt}; distances: lower is nearer, 'real' = real to other real drawings"
        table = Table(title=self.title(), caption="\n".join([caption, *self.remarks()]))
        for heading, justify in zip(HEADINGS, ("left", "right", "right", "right"), strict=True):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for row in self.rows():
            table.add_row(*row)
        table.add_section()
        for name, group in sorted(self.groups.items()):
            table.add_row(f"top-1, {name} ({group.generated.count})", percent(group.generated), percent(group.real), "")
        return table

    def markdown(self) -> str:
        """The same table for docs."""
        lines = [f"**{self.title()}**", "", "| " + " | ".join(HEADINGS) + " |", "|---|---:|---:|---:|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows()]
        lines += [
            f"| top-1, {name} ({group.generated.count}) | {percent(group.generated)} | {percent(group.real)} | |"
            for name, group in sorted(self.groups.items())
        ]
        return "\n".join([*lines, *(f"\n{remark}" for remark in self.remarks())]) + "\n"


# The fields of `Distance`, as people know them.
SET_MEASURES = {
    "frechet": "Fréchet distance", "kernel": "kernel distance", "cmmd": "CMMD", "precision": "precision", "recall": "recall",
    "density": "density", "coverage": "coverage",
}  # fmt: skip
HEADINGS = ("measure", "generated", "real drawings", "judge, held-out")


def left_out_remarks(count: int, left_out: Sequence[LeftOut]) -> list[str]:
    """A line that names the first pictures left out beside `count` judged ones; none where all are whole."""
    if not left_out:
        return []
    named = "; ".join(f"{lost.place} ({lost.prompt}): {lost.reason}" for lost in left_out[:5])
    return [f"{len(left_out)} of {count + len(left_out)} pictures are left out: {named}{'; ...' if len(left_out) > 5 else ''}"]


def percent(score: Score) -> str:
    return f"{score.value:.1%} [{score.low:.1%}, {score.high:.1%}]"


def plain(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def estimate(found: Estimate) -> str:
    if found.value is None:
        return found.reason
    return f"{found.value:.4f}" + (f" ± {found.spread:.4f}" if found.spread is not None else f" ({found.reason})")


def own_rate(rate: Mapping[str, float] | None) -> str:
    """A rate of the judge's card, with its interval where it has one."""
    if not rate:
        return "not measured"
    return f"{rate['value']:.1%}" + (f" [{rate['low']:.1%}, {rate['high']:.1%}]" if "low" in rate else "")


def pair_grid(generated: Tensor, real: Tensor, captions: Sequence[str], path: Path, most: int = 32) -> None:
    """Save a PNG of pairs, generated left and real right, caption beneath.

    `generated`, `real` (N, 3, H, W) uint8; the first `most` pairs are shown.
    """
    from PIL import Image

    from ..core.files import write_with
    from ..pipelines.sheet import contact_sheet

    pairs = torch.cat([generated, real], 3)[:most].permute(0, 2, 3, 1).contiguous().numpy()
    sheet = contact_sheet([Image.fromarray(pair) for pair in pairs], captions[:most])
    write_with(path, lambda temporary: sheet.save(temporary, format="PNG"))


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as they are saved: (B, 3, H, W) uint8."""
    return ((images.float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8).cpu()
