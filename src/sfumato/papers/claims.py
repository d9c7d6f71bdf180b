"""Claims and their records: what a published system says, how it was checked here, and what came out.

A paper's file holds `CLAIM` and `check(budget) -> Outcome`. `reproduce` runs the check and writes `docs/claims/<slug>.json`, where the
results of different budgets stand side by side; `listing` and `markdown` say of all systems what is known. A claim counts as checked only
by a measurement: a smoke run shows that the parts compute what they should, never that the claim holds.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ..core.config import to_dict
from ..core.errors import DataError, UnknownNameError, UsageError
from ..core.files import write_json

BudgetName = Literal["smoke", "cpu", "gpu"]
Verdict = Literal["reproduced", "partly", "not reproduced", "not yet"]
Value = float | str | tuple[float, ...] | None
BUDGETS: tuple[BudgetName, ...] = ("smoke", "cpu", "gpu")
VERDICTS: tuple[Verdict, ...] = ("reproduced", "partly", "not reproduced", "not yet")
RECORDS, WORK = Path("docs/claims"), Path("runs/claims")


@dataclass(frozen=True)
class Claim:
    """What a system says, in our words, and the budgets its check knows."""

    slug: str
    title: str
    arxiv: str
    statement: str
    budgets: tuple[BudgetName, ...] = BUDGETS


@dataclass(frozen=True)
class Finding:
    """One number beside the one expected. `passed` None: shown, not judged. `interval`: 95%."""

    name: str
    expected: Value
    found: Value
    passed: bool | None = None
    unit: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Budget:
    """What a check may use. `work`: resumable intermediate results; `pictures`: where plots go.

    `data`: an EmojiWorld folder (None: $SFUMATO_DATA, else data/emoji). `model`: the pipeline, by name or folder, whose codec and text
    encoder are used; `judge`: a judge's folder (None: the shipped one). `scale` below 1 shrinks a check to see that it runs.
    """

    name: BudgetName
    work: Path = WORK
    pictures: Path = RECORDS
    data: Path | None = None
    model: str = "emoji-mmdit"
    judge: Path | None = None
    scale: float = 1.0

    @property
    def device(self) -> str:
        return "cuda" if self.name == "gpu" else "cpu"


@dataclass(frozen=True)
class Outcome:
    """What a check hands back. `pictures`: files it wrote."""

    findings: tuple[Finding, ...]
    verdict: Verdict = "not yet"
    summary: str = ""
    seeds: tuple[int, ...] = ()
    pictures: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Report:
    """One run of one check, as it is recorded."""

    slug: str
    budget: BudgetName
    verdict: Verdict
    summary: str
    findings: tuple[Finding, ...]
    seeds: tuple[int, ...]
    pictures: tuple[str, ...]
    device: str
    versions: dict[str, str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing that was judged failed."""
        return all(f.passed is not False for f in self.findings)

    def record(self) -> dict[str, Any]:
        """The report as JSON values; numbers that are not finite become null."""
        plain: dict[str, Any] = json.loads(json.dumps(to_dict(self)), parse_constant=lambda name: None)
        return plain


@dataclass(frozen=True)
class Status:
    """A line of the listing."""

    slug: str
    name: str
    title: str
    arxiv: str
    verdict: Verdict
    detail: str


def reached(*parts: bool) -> Verdict:
    """Of a claim of several parts: reproduced where all hold, partly where some do. A part rests on intervals, so that luck alone seldom
    makes it hold.
    """
    return "reproduced" if all(parts) else "partly" if any(parts) else "not reproduced"


def exact(name: str, expected: float | Sequence[float], found: float | Sequence[float], tolerance: float = 0.0, unit: str = "") -> Finding:
    """A finding that passes when every number is within `tolerance` of the expected one."""
    wanted, got = ((x,) if isinstance(x, int | float) else tuple(x) for x in (expected, found))
    passed = len(wanted) == len(got) and all(abs(a - b) <= tolerance for a, b in zip(wanted, got, strict=True))
    return Finding(name, _one(wanted), _one(got), passed, unit)


def drawings(budget: Budget) -> Path:
    """The EmojiWorld folder that a budget names. Raises `DataError` when it is not there."""
    folder = budget.data or Path(os.environ.get("SFUMATO_DATA", "data/emoji"))
    if not folder.exists():
        raise DataError(f"there are no drawings in {folder}", f"sfumato data emoji --out {folder}, or name their folder in SFUMATO_DATA")
    return folder


def _one(values: tuple[float, ...]) -> Value:
    return values[0] if len(values) == 1 else values


def reproduce(
    slug: str,
    budget: BudgetName = "smoke",
    out: Path = RECORDS,
    *,
    data: Path | None = None,
    model: str | None = None,
    judge: Path | None = None,
    work: Path = WORK,
    scale: float = 1.0,
) -> Report:
    """Run the check of `slug` and record it in `out/<slug>.json`, beside the records of other budgets; pictures go into `out/<slug>/`.

    A run that was stopped goes on from `work`. With `scale` < 1 everything is smaller and recorded under `work/dry`, never as a verdict.
    Raises `UnknownNameError` with the nearest slugs, `UsageError` for a claim without a check, a bad budget or options it does not use.
    """
    paper = _paper(slug)
    claim: Claim = paper.CLAIM
    if budget not in claim.budgets:
        raise UnknownNameError(f"budget of {slug}", budget, claim.budgets)
    if not 0.0 < scale <= 1.0:
        raise UsageError(f"scale is {scale}", "a fraction of the whole check, above 0 and at most 1")
    unused = [n for n, v in {"data": data, "model": model, "judge": judge}.items() if v is not None] + ["scale"] * (scale != 1.0)
    if budget == "smoke" and unused:
        raise UsageError(f"a smoke check uses no {', '.join(unused)}", "leave them out, or choose budget 'cpu' or 'gpu'")
    out = out if scale == 1.0 else work / "dry"
    spend = Budget(budget, work, out / slug, data, model or "emoji-mmdit", judge, scale)
    device = _device(spend)
    started = time.monotonic()
    outcome: Outcome = paper.check(spend)
    seconds = round(time.monotonic() - started, 1)
    outcome = _honest(outcome, budget, scale)
    pictures = tuple(p.relative_to(out).as_posix() for p in outcome.pictures)
    report = Report(slug, budget, outcome.verdict, outcome.summary, outcome.findings, outcome.seeds, pictures, device, _versions(), seconds)
    _record(claim, report, out)
    return report


def listing(out: Path = RECORDS) -> tuple[Status, ...]:
    """Every system with its verdict: that of the largest budget that reached one, "not yet" where none did."""
    return tuple(Status(e["slug"], e["name"], e["title"], e["arxiv"], *_known(e["slug"], out)) for e in catalogue().values())


def markdown(out: Path = RECORDS) -> str:
    """The listing as a document, `docs/claims.md`; links are relative to the folder above `out`."""
    lines = listing(out)
    counts = " · ".join(f"{sum(s.verdict == v for s in lines)} {v}" for v in VERDICTS)
    head = [
        "# Claims",
        "",
        "What each published system claims, and what came of it when it was checked here, on models and data that ship with sfumato.",
        "Written by `sfumato reproduce --list --markdown docs/claims.md`; `sfumato reproduce SLUG --budget cpu` runs a check again.",
        "*Not yet* means that no measurement was made: the parts do not exist, or only their exact checks (smoke) have been run.",
        "",
        f"{len(lines)} systems: {counts}.",
        "",
        "| system | paper | verdict | what was checked |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *(_row(s, out) for s in lines)]) + "\n"


@lru_cache(maxsize=1)
def catalogue() -> dict[str, dict[str, str]]:
    """slug -> slug, name, title and arXiv number of all systems, in alphabetical order."""
    entries = json.loads((resources.files(__package__) / "slugs.json").read_text(encoding="utf-8"))
    return {entry["slug"]: entry for entry in entries}


def _module(slug: str) -> str | None:
    """The module of a paper's file, None where there is none."""
    name = f"{__package__}.{slug.replace('-', '_')}"
    return name if importlib.util.find_spec(name) else None


def _paper(slug: str) -> ModuleType:
    if slug not in catalogue():
        raise UnknownNameError("claim", slug, catalogue())
    module = _module(slug)
    if module is None:
        built = ", ".join(s for s in catalogue() if _module(s))
        raise UsageError(f"the claim of {catalogue()[slug]['name']} ({slug}) has no check yet", f"those that have one: {built}")
    return importlib.import_module(module)


def _honest(outcome: Outcome, budget: BudgetName, scale: float) -> Outcome:
    """A smoke or dry run reaches no verdict, whatever it found."""
    judged = [f.passed for f in outcome.findings if f.passed is not None]
    if budget == "smoke":
        return replace(outcome, verdict="not yet", summary=f"{sum(judged)}/{len(judged)} exact checks pass")
    if scale != 1.0:
        return replace(outcome, verdict="not yet", summary=f"dry run at scale {scale:g}: {outcome.summary}")
    return outcome


def _record(claim: Claim, report: Report, out: Path) -> None:
    path = out / f"{claim.slug}.json"
    budgets = _read(path).get("budgets", {}) | {report.budget: report.record()}
    ordered = {name: budgets[name] for name in BUDGETS if name in budgets}
    content = {**to_dict(claim), "verdict": _verdict(ordered), "budgets": ordered}
    write_json(path, content)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"damaged record {path}: {error}", "restore it from version control, or remove it and run its checks again"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("budgets"), dict):
        raise DataError(f"{path} is no record of a claim", "remove it and run the check again")
    return content


def _verdict(budgets: Mapping[BudgetName, Any]) -> Verdict:
    reached: list[Verdict] = [budgets[n]["verdict"] for n in BUDGETS if n in budgets and budgets[n]["verdict"] != "not yet"]
    return reached[-1] if reached else "not yet"


def _known(slug: str, out: Path) -> tuple[Verdict, str]:
    budgets = _read(out / f"{slug}.json").get("budgets", {})
    details = [f"{name}: {budgets[name]['summary']}" for name in BUDGETS if name in budgets]
    return _verdict(budgets), "; ".join(details) or ("check written, not run" if _module(slug) else "")


def _row(status: Status, out: Path) -> str:
    name = f"[{status.name}]({out.name}/{status.slug}.json)" if (out / f"{status.slug}.json").is_file() else status.name
    paper = f"[{status.title}](https://arxiv.org/abs/{status.arxiv})"
    cells = (f"{name} (`{status.slug}`)", paper, status.verdict, status.detail)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _device(budget: Budget) -> str:
    """The machine in words. Raises `UsageError` when the gpu budget finds no GPU."""
    if budget.device == "cpu":
        return f"{platform.machine()} CPU, {os.cpu_count()} cores"
    import torch

    if not torch.cuda.is_available():
        raise UsageError("the gpu budget needs a GPU, and torch sees none", "--budget cpu runs the smaller check")
    return torch.cuda.get_device_name()


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ("sfumato", "torch", "numpy")}


def shown(value: float, interval: tuple[float, float] | None = None, digits: int = 4) -> str:
    """A number as people read it, with its interval."""
    text = f"{value:.{digits}g}"
    return text if interval is None or any(map(math.isnan, interval)) else f"{text} [{interval[0]:.{digits}g}, {interval[1]:.{digits}g}]"
