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
from typing import TYPE_CHECKING, Annotated, Any

from tyro import conf

from ..core.errors import CancelledError, UsageError
from . import loras, png
from .drawing import Artist, Drawn, batch_by_batch, best_of_each, memory, record_of
from .jobs import Job, check, check_out, given, is_png, plan, refuse_existing, requests
from .options import Drawing
from .redraw import Elsewhere, as_it_was, differences, same_pixels
from .sheet import save_sheet, sheet_path
from .verb import make_folder, note, pick_device, progress_bars, unset

if TYPE_CHECKING:
    from ..pipelines.best_of import Scorer
    from ..sampling.loop import OnStep


@dataclass(frozen=True, kw_only=True)
class Generate(Drawing):
    """Draw pictures from prompts, or draw a saved picture again. Paths of the pictures are printed, one a line."""

    # What to draw: one or more prompts.
    prompt: Annotated[conf.Positional[tuple[str, ...]], unset("none", "PROMPT")] = ()
    # More prompts: a text file with one a line, a .jsonl file with {"prompt": "..."} and seed, negative, steps, guidance, cfg, size,
    # solver, shift, layout, guide, micro, binned, from_picture or strength where they differ, or - for standard input.
    prompts: Annotated[str | None, unset("none", "FILE")] = None
    # Pictures of each prompt; their seeds count up from --seed.
    num: Annotated[int | None, unset("1")] = None
    # The same seed draws the same picture.
    seed: Annotated[int | None, unset("0")] = None
    # Pictures drawn together.
    batch: Annotated[int | None, unset("1 on a CPU, 8 elsewhere")] = None
    # Draw this many candidates of each picture and keep the one that --scorer likes most.
    best_of: Annotated[int | None, unset("1")] = None
    # Who chooses: judge, critic (leaves the rating to the judge), or the folder of either, a CLIP (HPSv2 and PickScore are CLIPs) or
    # ImageReward.
    scorer: Annotated[str | None, unset("judge", "NAME|FOLDER")] = None
    # A folder, or a .png file for a single picture.
    out: Annotated[Path | None, unset("out")] = None
    # All pictures in one .png file.
    sheet: Annotated[Path | None, unset("sheet.png in the folder, where 2 to 256 pictures are drawn")] = None
    # Draw this picture again, bit for bit, into PICTURE-again.png or --out; --model, --refiner and --from-picture say where those that it
    # was drawn with are now.
    again: Annotated[Path | None, unset("none", "PICTURE.png")] = None
    # Print a JSON line for each picture instead of its path.
    json: bool = False
    # Replace files that exist.
    overwrite: bool = False
    # No progress bar.
    quiet: bool = False

    def run(self) -> int:
        check_out(self.out or Path("out"))
        if self.again is not None:
            return self._redraw(self.again)
        self._check()
        styles = loras.parse(self.lora)
        out = self.out or Path("out")
        asked = requests(self.prompt, self.prompts, self.settings(), self.seed or 0)
        jobs = plan(asked, 1 if self.num is None else self.num, out)
        sheet = sheet_path(self.sheet, out, len(jobs))
        paths = [*(job.path for job in jobs), *([sheet] if sheet else [])]
        refuse_existing(paths, self.overwrite)
        for request in asked:
            check(request.settings, request.where)
            self.check_source(request.settings.picture, paths)
        for folder in {path.parent for path in paths}:
            make_folder(folder)
        from ..pipelines.best_of import BestOf

        device = pick_device(self.device or "auto")
        scorer = _scorer(self.scorer or "judge", device) if (self.best_of or 1) > 1 else None
        artist = self.artist(device)
        for wanted in dict.fromkeys(job.settings for job in jobs):
            artist.settle(**given(wanted))
            # A record says it of every picture, so that only what is asked for can be refused.
            if wanted.binned is False and not artist.pipe.defaults.bins:
                raise UsageError(f"--binned no, and {artist.names[0]} has no bins", "it is drawn at the size asked for; leave it out")
        if self.pack:
            artist.pack()
        adapted = loras.load(styles, artist.pipe, self.lora_partial)
        loras.say(adapted)
        largest = self.batch or (1 if device == "cpu" else 8)
        if scorer is None:
            self._draw(artist, jobs, lambda on_step: batch_by_batch(artist, jobs, largest, adapted, on_step))
        else:
            best = BestOf(artist, scorer, self.best_of or 1, largest)
            note(f"the best of {best.count} is chosen by {scorer.name}; let another scorer rate these pictures")
            self._draw(artist, jobs, lambda on_step: best_of_each(best, artist, jobs, adapted, on_step))
        if sheet:
            save_sheet(jobs, sheet)
            if not self.json:
                print(sheet, flush=True)
        return 0

    def _check(self) -> None:
        """Refuse what is wrong whatever the model."""
        self.check_models()
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"batch is {self.batch}", "at least 1 picture at a time")
        if self.best_of is not None and self.best_of < 1:
            raise UsageError(f"best-of is {self.best_of}", "at least 1 candidate of each picture")
        if self.scorer is not None and (self.best_of or 1) == 1:
            raise UsageError(f"the scorer {self.scorer!r} has nothing to choose from", "--best-of 4, say")

    def _draw(self, artist: Artist, jobs: Sequence[Job], draw: Callable[[OnStep], Iterator[Drawn]]) -> None:
        """Write each picture as soon as it is drawn, and say what the user should know."""
        done, machine = 0, png.Machine.here()
        said: set[str] = set()
        with progress_bars(self.quiet, pictures=len(jobs), steps=1) as update:
            try:
                for some in draw(lambda step: update("steps", step.index, step.total)):
                    for row, job in enumerate(some.jobs):
                        record = record_of(some.pictures, row, artist, machine, some.chosen)
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
            now = Elsewhere(self.model, self.refiner, self.from_picture, self.device, self.dtype)
            artist, options = opened.enter_context(as_it_was(picture, record, now))
            machine, started = png.Machine.here(), time.monotonic()
            opened.enter_context(memory(record.frame[0], artist))
            pictures = artist(record.prompt, on_step=lambda step: update("steps", step.index, step.total), **options)
            seconds = time.monotonic() - started
        made = record_of(pictures, 0, artist, machine, record.chosen)
        png.save(pictures[0], made, target)
        same = same_pixels(picture, pictures[0])
        self._report(target, made, seconds, identical=same)
        for difference in differences(record, made):
            note(difference)
        note(f"{target} is {picture} again, bit for bit" if same else f"{target} differs from {picture}, at least in its last bits")
        return 0

    def _refuse_other_settings(self) -> None:
        allowed = {"again", "out", "model", "refiner", "from_picture", "device", "dtype", "json", "overwrite", "quiet", "debug"}
        refused = [f.name for f in fields(self) if f.name not in allowed and getattr(self, f.name) != f.default]
        if refused:
            named = ", ".join("prompt" if name == "prompt" else f"--{name.replace('_', '-')}" for name in refused)
            raise UsageError(f"--again repeats a picture as it was, so it takes no {named}", "leave it out, or leave out --again")


def _scorer(spec: str, device: str) -> Scorer:
    from ..evaluate.scorers import load_scorer

    return load_scorer(spec, device)
