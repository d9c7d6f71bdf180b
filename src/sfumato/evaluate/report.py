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
from .metrics import Estimate, Score

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Scores:
    """What the judge says of one set of pictures. `alignment`: mean cosine of picture and prompt in the judge's space."""

    concept_top1: Score
    concept_top5: Score
    style: Score
    alignment: Score


@dataclass(frozen=True)
class Distance:
    """Fréchet and kernel distance of two sets of pictures in the judge's embedding."""

    frechet: Estimate
    kernel: Estimate


@dataclass(frozen=True)
class Group:
    """Concept top-1 within one group of concepts: of the generated pictures and of the real ones."""

    generated: Score
    real: Score


@dataclass(frozen=True)
class Report:
    """`generated` beside `real`, the same pairs as drawn by people: the ceiling of what the judge can recognise.

    `distance` is generated to real; `reference` is those real drawings to as many other real ones, what chance and the choice of
    concepts alone make of it. `judge` is the judge's own card. `prompts` and `guesses` are in the order of the pictures.
    """

    model: str
    pairs: str
    count: int
    seed: int
    steps: int
    guidance: float
    generated: Scores
    real: Scores
    distance: Distance
    reference: Distance
    groups: Mapping[str, Group]
    judge: Mapping[str, Any]
    prompts: tuple[str, ...]
    guesses: tuple[str, ...]
    seconds: float

    def save(self, path: Path) -> None:
        """Write the report as JSON, atomically."""
        write_json(path, to_dict(self))

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(measure, generated, real drawings of the same pairs, judge's own on held-out drawings) as text."""
        own = self.judge.get("held_out", {})
        names = (("concept top-1", "concept_top1"), ("concept top-5", "concept_top5"), ("style", "style"))
        rows = [(title, percent(getattr(self.generated, n)), percent(getattr(self.real, n)), _own(own.get(n))) for title, n in names]
        rows.append(("alignment (cosine)", plain(self.generated.alignment), plain(self.real.alignment), ""))
        rows.append(("Fréchet distance", estimate(self.distance.frechet), estimate(self.reference.frechet), ""))
        rows.append(("kernel distance", estimate(self.distance.kernel), estimate(self.reference.kernel), ""))
        return rows

    def title(self) -> str:
        seen = {"train": "pairs seen in training", "test": "pairs never seen in that style"}.get(self.pairs, self.pairs)
        return f"{self.model or 'model'}: {self.count} {seen}, {self.steps} steps, guidance {self.guidance:g}, seed {self.seed}"

    def table(self) -> Table:
        """The scores as a rich table for the terminal."""
        from rich.table import Table

        table = Table(title=self.title(), caption="95% intervals; distances: lower is nearer, 'real' = real to other real drawings")
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
        return "\n".join(lines) + "\n"


HEADINGS = ("measure", "generated", "real drawings", "judge, held-out")


def percent(score: Score) -> str:
    return f"{score.value:.1%} [{score.low:.1%}, {score.high:.1%}]"


def plain(score: Score) -> str:
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def estimate(found: Estimate) -> str:
    if found.value is None:
        return found.reason
    return f"{found.value:.4f}" + (f" ± {found.spread:.4f}" if found.spread is not None else "")


def _own(rate: Mapping[str, float] | None) -> str:
    return f"{rate['value']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]" if rate else "not measured"


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
