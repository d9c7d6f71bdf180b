"""`sfumato generate`: prompts -> pictures on disk, each with the record that draws it again (`--again`).

Whatever can be refused is refused before a model is loaded; after that every picture is written as soon as it is drawn, whole or not
at all, so Ctrl-C or a full disk keeps what was finished.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro import conf

from ..core.errors import CancelledError, SfumatoError, UsageError
from ..core.files import write_with
from . import loras, png
from .jobs import Job, Settings, batches, check, given, is_png, plan, refuse_existing, requests
from .redraw import load_pipeline, same_pixels, same_weights, threads, where
from .verb import DtypeName, Verb, make_folder, note, parse_size, pick_device, progress_bars, unset

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pipelines import Pictures, TextToImage
    from ..pipelines.best_of import BestOf, Scorer
    from ..sampling.loop import OnStep
    from ..surgery import Lora

MODEL = "emoji-mmdit"
LARGEST_AUTOMATIC_SHEET = 256


@dataclass(frozen=True, kw_only=True)
class Generate(Verb):
    """Draw pictures from prompts, or draw a saved picture again. Paths of the pictures are printed, one a line."""

    # What to draw: one or more prompts.
    prompt: Annotated[conf.Positional[tuple[str, ...]], unset("none", "PROMPT")] = ()
    # More prompts: a text file with one a line, a .jsonl file with {"prompt": "..."} and seed, negative, steps, guidance, size or solver
    # where they differ, or - for standard input.
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
    # What to keep out of the picture.
    negative: Annotated[str | None, unset("nothing")] = None
    # Pixels: 128, or width x height as 128x192.
    size: Annotated[str | None, unset("what the model was trained at")] = None
    # The solver: euler, heun, dpm++2m or unipc; renoise adds new noise in each step, as distilled networks want it.
    solver: Annotated[str | None, unset("the model's own")] = None
    # Above 1: more of the steps near the noise.
    shift: Annotated[float | None, unset("the model's own, scaled to the size")] = None
    # cpu, cuda or cuda:1, say.
    device: Annotated[str | None, unset("the GPU where there is one")] = None
    # Numbers to compute in.
    dtype: Annotated[DtypeName | None, unset("float32 on a CPU, bfloat16 elsewhere")] = None
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
            self.negative or "", self.steps, self.guidance, self.solver, None if self.size is None else parse_size(self.size), self.shift
        )
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"batch is {self.batch}", "at least 1 picture at a time")
        if self.best_of is not None and self.best_of < 1:
            raise UsageError(f"best-of is {self.best_of}", "at least 1 candidate of each picture")
        if self.scorer is not None and (self.best_of or 1) == 1:
            raise UsageError(f"the scorer {self.scorer!r} has nothing to choose from", "--best-of 4, say")
        if self.lora_partial and not self.lora:
            raise UsageError("--lora-partial says how to load a LoRA, and none was named", "--lora FILE.safetensors")
        wanted = loras.parse(self.lora)
        out = self.out or Path("out")
        asked = requests(self.prompt, self.prompts, settings, self.seed or 0)
        jobs = plan(asked, 1 if self.num is None else self.num, out)
        sheet = self._sheet_path(out, len(jobs))
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
        for size in {job.settings.size or pipe.defaults.size for job in jobs}:
            pipe.possible_size(size)
        adapted = loras.load(wanted, pipe, self.lora_partial)
        largest = self.batch or (1 if device == "cpu" else 8)
        if scorer is None:
            self._draw(jobs, lambda on_step: _plain(pipe, jobs, largest, adapted, on_step))
        else:
            best = BestOf(pipe, scorer, self.best_of or 1, largest)
            note(f"the best of {best.count} is chosen by {scorer.name}; let another scorer rate these pictures")
            self._draw(jobs, lambda on_step: _chosen(best, jobs, adapted, on_step))
        if sheet:
            self._save_sheet(jobs, sheet)
        return 0

    def _draw(self, jobs: Sequence[Job], draw: Callable[[OnStep], Iterator[Drawn]]) -> None:
        """Write each picture as soon as it is drawn, and say what the user should know."""
        done, machine = 0, png.Machine.here()
        said: set[str] = set()
        with progress_bars(self.quiet, pictures=len(jobs), steps=1) as update:
            try:
                for some in draw(lambda step: update("steps", step.index, step.total)):
                    for row, job in enumerate(some.jobs):
                        record = _record(some.pictures, row, self.model or MODEL, machine, some.chosen)
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

    def _sheet_path(self, out: Path, pictures: int) -> Path | None:
        if self.sheet is not None:
            if not is_png(self.sheet):
                raise UsageError(f"the contact sheet {self.sheet} is not a .png file", f"--sheet {self.sheet.with_suffix('.png')}")
            return self.sheet
        return out / "sheet.png" if 1 < pictures <= LARGEST_AUTOMATIC_SHEET and not is_png(out) else None

    def _save_sheet(self, jobs: Sequence[Job], path: Path) -> None:
        from PIL import Image

        from ..pipelines.sheet import contact_sheet

        several = len({(job.prompt, job.seed) for job in jobs}) > len({job.prompt for job in jobs})
        captions = [f"{job.prompt} (seed {job.seed})" if several else job.prompt for job in jobs]
        pictures: list[Image.Image] = []
        for job in jobs:
            with Image.open(job.path) as opened:
                pictures.append(opened.convert("RGB"))
        sheet = contact_sheet(pictures, captions)
        write_with(path, lambda temporary: sheet.save(temporary, "PNG"))
        if not self.json:
            print(path, flush=True)

    def _redraw(self, picture: Path) -> int:
        self._refuse_other_settings()
        record = png.read(picture)
        name = f"{picture.stem}-again.png"
        target = picture.with_name(name) if self.out is None else self.out if is_png(self.out) else self.out / name
        refuse_existing([target], self.overwrite)
        settings = Settings(record.negative, record.steps, record.guidance, record.solver, record.size, record.shift)
        check(settings, str(picture))
        make_folder(target.parent)
        loras.check(record.loras, picture)
        model, device = self.model or where(record.model), self.device or pick_device(record.device)
        pipe = load_pipeline(model, device, self.dtype or record.dtype)
        same_weights(record.model, pipe, picture)
        pipe.possible_size(record.size)
        adapted = loras.again(record.loras, pipe, picture)
        started = time.monotonic()
        with progress_bars(self.quiet, steps=1) as update, threads(record.machine.threads):
            machine = png.Machine.here()
            job = Job(record.prompt, record.seed, settings, target)
            pictures = _pictures(pipe, [job], adapted, lambda step: update("steps", step.index, step.total), record.frame)
            made = _record(pictures, 0, model, machine, record.chosen)
            png.save(pictures[0], made, target)
        same = same_pixels(picture, pictures[0])
        self._report(target, made, time.monotonic() - started, identical=same)
        for difference in _differences(record, made):
            note(difference)
        note(f"{target} is {picture} again, bit for bit" if same else f"{target} differs from {picture}, at least in its last bits")
        return 0

    def _refuse_other_settings(self) -> None:
        allowed = {"again", "out", "model", "device", "dtype", "json", "overwrite", "quiet", "debug"}
        refused = [f.name for f in fields(self) if f.name not in allowed and getattr(self, f.name) not in (None, (), False)]
        if refused:
            named = ", ".join("a prompt" if name == "prompt" else f"--{name}" for name in refused)
            raise UsageError(f"--again repeats a picture as it was, so it takes no {named}", "leave it out, or leave out --again")


@dataclass(frozen=True)
class Drawn:
    """Finished pictures of some jobs, in their order; `chosen`: why, where they are the best of several."""

    jobs: Sequence[Job]
    pictures: Pictures
    seconds: float
    chosen: png.Chosen | None = None


def _plain(pipe: TextToImage, jobs: Sequence[Job], largest: int, adapted: Sequence[Lora], on_step: OnStep) -> Iterator[Drawn]:
    for batch in batches(jobs, largest):
        started = time.monotonic()
        pictures = _pictures(pipe, batch, adapted, on_step)
        yield Drawn(batch, pictures, time.monotonic() - started)


def _chosen(best: BestOf, jobs: Sequence[Job], adapted: Sequence[Lora], on_step: OnStep) -> Iterator[Drawn]:
    for job in jobs:
        started = time.monotonic()
        with _memory(best.batch, best.pipe):
            (found,) = best([job.prompt], [job.seed], on_step=on_step, loras=adapted, **given(job.settings))
        why = png.Chosen(found.scorer, found.scores[found.winner], best.count, job.seed)
        yield Drawn([job], found.pictures, time.monotonic() - started, why)


def _scorer(spec: str, device: str) -> Scorer:
    from ..evaluate.scorers import load_scorer

    return load_scorer(spec, device)


def _record(pictures: Pictures, row: int, model: str, machine: png.Machine, chosen: png.Chosen | None) -> png.Record:
    made = pictures.settings
    identity = png.ModelId(path=model, **made["model"])
    values = {name: made[name] for name in ("negative", "steps", "guidance", "solver", "shift", "dtype", "device")}
    return png.Record(
        prompt=pictures.prompts[row],
        seed=pictures.seeds[row],
        size=(made["size"][0], made["size"][1]),
        model=identity,
        frame=pictures.frames[row],
        machine=machine,
        chosen=chosen,
        loras=tuple(png.LoraId(**lora) for lora in made["loras"]),
        **values,
    )


def _pictures(
    pipe: TextToImage, batch: Sequence[Job], adapted: Sequence[Lora], on_step: OnStep, frame: tuple[int, int, int] | None = None
) -> Pictures:
    """Draw one batch."""
    options: dict[str, Any] = dict(given(batch[0].settings))
    with _memory(len(batch), pipe):
        return pipe(
            [job.prompt for job in batch], seeds=[job.seed for job in batch], loras=adapted, frame=frame, on_step=on_step, **options
        )


@contextmanager
def _memory(pictures: int, pipe: TextToImage) -> Iterator[None]:
    """A full GPU becomes an error that says what helps."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SfumatoError(f"{pictures} pictures at once fill the memory of {pipe.device}", "a smaller --batch or --size") from error


def _differences(then: png.Record, now: png.Record) -> Iterator[str]:
    """What may change the last bits: one remark for each thing that is not as it was."""
    pairs = {
        "sfumato": (then.sfumato, now.sfumato),
        "torch": (then.machine.torch, now.machine.torch),
        "the number of threads": (then.machine.threads, now.machine.threads),
        "the CPU's instruction set": (then.machine.capability, now.machine.capability),
        "the device": (then.device, now.device),
        "the dtype": (then.dtype, now.dtype),
    }
    for name, (before, after) in pairs.items():
        if before != after:
            yield f"{name} was {before} and is {after} now, which may change the last bits"
