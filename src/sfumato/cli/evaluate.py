"""`sfumato evaluate`: draw named pairs with a model, let the judge look (`evaluate/`), print the scores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro import conf

from ..core.config import to_dict
from ..core.errors import UsageError
from .verb import DtypeName, Verb, pick_device, pick_dtype, progress_bars, unset


@dataclass(frozen=True, kw_only=True)
class Evaluate(Verb):
    """Score a model: concept and style accuracy, alignment, Fréchet and kernel distance, on pairs it was trained on and on pairs
    it never saw.

    Stopped, it goes on where it was when the same command is run again.
    """

    # A shipped model's name or a pipeline folder.
    model: conf.Positional[str]
    # The EmojiWorld folder with the real drawings.
    data: Path = Path("data/emoji")
    # train: seen in training. test: never seen in that style.
    pairs: Literal["train", "test", "both"] = "both"
    # Pairs of each kind.
    count: int = 300
    # Solver steps.
    steps: Annotated[int | None, unset("the model's own")] = None
    # Guidance weight.
    guidance: Annotated[float | None, unset("the model's own")] = None
    # Picks the pairs and the noise.
    seed: int = 0
    # Pictures drawn together.
    batch: int = 16
    # A judge's folder.
    judge: Annotated[Path | None, unset("the one that ships")] = None
    # cpu, cuda or cuda:1, say.
    device: Annotated[str, unset("the GPU where there is one")] = "auto"
    # Numbers to compute in.
    dtype: Annotated[DtypeName | None, unset("float32 on a CPU, bfloat16 elsewhere")] = None
    # Where the pictures and reports go.
    out: Annotated[Path | None, unset("out/evaluate-MODEL")] = None
    # Print the reports as one JSON object.
    json: bool = False
    # No progress bar.
    quiet: bool = False

    def run(self) -> int:
        if not self.data.exists():
            raise UsageError(f"there are no drawings to compare with in {self.data}", f"sfumato data emoji --out {self.data}")
        from ..data.sources import open_source
        from ..evaluate.evaluate import evaluate
        from ..evaluate.judge import Judge
        from ..pipelines import load

        judge = Judge.load(self.judge)
        pipe = load(self.model, device=pick_device(self.device), dtype=pick_dtype(self.dtype))
        source = open_source(self.data, split=None, size=judge.config.size)
        name = pipe.identity["name"]
        out = self.out or Path("out") / f"evaluate-{name}"
        reports: dict[str, Any] = {}
        kinds: tuple[Literal["train", "test"], ...] = ("train", "test") if self.pairs == "both" else (self.pairs,)
        with progress_bars(self.quiet, **dict.fromkeys(kinds, self.count)) as update:
            for kind in kinds:
                reports[kind] = evaluate(
                    pipe,  # type: ignore[arg-type]
                    source,
                    judge,
                    pairs=kind,
                    count=self.count,
                    seed=self.seed,
                    steps=pipe.defaults.steps if self.steps is None else self.steps,
                    guidance=pipe.defaults.guidance if self.guidance is None else self.guidance,
                    batch=self.batch,
                    out=out / kind,
                    progress=lambda done, total, kind=kind: update(kind, done, total),  # type: ignore[misc]
                    # The checksum too: another model of this name must not go on with its pictures.
                    model=f"{name} ({pipe.identity['sha256'][:12]})",
                )
        self._show(reports, out)
        return 0

    def _show(self, reports: dict[str, Any], out: Path) -> None:
        if self.json:
            print(json.dumps({kind: to_dict(report) for kind, report in reports.items()}))
            return
        from rich.console import Console

        for report in reports.values():
            Console().print(report.table())
        print(f"pictures and reports: {out}")
