"""`sfumato evaluate`: draw what a suite asks for with a model, let the judge look (`evaluate/`), print the scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro import conf

from ..core.config import to_dict
from ..core.errors import UsageError
from ..core.files import write_json
from .jobs import check, given, read_numbered
from .loras import load, parse, say
from .options import Steering
from .places import Seen, page_of, way_of
from .redraw import load_pipeline
from .verb import DtypeName, check_folder, note, pick_device, progress_bars, unset

if TYPE_CHECKING:
    from ..evaluate.compare import Comparison
    from ..evaluate.judge import Judge
    from ..pipelines import TextToImage
    from ..surgery import Lora
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
class Evaluate(Steering):
    """Score a model, or two side by side: how well it draws named things, whether it shows what a prompt asks for, what it makes of
    neutral prompts or of words it never read, or how it does on prompts of your own. A page, report-SUITE.html, shows it all.

    How the model draws (--solver, --guide, --lora, ...) is said as to sfumato generate, and --change says what is different in a second
    drawing, so that what a choice costs in quality is measured. Stopped, it goes on where it was when the same command is run again.
    """

    # A shipped model's name or a pipeline folder.
    model: conf.Positional[str]
    # A second model, drawn with the same prompts and seeds and compared picture by picture.
    against: Annotated[str | None, unset("none", "MODEL")] = None
    # How the second drawing differs, of --against or of the same model: steps=10, solver=heun, lora=FILE, ... Repeat it for several.
    change: Annotated[conf.UseAppendAction[tuple[str, ...]], unset("not at all", "OPTION=VALUE")] = ()
    # drawings: named things, beside real drawings. skills: objects, counts, colours, positions, text. bias: gender in neutral prompts.
    # words: prompts in words that no English training caption holds.
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
    # Where the pictures and reports go: a folder in it for each way of drawing, a page for each suite.
    out: Annotated[Path | None, unset("out/evaluate-MODEL")] = None
    # Print the reports as one JSON object.
    json: bool = False
    # No progress bar.
    quiet: bool = False

    def run(self) -> int:
        suites = self._suites()
        lines = None if self.prompts is None else read_numbered(self.prompts)
        check_folder(self.out or Path("out"))
        second = self._second()
        from ..evaluate.judge import Judge
        from ..pipelines.folder import find
        from .suites import ask

        for side in filter(None, (self, second)):
            find(side.model)
        judge = Judge.load(self.judge)
        asked = ask(self, suites, judge, lines)
        for line in asked.bad_lines:
            note(f"{self.prompts}, line {line.number} is left out: {line.reason}")
        if second is not None:
            self._differing(second, asked.size)
        models = [self._examine(asked)]
        if second is not None:
            models.append(second._examine(asked, models[0].root))
        compared, page = self._compare(models, judge), page_of(self._named(), models)
        if compared:
            write_json(models[0].folder / f"comparison-{page}.json", {name: to_dict(found) for name, found in compared.items()})
        path = models[0].folder / f"report-{page}.html"
        self._page(models, compared, path)
        self._show(models, compared, path)
        return 0

    def _named(self) -> str:
        """What is asked, in one word or two."""
        suite = self.suite or ("drawings" if self.prompts is None else "prompts")
        return f"{suite}-{self.pairs}" if self.pairs in ("train", "test") else suite

    def _suites(self) -> tuple[str, ...]:
        """Which suites run. Raises `UsageError` for an option that none of them knows, and when the real drawings are missing."""
        if self.prompts is not None and self.suite is not None:
            raise UsageError(f"--suite {self.suite} and --prompts {self.prompts} ask for different prompts", "run one after the other")
        one = "prompts" if self.prompts is not None else self.suite or "drawings"
        suites = ("drawings", "skills", "bias", "words") if one == "all" else (one,)
        for name, known in KNOWN_TO.items():
            if getattr(self, name) is not None and not set(known) & set(suites):
                raise UsageError(f"--{name} changes nothing in the suite {one}", f"it belongs to {_listed(known)}")
        if one != "prompts" and not self.folder.exists():
            raise UsageError(f"there are no drawings to compare with in {self.folder}", f"sfumato data emoji --out {self.folder}")
        return suites

    @property
    def folder(self) -> Path:
        """The real drawings."""
        return Path("data/emoji") if self.data is None else self.data

    def _second(self) -> Evaluate | None:
        """What is drawn beside the model. Raises `UsageError` for what no model could draw with."""
        sides = [self]
        if self.against is not None or self.change:
            sides.append(replace(self.changed(self.change), model=self.against or self.model))
        for side in sides:
            side.check_loras()
            check(side.settings(), "the prompt")
            parse(side.lora)
        return sides[1] if len(sides) > 1 else None

    def _open(self, size: int) -> tuple[TextToImage, tuple[Lora, ...]]:
        """The model and its LoRAs, loaded. Raises what its drawing would, and `UsageError` where it draws another `size` than is judged."""
        from ..pipelines.settings import by

        pipe = load_pipeline(self.model, pick_device(self.device), self.dtype)
        drawn = pipe.settle(**given(self.settings())).size
        if drawn != (size, size):
            hint = "a model of that size, or --judge FOLDER with one trained at the model's size"
            raise UsageError(f"{self.model} draws {by(drawn)}, and the judge looks at {size}x{size}", hint)
        return pipe.pack() if self.pack else pipe, load(parse(self.lora), pipe, self.lora_partial)

    def _differing(self, second: Evaluate, size: int) -> None:
        """What the second cannot draw is said before the first has drawn for hours; so is a change that changes nothing."""
        pipe, _ = second._open(size)
        if self.against is not None:
            return
        ways = [(pipe.settle(**given(s.settings())), s.pack, parse(s.lora), s.lora_partial) for s in (self, second)]
        if ways[0] == ways[1]:
            told = " ".join(f"--change {word}" for word in self.change)
            raise UsageError(f"{told} changes nothing: {self.model} is drawn so without it", "another value, or leave it out")

    def _examine(self, asked: Asked, beside: Path | None = None) -> Seen:
        """What was seen; `beside`: the folder of the model that is compared. The model is let go when it is done."""
        from ..evaluate.suites.sitting import Sitting

        pipe, adapted = self._open(asked.size)
        say(adapted)
        name, options = pipe.identity["name"], dict(given(self.settings()))
        chosen = {option: options.pop(option, getattr(pipe.defaults, option)) for option in ("steps", "guidance")}
        own = [f"{option} {value:g}" for option, value in chosen.items() if value != getattr(pipe.defaults, option)]
        told = [word for word in (*own, self.told(), self.dtype) if word]
        way = way_of([*told, f"seed {self.seed}" if self.seed else ""])
        root = (self.out or Path("out") / f"evaluate-{name}") if beside is None else beside
        root = root if beside is None or self.against is None else root / f"against-{name}"
        seen: dict[str, Any] = {}
        with progress_bars(self.quiet, **{f"{name}, {part.name}": part.pictures for part in asked.parts}) as update:
            for part in asked.parts:
                sitting = Sitting(
                    partial(pipe, loras=adapted, **options),
                    # The checksum too: another model of this name must not go on with its pictures, nor may another way of drawing,
                    # from which reports could not tell it.
                    model=", ".join([f"{name} ({pipe.identity['sha256'][:12]})", *told]),
                    out=root / way / part.name,
                    seed=self.seed,
                    **chosen,
                    batch=self.batch,
                    weights=pipe.weights,
                    progress=lambda done, total, part=part: update(f"{name}, {part.name}", done, total),  # type: ignore[misc]
                )
                seen[part.name] = part.examine(sitting)
        return Seen(name, root, way, seen)

    def _compare(self, models: Sequence[Seen], judge: Judge) -> dict[str, Comparison]:
        """The two models' parts side by side; nothing of one model alone."""
        from ..evaluate.compare import compare
        from ..evaluate.suites.outcome import Outcome
        from ..evaluate.suites.paired import paired

        if len(models) < 2:
            return {}
        first, second = (model.parts for model in models)
        return {name: (paired if isinstance(seen, Outcome) else compare)(seen, second[name], judge) for name, seen in first.items()}

    def _page(self, models: Sequence[Seen], compared: Mapping[str, Comparison], path: Path) -> None:
        from ..evaluate.page import drawings_section, write_page
        from ..evaluate.suites.outcome import Outcome
        from ..evaluate.suites.page import suite_section

        sections = []
        for name, seen in models[0].parts.items():
            section = suite_section if isinstance(seen, Outcome) else drawings_section
            sections.append(section([model.parts[name] for model in models], compared.get(name)))
        reports = [next(iter(model.parts.values())).report for model in models]
        ways = dict.fromkeys(f"{report.steps} steps, guidance {report.guidance:g}" for report in reports)
        told = f"{' against '.join(ways)}, seed {reports[0].seed}"
        write_page(path, [report.model for report in reports], told, sections)

    def _show(self, models: Sequence[Seen], compared: Mapping[str, Comparison], path: Path) -> None:
        if self.json:
            reports = [{name: to_dict(seen.report) for name, seen in model.parts.items()} for model in models]
            more = {"against": reports[1], "comparison": {k: to_dict(c) for k, c in compared.items()}} if compared else {}
            print(json.dumps({**reports[0], **more}))
            return
        from rich.console import Console

        for model in models:
            for seen in model.parts.values():
                Console().print(seen.report.table())
        for found in compared.values():
            Console().print(found.table())
        print(f"pictures and reports: {' and '.join(str(model.folder) for model in models)}; to read: {path}")


def _listed(names: Sequence[str]) -> str:
    """As people list things."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
