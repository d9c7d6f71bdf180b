"""`sfumato evaluate`: draw named pairs with a model, let the judge look (`evaluate/`), print the scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro import conf

from ..core.config import to_dict
from ..core.errors import UsageError
from ..core.files import write_json
from .verb import DtypeName, Verb, pick_device, pick_dtype, progress_bars, unset

if TYPE_CHECKING:
    from ..evaluate.compare import Comparison
    from ..evaluate.evaluate import Examined
    from ..evaluate.features import Features
    from ..evaluate.judge import Judge

Kind = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class Evaluate(Verb):
    """Score a model: concept and style accuracy, alignment, retrieval, distances to real drawings, on pairs it was trained on and on
    pairs it never saw; or two models side by side. report.html shows it all.

    Stopped, it goes on where it was when the same command is run again.
    """

    # A shipped model's name or a pipeline folder.
    model: conf.Positional[str]
    # A second model, drawn with the same prompts and seeds and compared picture by picture.
    against: Annotated[str | None, unset("none", "MODEL")] = None
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
    # What sets of pictures are compared in: the folder of a CLIP, DINO or Inception.
    features: Annotated[Path | None, unset("the judge's embedding")] = None
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
        from ..evaluate.compare import compare
        from ..evaluate.judge import Judge
        from ..evaluate.page import write_page

        judge = Judge.load(self.judge)
        features = self._extractor()
        kinds: tuple[Kind, ...] = ("train", "test") if self.pairs == "both" else (self.pairs,)
        seen, out = self._examine(self.model, self.out, kinds, judge, features)
        models = [seen]
        if self.against is not None:
            models.append(self._examine(self.against, out / "against", kinds, judge, features)[0])
        compared: dict[str, Comparison] = {}
        if len(models) > 1:
            compared = {kind: compare(models[0][kind], models[1][kind], judge) for kind in kinds}
        if compared:
            write_json(out / "comparison.json", {kind: to_dict(found) for kind, found in compared.items()})
        write_page(out / "report.html", {kind: [model[kind] for model in models] for kind in kinds}, compared)
        self._show(models, compared, out)
        return 0

    def _extractor(self) -> Features | None:
        if self.features is None:
            return None
        from ..evaluate.features import load_features

        return load_features(self.features, pick_device(self.device))

    def _examine(
        self, model: str, out: Path | None, kinds: Sequence[Kind], judge: Judge, features: Features | None
    ) -> tuple[dict[str, Examined], Path]:
        """What was seen of one model, by kind of pairs, and the folder of its pictures. The model is let go when it is done."""
        from ..data.sources import open_source
        from ..evaluate.evaluate import examine
        from ..pipelines import load

        pipe = load(model, device=pick_device(self.device), dtype=pick_dtype(self.dtype))
        source = open_source(self.data, split=None, size=judge.config.size)
        name = pipe.identity["name"]
        out = out or Path("out") / f"evaluate-{name}"
        seen: dict[str, Examined] = {}
        with progress_bars(self.quiet, **{f"{name}, {kind}": self.count for kind in kinds}) as update:
            for kind in kinds:
                seen[kind] = examine(
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
                    progress=lambda done, total, kind=kind: update(f"{name}, {kind}", done, total),  # type: ignore[misc]
                    # The checksum too: another model of this name must not go on with its pictures.
                    model=f"{name} ({pipe.identity['sha256'][:12]})",
                    features=features,
                    weights=pipe.weights,
                )
        return seen, out

    def _show(self, models: Sequence[Mapping[str, Examined]], compared: Mapping[str, Comparison], out: Path) -> None:
        if self.json:
            reports = [{kind: to_dict(seen.report) for kind, seen in model.items()} for model in models]
            more = {"against": reports[1], "comparison": {k: to_dict(c) for k, c in compared.items()}} if compared else {}
            print(json.dumps({**reports[0], **more}))
            return
        from rich.console import Console

        for model in models:
            for seen in model.values():
                Console().print(seen.report.table())
        for found in compared.values():
            Console().print(found.table())
        print(f"pictures and reports: {out}; to read: {out / 'report.html'}")
