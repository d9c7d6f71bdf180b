"""`sfumato evaluate`: draw what a suite asks for with a model, let the judge look (`evaluate/`), print the scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro import conf

from ..core.config import to_dict
from ..core.errors import UsageError
from ..core.files import write_json
from .verb import DtypeName, Verb, note, pick_device, pick_dtype, progress_bars, unset

if TYPE_CHECKING:
    from ..evaluate.compare import Comparison
    from ..evaluate.judge import Judge
    from .suites import Asked

Suite = Literal["drawings", "skills", "bias", "words", "all"]
# The options that not every suite knows, and who does. "all" knows what any of the four does.
KNOWN_TO: Mapping[str, tuple[str, ...]] = {
    "data": ("drawings", "skills", "bias", "words"),
    "pairs": ("drawings", "skills"),
    "count": ("drawings", "skills", "bias"),
    "each": ("bias", "words", "prompts"),
    "features": ("drawings",),
}


@dataclass(frozen=True, kw_only=True)
class Evaluate(Verb):
    """Score a model, or two side by side: how well it draws named things, whether it shows what a prompt asks for, what it makes of
    neutral prompts or of words it never read, or how it does on prompts of your own. report.html shows it all.

    Stopped, it goes on where it was when the same command is run again.
    """

    # A shipped model's name or a pipeline folder.
    model: conf.Positional[str]
    # A second model, drawn with the same prompts and seeds and compared picture by picture.
    against: Annotated[str | None, unset("none", "MODEL")] = None
    # drawings: named things, beside real drawings. skills: objects, counts, colours, positions, text. bias: gender in neutral prompts.
    # words: prompts in words that no training caption holds.
    suite: Annotated[Suite | None, unset("drawings, or what --prompts asks")] = None
    # A file of your own prompts, one a line; a .jsonl line may say what must be seen. "-" reads standard input.
    prompts: Annotated[str | None, unset("none", "FILE")] = None
    # The EmojiWorld folder with the real drawings.
    data: Annotated[Path | None, unset("data/emoji")] = None
    # train: seen in training. test: never seen in that style. Of the suites drawings and skills.
    pairs: Annotated[Literal["train", "test", "both"] | None, unset("both")] = None
    # Pictures of each kind of pairs, and of the suite bias.
    count: Annotated[int | None, unset("300")] = None
    # Pictures of each neutral prompt, of each unseen word, or of each prompt of your own.
    each: Annotated[int | None, unset("12 of a neutral prompt, 1 of the others")] = None
    # Solver steps.
    steps: Annotated[int | None, unset("the model's own")] = None
    # Guidance weight.
    guidance: Annotated[float | None, unset("the model's own")] = None
    # Picks the prompts and the noise.
    seed: int = 0
    # Pictures drawn together.
    batch: int = 16
    # A judge's folder.
    judge: Annotated[Path | None, unset("the one that ships")] = None
    # What sets of pictures are compared in: the folder of a CLIP, DINO or Inception. Of the suite drawings.
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
        suites = self._suites()
        from ..evaluate.judge import Judge
        from .suites import ask

        judge = Judge.load(self.judge)
        asked = ask(self, suites, judge)
        for line in asked.bad_lines:
            note(f"{self.prompts}, line {line.number} is left out: {line.reason}")
        seen, out = self._examine(self.model, self.out, asked)
        models = [seen]
        if self.against is not None:
            models.append(self._examine(self.against, out / "against", asked)[0])
        compared = self._compare(models, judge)
        if compared:
            write_json(out / "comparison.json", {name: to_dict(found) for name, found in compared.items()})
        self._page(models, compared, out)
        self._show(models, compared, out)
        return 0

    def _suites(self) -> tuple[str, ...]:
        """Which suites run. Raises `UsageError` for an option that none of them knows, and when the real drawings are missing."""
        if self.prompts is not None and self.suite is not None:
            raise UsageError(f"--suite {self.suite} and --prompts {self.prompts} ask for different prompts", "run one after the other")
        one = "prompts" if self.prompts is not None else self.suite or "drawings"
        suites = ("drawings", "skills", "bias", "words") if one == "all" else (one,)
        for name, known in KNOWN_TO.items():
            if getattr(self, name) is not None and not set(known) & set(suites):
                raise UsageError(f"--{name} changes nothing in the suite {one}", f"it belongs to {' and '.join(known)}")
        if one != "prompts" and not self.folder.exists():
            raise UsageError(f"there are no drawings to compare with in {self.folder}", f"sfumato data emoji --out {self.folder}")
        return suites

    @property
    def folder(self) -> Path:
        """The real drawings."""
        return Path("data/emoji") if self.data is None else self.data

    def _examine(self, model: str, out: Path | None, asked: Asked) -> tuple[dict[str, Any], Path]:
        """What was seen of one model, by part, and the folder of its pictures. The model is let go when it is done."""
        from ..evaluate.suites.sitting import Sitting
        from ..pipelines import load

        pipe = load(model, device=pick_device(self.device), dtype=pick_dtype(self.dtype))
        name = pipe.identity["name"]
        out = out or Path("out") / f"evaluate-{name}"
        seen: dict[str, Any] = {}
        with progress_bars(self.quiet, **{f"{name}, {part.name}": part.pictures for part in asked.parts}) as update:
            for part in asked.parts:
                sitting = Sitting(
                    pipe,  # type: ignore[arg-type]
                    # The checksum too: another model of this name must not go on with its pictures.
                    model=f"{name} ({pipe.identity['sha256'][:12]})",
                    out=out / part.name,
                    seed=self.seed,
                    steps=pipe.defaults.steps if self.steps is None else self.steps,
                    guidance=pipe.defaults.guidance if self.guidance is None else self.guidance,
                    batch=self.batch,
                    weights=pipe.weights,
                    progress=lambda done, total, part=part: update(f"{name}, {part.name}", done, total),  # type: ignore[misc]
                )
                seen[part.name] = part.examine(sitting)
        return seen, out

    def _compare(self, models: Sequence[Mapping[str, Any]], judge: Judge) -> dict[str, Comparison]:
        """The two models' parts side by side; nothing of one model alone."""
        from ..evaluate.compare import compare
        from ..evaluate.suites.outcome import Outcome
        from ..evaluate.suites.paired import paired

        if len(models) < 2:
            return {}
        first, second = models
        return {name: (paired if isinstance(seen, Outcome) else compare)(seen, second[name], judge) for name, seen in first.items()}

    def _page(self, models: Sequence[Mapping[str, Any]], compared: Mapping[str, Comparison], out: Path) -> None:
        from ..evaluate.page import drawings_section, write_page
        from ..evaluate.suites.outcome import Outcome
        from ..evaluate.suites.page import suite_section

        sections = []
        for name, seen in models[0].items():
            section = suite_section if isinstance(seen, Outcome) else drawings_section
            sections.append(section([model[name] for model in models], compared.get(name)))
        reports = [next(iter(model.values())).report for model in models]
        told = f"{reports[0].steps} steps, guidance {reports[0].guidance:g}, seed {reports[0].seed}"
        write_page(out / "report.html", [report.model for report in reports], told, sections)

    def _show(self, models: Sequence[Mapping[str, Any]], compared: Mapping[str, Comparison], out: Path) -> None:
        if self.json:
            reports = [{name: to_dict(seen.report) for name, seen in model.items()} for model in models]
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
