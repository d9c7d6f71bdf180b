"""`sfumato generate`: prompts -> pictures on disk, each with the record that draws it again (`--again`).

Whatever can be refused is refused before a model is loaded; after that every picture is written as soon as it is drawn, whole or not
at all, so Ctrl-C or a full disk keeps what was finished.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro import conf

from ..core.errors import CancelledError, UsageError
from . import loras, png
from .drawing import Drawn, batch_by_batch, best_of_each, memory, record_of
from .jobs import Job, Settings, check, given, is_png, plan, refuse_existing, requests
from .redraw import as_it_was, differences, load_pipeline, same_pixels, where
from .sheet import save_sheet, sheet_path
from .verb import DtypeName, Verb, make_folder, note, parse_layout, parse_size, pick_device, progress_bars, unset

if TYPE_CHECKING:
    from ..pipelines.best_of import Scorer
    from ..sampling.loop import OnStep

MODEL = "emoji-mmdit"


@dataclass(frozen=True, kw_only=True)
class Generate(Verb):
    """Draw pictures from prompts, or draw a saved picture again. Paths of the pictures are printed, one a line."""

    # What to draw: one or more prompts.
    prompt: Annotated[conf.Positional[tuple[str, ...]], unset("none", "PROMPT")] = ()
    # More prompts: a text file with one a line, a .jsonl file with {"prompt": "..."} and seed, negative, steps, guidance, cfg, size,
    # solver, shift, layout or binned where they differ, or - for standard input.
    prompts: Annotated[str | None, unset("none", "FILE")] = None
    # A shipped model's name or a pipeline folder.
    model: Annotated[str | None, unset(MODEL)] = None
    # Pictures of each prompt; their seeds count up from --seed.
    num: Annotated[int | None, unset("1")] = None
    # The same seed draws the same picture.
    seed: Annotated[int | None, unset("0")] = None
    # Solver steps, 1 to 1000.
    steps: Annotated[int | None, unset("the model's own")] = None
    # How strongly the prompt is followed, 0 to 100; 1 = without guidance.
    guidance: Annotated[float | None, unset("the model's own")] = None
    # Classifier-free guidance on top, for a model that is told its guidance as a number (FLUX.1 dev); 1 = none.
    cfg: Annotated[float | None, unset("the model's own")] = None
    # What to keep out of the picture.
    negative: Annotated[str | None, unset("nothing")] = None
    # Pixels: 128, or width x height as 128x192.
    size: Annotated[str | None, unset("what the model was trained at")] = None
    # yes: draw at the nearest size that the model was trained at and resize the picture (PixArt); no: draw at --size itself.
    binned: Annotated[Literal["yes", "no"] | None, unset("as the model was released")] = None
    # The solver: euler, heun, dpm++2m or unipc; renoise adds new noise in each step, as distilled networks want it.
    solver: Annotated[str | None, unset("the model's own")] = None
    # Above 1: more of the steps near the noise.
    shift: Annotated[float | None, unset("the model's own, scaled to the size")] = None
    # How the steps are laid out: a kind (paper, released; for discrete schedules linspace, leading, trailing, uniform) and its other fields
    # by name, as in uniform,end=first or paper,scaling=fixed.
    layout: Annotated[str | None, unset("the model's own", "KIND[,FIELD=VALUE]")] = None
    # cpu, cuda or cuda:1, say.
    device: Annotated[str | None, unset("the GPU where there is one")] = None
    # Numbers to compute in.
    dtype: Annotated[DtypeName | None, unset("float32 on a CPU, bfloat16 elsewhere")] = None
    # Lay weights out for this CPU before drawing: takes a moment, then each picture is sooner done (docs/benchmarks.md).
    pack: bool = False
    # Pictures drawn together.
    batch: Annotated[int | None, unset("1 on a CPU, 8 elsewhere")] = None
    # Draw this many candidates of each picture and keep the one that --scorer likes most.
    best_of: Annotated[int | None, unset("1")] = None
    # Who chooses: judge, critic (leaves the rating to the judge), or the folder of either, a CLIP (HPSv2 and PickScore are CLIPs) or
    # ImageReward.
    scorer: Annotated[str | None, unset("judge", "NAME|FOLDER")] = None
    # A LoRA: a .safetensors file or a folder with one, and how strongly it acts (1 = as trained). Repeat it for several.
    lora: Annotated[conf.UseAppendAction[tuple[str, ...]], unset("none", "FILE[:WEIGHT]")] = ()
    # Of a LoRA, use what fits the model and name the rest, instead of refusing it.
    lora_partial: bool = False
    # A folder, or a .png file for a single picture.
    out: Annotated[Path | None, unset("out")] = None
    # All pictures in one .png file.
    sheet: Annotated[Path | None, unset("sheet.png in the folder, where 2 to 256 pictures are drawn")] = None
    # Draw this picture again, bit for bit, into PICTURE-again.png or --out.
    again: Annotated[Path | None, unset("none", "PICTURE.png")] = None
    # Print a JSON line for each picture instead of its path.
    json: bool = False
    # Replace files that exist.
    overwrite: bool = False
    # No progress bar.
    quiet: bool = False

    def run(self) -> int:
        if self.again is not None:
            return self._redraw(self.again)
        settings = Settings(
            negative=self.negative or "",
            steps=self.steps,
            guidance=self.guidance,
            solver=self.solver,
            size=None if self.size is None else parse_size(self.size),
            shift=self.shift,
            cfg=self.cfg,
            binned=None if self.binned is None else self.binned == "yes",
            layout=None if self.layout is None else parse_layout(self.layout),
        )
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"batch is {self.batch}", "at least 1 picture at a time")
        if self.best_of is not None and self.best_of < 1:
            raise UsageError(f"best-of is {self.best_of}", "at least 1 candidate of each picture")
        if self.scorer is not None and (self.best_of or 1) == 1:
            raise UsageError(f"the scorer {self.scorer!r} has nothing to choose from", "--best-of 4, say")
        if self.lora_partial and not self.lora:
            raise UsageError("--lora-partial says how to load a LoRA, and none was named", "--lora FILE.safetensors")
        styles = loras.parse(self.lora)
        out = self.out or Path("out")
        asked = requests(self.prompt, self.prompts, settings, self.seed or 0)
        jobs = plan(asked, 1 if self.num is None else self.num, out)
        sheet = sheet_path(self.sheet, out, len(jobs))
        paths = [*(job.path for job in jobs), *([sheet] if sheet else [])]
        refuse_existing(paths, self.overwrite)
        for request in asked:
            check(request.settings, request.where)
        for folder in {path.parent for path in paths}:
            make_folder(folder)
        from ..pipelines.best_of import BestOf

        device = pick_device(self.device or "auto")
        scorer = _scorer(self.scorer or "judge", device) if (self.best_of or 1) > 1 else None
        pipe = load_pipeline(self.model or MODEL, device, self.dtype)
        for wanted in dict.fromkeys(job.settings for job in jobs):
            pipe.settle(**given(wanted))
        if self.pack:
            pipe.pack()
        adapted = loras.load(styles, pipe, self.lora_partial)
        largest = self.batch or (1 if device == "cpu" else 8)
        if scorer is None:
            self._draw(jobs, lambda on_step: batch_by_batch(pipe, jobs, largest, adapted, on_step))
        else:
            best = BestOf(pipe, scorer, self.best_of or 1, largest)
            note(f"the best of {best.count} is chosen by {scorer.name}; let another scorer rate these pictures")
            self._draw(jobs, lambda on_step: best_of_each(best, jobs, adapted, on_step))
        if sheet:
            save_sheet(jobs, sheet)
            if not self.json:
                print(sheet, flush=True)
        return 0

    def _draw(self, jobs: Sequence[Job], draw: Callable[[OnStep], Iterator[Drawn]]) -> None:
        """Write each picture as soon as it is drawn, and say what the user should know."""
        done, machine = 0, png.Machine.here()
        said: set[str] = set()
        with progress_bars(self.quiet, pictures=len(jobs), steps=1) as update:
            try:
                for some in draw(lambda step: update("steps", step.index, step.total)):
                    for row, job in enumerate(some.jobs):
                        record = record_of(some.pictures, row, self.model or MODEL, machine, some.chosen)
                        png.save(some.pictures[row], record, job.path)
                        done += 1
                        update("pictures", done, len(jobs))
                        self._report(job.path, record, some.seconds / len(some.jobs))
                    for text in some.pictures.notes:
                        if text not in said:
                            note(text)
                            said.add(text)
            except KeyboardInterrupt as stop:
                raise CancelledError(f"stopped: {done} of {len(jobs)} pictures are finished and kept") from stop

    def _report(self, path: Path, record: png.Record, seconds: float, **more: Any) -> None:
        """The one line about a picture on standard output; flushed, so that a reader sees it when the picture is there."""
        line = json.dumps({"path": str(path), **asdict(record), "seconds": round(seconds, 3), **more}) if self.json else str(path)
        print(line, flush=True)

    def _redraw(self, picture: Path) -> int:
        self._refuse_other_settings()
        record = png.read(picture)
        name = f"{picture.stem}-again.png"
        target = picture.with_name(name) if self.out is None else self.out if is_png(self.out) else self.out / name
        refuse_existing([target], self.overwrite)
        make_folder(target.parent)
        with ExitStack() as opened:
            update = opened.enter_context(progress_bars(self.quiet, steps=1))
            pipe, options = opened.enter_context(as_it_was(picture, record, self.model, self.device, self.dtype))
            machine, started = png.Machine.here(), time.monotonic()
            opened.enter_context(memory(record.frame[0], pipe))
            pictures = pipe(record.prompt, on_step=lambda step: update("steps", step.index, step.total), **options)
            seconds = time.monotonic() - started
        made = record_of(pictures, 0, self.model or where(record.model), machine, record.chosen)
        png.save(pictures[0], made, target)
        same = same_pixels(picture, pictures[0])
        self._report(target, made, seconds, identical=same)
        for difference in differences(record, made):
            note(difference)
        note(f"{target} is {picture} again, bit for bit" if same else f"{target} differs from {picture}, at least in its last bits")
        return 0

    def _refuse_other_settings(self) -> None:
        allowed = {"again", "out", "model", "device", "dtype", "json", "overwrite", "quiet", "debug"}
        refused = [f.name for f in fields(self) if f.name not in allowed and getattr(self, f.name) not in (None, (), False)]
        if refused:
            named = ", ".join("a prompt" if name == "prompt" else f"--{name}" for name in refused)
            raise UsageError(f"--again repeats a picture as it was, so it takes no {named}", "leave it out, or leave out --again")


def _scorer(spec: str, device: str) -> Scorer:
    from ..evaluate.scorers import load_scorer

    return load_scorer(spec, device)
