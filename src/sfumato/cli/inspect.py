"""`sfumato inspect`: a model's anatomy, a profile of its work, where it looked for each word of a prompt, or what a LoRA changes in it.

Whatever can be refused is refused before a model is loaded; files are written whole or not at all, and never over others unasked.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro import conf

from ..core.errors import UsageError
from ..core.files import write_bytes, write_json, write_with
from . import png
from .jobs import EXAMPLE, Settings, check, given, is_png, refuse_existing, slug
from .options import MODEL
from .redraw import Elsewhere, as_it_was, load_pipeline, same_pixels
from .verb import DtypeName, Verb, make_folder, note, parse_size, pick_device, progress_bars, unset

if TYPE_CHECKING:
    from ..evaluate.heatmaps import Heatmaps
    from ..pipelines.text_to_image import TextToImage

PROFILED = "a red heart, noto style"
PLAIN_RUNS = 3
# What each way of looking takes besides what all take; another option is refused.
TAKES: Mapping[str, frozenset[str]] = {
    "anatomy": frozenset({"size", "tokens"}),
    "profile": frozenset({"profile", "steps", "size", "guidance", "seed"}),
    "heatmap": frozenset({"heatmap", "steps", "size", "guidance", "seed", "blocks"}),
    "heatmap of a picture": frozenset({"heatmap", "blocks"}),
    "LoRA": frozenset({"model", "against", "json", "quiet", "debug"}),
}
ALL_TAKE = frozenset({"model", "out", "json", "overwrite", "device", "dtype", "quiet", "debug"})


@dataclass(frozen=True, kw_only=True)
class Inspect(Verb):
    """Look inside a model. Alone: its anatomy, block by block. With --profile: where time, FLOPs and bytes of a picture go. With
    --heatmap: where it looks for each word, as a page to explore, a sheet and numbers. Of a LoRA file: what it changes in a model.
    """

    # A shipped model's name or a pipeline folder, or a LoRA: a .safetensors file, or with --against a folder with one.
    model: Annotated[conf.Positional[str | None], unset(f"{MODEL}; with a picture, the model that drew it", "MODEL|LORA")] = None
    # The model that the LoRA is held against: a shipped name, a pipeline folder or a transformer's.
    against: Annotated[str | None, unset(MODEL, "MODEL")] = None
    # A prompt to draw and watch, or a PNG that sfumato generate saved, which is drawn again and watched.
    heatmap: Annotated[str | None, unset("none", "PROMPT|PICTURE.png")] = None
    # Profile the drawing of a picture.
    profile: bool = False
    # Solver steps, 1 to 1000.
    steps: Annotated[int | None, unset("the model's own")] = None
    # Guidance weight; 1 = without guidance.
    guidance: Annotated[float | None, unset("the model's own")] = None
    # The same seed draws the same picture.
    seed: Annotated[int | None, unset("0")] = None
    # Pixels: 128, or width x height as 128x192.
    size: Annotated[str | None, unset("what the model was trained at")] = None
    # Tokens of the prompt that the anatomy is counted for.
    tokens: Annotated[int | None, unset("16")] = None
    # Blocks whose attention is watched.
    blocks: Annotated[tuple[int, ...] | None, unset("all")] = None
    # Folder for the files: anatomy, profile or heatmap, as .json and .svg, or as .html, .png and .json.
    out: Annotated[Path | None, unset("out/inspect-...; an anatomy is printed alone")] = None
    # Print the numbers as JSON instead of tables.
    json: bool = False
    # Replace files that exist.
    overwrite: bool = False
    # cpu, cuda or cuda:1, say.
    device: Annotated[str | None, unset("the GPU where there is one")] = None
    # Numbers to compute in.
    dtype: Annotated[DtypeName | None, unset("float32 on a CPU, bfloat16 elsewhere")] = None
    # No progress bar.
    quiet: bool = False

    def run(self) -> int:
        if self.heatmap is not None and self.profile:
            raise UsageError("--heatmap and --profile are two ways of looking", "one at a time")
        if self.heatmap is not None:
            return self._heatmap(self.heatmap)
        if self.profile:
            return self._profile()
        lora = self.against is not None or Path(self.model or "").suffix == ".safetensors"
        return self._lora() if lora else self._anatomy()

    def _lora(self) -> int:
        self._refuse_others("LoRA")
        if self.model is None:
            raise UsageError("--against needs a LoRA to hold against the model", "sfumato inspect FILE.safetensors --against MODEL")
        from ..pipelines.folder import structure, text_structures
        from ..surgery import examine

        against = self.against or MODEL
        report = examine(self.model, structure(against), text_structures(against))
        print(json.dumps(report.record(), ensure_ascii=False) if self.json else report)
        if report.extra:
            note("sfumato generate refuses this LoRA; with --lora-partial it leaves out what acts on nothing")
        return 1 if report.extra else 0

    def _anatomy(self) -> int:
        self._refuse_others("anatomy")
        size = None if self.size is None else parse_size(self.size)
        paths = self._paths(self.out, "anatomy", "json", "svg") if self.out else {}
        pipe = self._load()
        from ..evaluate.anatomy import anatomy

        found = anatomy(pipe, size, self.tokens)
        if paths:
            write_json(paths["json"], found.record())
            write_bytes(paths["svg"], found.svg().encode())
        self._show(found.record(), found.tables, paths)
        return 0

    def _profile(self) -> int:
        self._refuse_others("profile")
        settings = self._settings()
        paths = self._paths(self.out or Path("out") / f"inspect-{Path(self.model or MODEL).name}", "profile", "json", "svg")
        pipe = self._load()
        from ..evaluate.profile_report import ProfileReport
        from ..evaluate.profiler import profile
        from ..evaluate.roofline import measured

        options = {**given(settings), "seed": self.seed or 0}
        plain: list[float] = []
        with progress_bars(self.quiet, runs=PLAIN_RUNS + 2) as update:
            # The first run warms up; the median of those after it is what a picture takes when nobody looks.
            for i in range(PLAIN_RUNS + 1):
                started = time.perf_counter()
                pipe(PROFILED, **options)
                plain.append(time.perf_counter() - started)
                update("runs", i + 1, PLAIN_RUNS + 2)
            drawn, seen = profile(lambda: pipe(PROFILED, **options), pipe.modules())
        made = drawn.settings
        title = f"{pipe.identity['name']}, {made['size'][1]}x{made['size'][0]}, {made['steps']} steps, guidance {made['guidance']:g}"
        told = {**made, "prompt": PROFILED, "seed": self.seed or 0, "plain_runs": PLAIN_RUNS}
        report = ProfileReport(title, seen, measured(pipe.device, pipe.dtype), statistics.median(plain[1:]), told)
        write_json(paths["json"], report.record())
        write_bytes(paths["svg"], report.svg().encode())
        self._show(report.record(), report.tables, paths)
        if not self.json:
            print(f"{report.seconds:.2f} s unwatched, {seen.wall:.2f} s watched, of which {report.busy:.2f} s in operators")
        return 0

    def _heatmap(self, what: str) -> int:
        picture = Path(what) if is_png(Path(what)) else None
        self._refuse_others("heatmap of a picture" if picture else "heatmap")
        if not what.strip():
            raise UsageError("the prompt is empty", EXAMPLE)
        record, settings = png.read(picture) if picture else None, self._settings()
        name = picture.stem if picture else f"{slug(what)}-{self.seed or 0}"
        paths = self._paths(self.out or Path("out") / f"inspect-{name}", "heatmap", "html", "png", "json")
        found = self._again(picture, record) if picture and record else self._drawn(what, settings)
        write_bytes(paths["html"], found.page().encode())
        write_with(paths["png"], lambda temporary: found.sheet().save(temporary, "PNG"))
        write_json(paths["json"], found.record())
        for text in found.pictures.notes:
            note(text)
        self._show(found.record(), None, paths)
        return 0

    def _drawn(self, prompt: str, settings: Settings) -> Heatmaps:
        from ..evaluate.heatmaps import heatmaps

        pipe = self._load()
        with progress_bars(self.quiet, steps=1) as update:
            watch: Callable[[Any], None] = lambda step: update("steps", step.index, step.total)  # noqa: E731
            return heatmaps(pipe, prompt, blocks=self.blocks, seed=self.seed or 0, on_step=watch, **given(settings))

    def _again(self, picture: Path, record: png.Record) -> Heatmaps:
        """The picture of a file, drawn again as `sfumato generate --again` does."""
        if record.refiner or record.picture:
            how = (
                "by two models, one after the other"
                if record.refiner
                else f"from the picture {record.picture.path}"
                if record.picture
                else ""
            )
            raise UsageError(f"{picture} was drawn {how}", "a heat map watches one model all the way from noise")
        from ..evaluate.heatmaps import heatmaps

        with ExitStack() as opened:
            update = opened.enter_context(progress_bars(self.quiet, steps=1))
            artist, options = opened.enter_context(as_it_was(picture, record, Elsewhere(self.model, device=self.device, dtype=self.dtype)))
            watch: Callable[[Any], None] = lambda step: update("steps", step.index, step.total)  # noqa: E731
            found = heatmaps(artist.pipe, record.prompt, blocks=self.blocks, row=record.frame[1], on_step=watch, **options)
        if not same_pixels(picture, found.picture):
            note(f"the picture drawn again differs from {picture}, at least in its last bits")
        return found

    def _settings(self) -> Settings:
        settings = Settings(steps=self.steps, guidance=self.guidance, size=None if self.size is None else parse_size(self.size))
        check(settings, "the prompt")
        return settings

    def _load(self) -> TextToImage:
        return load_pipeline(self.model or MODEL, self.device or pick_device("auto"), self.dtype)

    def _paths(self, folder: Path, name: str, *kinds: str) -> dict[str, Path]:
        """The files to write, by kind, made sure of: none exists unless it may be replaced, and the folder can be written to."""
        paths = {kind: folder / f"{name}.{kind}" for kind in kinds}
        refuse_existing(list(paths.values()), self.overwrite)
        make_folder(folder)
        return paths

    def _show(self, record: Mapping[str, Any], tables: Callable[[], tuple[Any, ...]] | None, paths: Mapping[str, Path]) -> None:
        if self.json:
            print(json.dumps(record, ensure_ascii=False))
            return
        if tables is not None:
            from rich.console import Console

            for table in tables():
                Console().print(table)
        for path in paths.values():
            print(path, flush=True)

    def _refuse_others(self, mode: str) -> None:
        takes = TAKES[mode] | (frozenset() if mode == "LoRA" else ALL_TAKE)
        refused = [f.name for f in fields(self) if f.name not in takes and getattr(self, f.name) != f.default]
        if refused:
            named = ", ".join(f"--{name}" for name in refused)
            own = ", ".join(f"--{name}" for name in sorted(takes - {"model", "debug"}))
            raise UsageError(f"{named} means nothing to the {mode}", f"it takes {own}")
