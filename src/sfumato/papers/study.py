"""A study: several arms that differ in one thing, each run with the same seeds on equal means, compared with intervals over the seeds.

A cell is one arm with one seed. Finished cells are kept under a hash of everything they depend on, so a study that was stopped goes on
where it was, and a changed setting never meets old numbers. Intervals are Student's, of the few seeds there are, and paired: the same seed
gives both arms the same start and data.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ..core.errors import ConfigError
from ..core.files import write_json
from ..evaluate.metrics import student
from .claims import Finding, Verdict

Interval = tuple[float, float]
Equal = Literal["images", "flops", "latency"]
# How far the arms' means may lie apart and still count as equal.
EVEN = 0.01
# Part of every cell's name: raise it when code changes what a cell measures, so that old numbers never stand beside new ones.
VERSION = 2


@dataclass(frozen=True)
class Metric:
    """`key`: its name in a cell. `better`: which way is good."""

    key: str
    title: str
    better: Literal["lower", "higher"] = "lower"
    unit: str = ""


@dataclass(frozen=True)
class Cell:
    """What one arm reached with one seed: a value per metric (None: not estimable), and what it spent of the study's equal means."""

    metrics: Mapping[str, float | None]
    spent: float


@dataclass(frozen=True)
class Results:
    """All cells, by arm, in the order of the seeds."""

    metrics: tuple[Metric, ...]
    cells: Mapping[str, Sequence[Cell]]
    folders: Mapping[str, Sequence[Path]]

    def values(self, arm: str, key: str) -> torch.Tensor | None:
        """(seeds,) fp64, None where a cell could not be estimated."""
        found = [cell.metrics[key] for cell in self.cells[arm]]
        return None if any(v is None for v in found) else torch.tensor(found, dtype=torch.float64)

    def mean(self, arm: str, key: str) -> tuple[float, Interval] | None:
        """Mean over the seeds and its 95% Student interval."""
        values = self.values(arm, key)
        return None if values is None else (float(values.mean()), student(values))

    def difference(self, arm: str, other: str, key: str) -> tuple[float, Interval] | None:
        """Mean of arm - other, seed by seed, and its 95% Student interval."""
        a, b = self.values(arm, key), self.values(other, key)
        return None if a is None or b is None else (float((a - b).mean()), student(a - b))

    def apart(self, name: str, arm: str, other: str, key: str, side: Literal["below", "above"] = "below", most: float = 0.0) -> Finding:
        """Whether `arm` lies `side` of `other` by more than chance: the whole interval of the difference below, or above, `most`."""
        found = self.difference(arm, other, key)
        expected = f"{side} {most:.4g}, interval too"
        if found is None:
            return Finding(name, expected, "not estimable", False)
        difference, (low, high) = found
        return Finding(name, expected, difference, high < most if side == "below" else low > most, "", (low, high))

    def mean_ranks(self, keys: Sequence[str]) -> dict[str, float] | None:
        """Each arm's rank by mean (1 = best, ties share), averaged over those of `keys` that every arm could estimate, if any."""
        ranks: list[dict[str, float]] = []
        for metric in (m for m in self.metrics if m.key in keys):
            means = {arm: self.mean(arm, metric.key) for arm in self.cells}
            scores = {arm: m[0] if metric.better == "lower" else -m[0] for arm, m in means.items() if m is not None}
            if len(scores) == len(self.cells):
                ranks.append(
                    {a: 1 + sum(t < s for t in scores.values()) + (sum(t == s for t in scores.values()) - 1) / 2 for a, s in scores.items()}
                )
        return {arm: sum(r[arm] for r in ranks) / len(ranks) for arm in self.cells} if ranks else None

    def findings(self) -> tuple[Finding, ...]:
        """Every metric of every arm, shown and not judged."""
        rows = [(metric, arm, self.mean(arm, metric.key)) for metric in self.metrics for arm in self.cells]
        return tuple(
            Finding(f"{m.title}: {arm}", None, "not estimable" if mean is None else mean[0], None, m.unit, mean and mean[1])
            for m, arm, mean in rows
        )


def joined(parts: Sequence[Results]) -> Results:
    """The arms of several studies of the same metrics, to be read side by side."""
    cells = {arm: cells for part in parts for arm, cells in part.cells.items()}
    return Results(parts[0].metrics, cells, {arm: folders for part in parts for arm, folders in part.folders.items()})


# The verdict, a sentence, and the findings they rest on.
Rule = Callable[[Results], tuple[Verdict, str, tuple[Finding, ...]]]


@dataclass(frozen=True)
class Study:
    """`arms`: name -> what is particular to it; `setting`: what all cells share (both JSON values: they name the cells).

    `equal`: what every arm spends equally much of.
    """

    name: str
    arms: Mapping[str, Any]
    seeds: tuple[int, ...]
    equal: Equal
    metrics: tuple[Metric, ...]
    setting: Mapping[str, Any]

    def run(self, cell: Callable[[str, int, Path], Cell], work: Path) -> Results:
        """Run every cell not yet finished in `work`, all arms of a seed before the next seed; `cell(arm, seed, folder)` does the work.

        Raises `ConfigError` when a cell lacks a metric or the arms did not spend equally.
        """
        done: dict[str, list[Cell]] = {arm: [] for arm in self.arms}
        folders: dict[str, list[Path]] = {arm: [] for arm in self.arms}
        for seed in self.seeds:
            for arm in self.arms:
                folder = self._folder(arm, seed, work)
                done[arm].append(self._cell(cell, arm, seed, folder))
                folders[arm].append(folder)
            self._even({arm: cells[-1].spent for arm, cells in done.items()}, seed)
        return Results(self.metrics, done, folders)

    def _cell(self, cell: Callable[[str, int, Path], Cell], arm: str, seed: int, folder: Path) -> Cell:
        path = folder / "result.json"
        if path.is_file():
            saved = json.loads(path.read_text(encoding="utf-8"))
            return Cell(saved["metrics"], saved["spent"])
        started = time.monotonic()
        result = cell(arm, seed, folder)
        if missing := [m.key for m in self.metrics if m.key not in result.metrics]:
            raise ConfigError(f"the cell {arm}, seed {seed}, of study {self.name!r} lacks {', '.join(missing)}")
        seconds = round(time.monotonic() - started, 1)
        write_json(path, {**self._key(arm, seed), "metrics": dict(result.metrics), "spent": result.spent, "seconds": seconds})
        return result

    def _even(self, spent: Mapping[str, float], seed: int) -> None:
        if max(spent.values()) - min(spent.values()) > EVEN * max(spent.values()):
            each = ", ".join(f"{arm} {value:g}" for arm, value in spent.items())
            raise ConfigError(f"study {self.name!r} compares at equal {self.equal}, but at seed {seed} the arms spent {each}")

    def _key(self, arm: str, seed: int) -> dict[str, Any]:
        own = {"version": VERSION, "study": self.name, "arm": arm, "config": self.arms[arm], "seed": seed}
        return {**own, "equal": self.equal, "setting": dict(self.setting)}

    def _folder(self, arm: str, seed: int, work: Path) -> Path:
        digest = hashlib.sha256(json.dumps(self._key(arm, seed), sort_keys=True).encode()).hexdigest()[:12]
        return work / self.name / f"{arm}-{seed}-{digest}"
