"""What every suite gives: a report that tells itself as a table, and the pictures it speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ...core.config import to_dict
from ...core.files import write_json, write_with
from ..drawing import Drawn
from ..metrics import Score
from ..report import Cost, LeftOut, left_out_remarks

if TYPE_CHECKING:
    from rich.table import Table

    from .sitting import Sitting

Row = tuple[str, ...]


@dataclass(frozen=True)
class Extra:
    """One more table of a report, for the page."""

    title: str
    headings: Row
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class SuiteReport:
    """What the reports of all suites hold: how it was drawn, what was left out, the judge's own card. `prompts`: of the pictures judged."""

    model: str
    seed: int
    steps: int
    guidance: float
    count: int
    prompts: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    cost: Cost
    judge: Mapping[str, Any]

    # Of the columns: first what speaks of this model's pictures, then what does not depend on the model.
    own_columns: ClassVar[Row] = ("generated",)
    shared_columns: ClassVar[Row] = ()

    def rows(self) -> list[Row]:
        """(measure, a cell for each of `own_columns`, for each of `shared_columns`) as text."""
        raise NotImplementedError

    def kind_title(self) -> str:
        """What was asked, without the model's name."""
        raise NotImplementedError

    def legend(self) -> str:
        """What the reader needs to read the numbers."""
        raise NotImplementedError

    def quality(self) -> tuple[str, Score] | None:
        """A rate in [0, 1] with its name, to set against time and memory; None where the suite has none."""
        return None

    def radar(self) -> tuple[tuple[str, ...], Mapping[str, Sequence[Score]], Mapping[str, Sequence[Score]]]:
        """(axes, this model's series by column, series that do not depend on the model); no axes = no radar."""
        return (), {}, {}

    def extras(self) -> list[Extra]:
        """More tables for the page."""
        return []

    def remarks(self) -> list[str]:
        """What the reader of the numbers must know."""
        return left_out_remarks(self.count, self.left_out)

    def title(self) -> str:
        return f"{self.model or 'model'}: {self.kind_title()}, {self.steps} steps, guidance {self.guidance:g}, seed {self.seed}"

    def table(self) -> Table:
        """The rows as a rich table for the terminal."""
        from rich.table import Table

        table = Table(title=self.title(), caption="\n".join([self.legend(), *self.remarks()]))
        for i, heading in enumerate(self._headings()):
            table.add_column(heading, justify="right" if i else "left")
        for row in self.rows():
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """The same for docs."""
        headings = self._headings()
        lines = [f"**{self.title()}**", "", "| " + " | ".join(headings) + " |", "|---|" + "---:|" * (len(headings) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows()]
        return "\n".join([*lines, "", self.legend(), *(f"\n{remark}" for remark in self.remarks())]) + "\n"

    def _headings(self) -> Row:
        return ("measure", *self.own_columns, *self.shared_columns)

    def save(self, folder: Path) -> None:
        """Write report.json and report.md into `folder`, atomically."""
        write_json(folder / "report.json", to_dict(self))
        write_with(folder / "report.md", lambda temporary: temporary.write_text(self.markdown(), encoding="utf-8"))


def common(sitting: Sitting, drawn: Drawn, prompts: Sequence[str], card: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `SuiteReport` for what was drawn of `prompts`."""
    return {
        "model": sitting.model,
        "seed": sitting.seed,
        "steps": sitting.steps,
        "guidance": sitting.guidance,
        "count": len(drawn.places),
        "prompts": tuple(prompts[i] for i in drawn.places),
        "left_out": tuple(LeftOut(i, prompts[i], why) for i, why in sorted(drawn.failed.items())),
        "cost": drawn.cost,
        "judge": {name: value for name, value in card.items() if name != "recipe"},
    }


@dataclass(frozen=True)
class Outcome:
    """A report and its pictures: `images` (N, 3, H, W) uint8 at `places` among those asked for, with what is noted of each: what is wrong
    ("" = nothing) where `faulty`. `values`: by measure, by unit (a picture's place or a prompt's number), for paired differences; `lower`:
    the measures of which less is better. `reference`: what to show beside, (N, 3, H, W) uint8, with its name."""

    report: SuiteReport
    places: tuple[int, ...]
    images: Tensor
    notes: tuple[str, ...]
    values: Mapping[str, Mapping[int, float]]
    lower: tuple[str, ...] = ()
    faulty: bool = True
    reference: Tensor | None = None
    reference_name: str = ""
