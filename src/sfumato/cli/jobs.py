"""From what the user typed to a list of pictures to draw, each with its settings and its file; checked before any model is loaded."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config import from_dict
from ..core.errors import ConfigError, OutputError, SfumatoError, UsageError
from ..core.files import refuse_overwrite
from . import sources
from .verb import parse_guide, parse_layout, parse_size

if TYPE_CHECKING:
    from ..sampling.guidance import Guide
    from ..sampling.schedules import Layout
    from .sources import Source

EXAMPLE = 'say what to draw, for example "a red heart, noto style"'
PLAIN = ("negative", "steps", "guidance", "solver", "shift", "cfg", "binned", "strength")  # of a line, taken as they are
Numbered = tuple[str, bool, list[tuple[int, str]]]
MOST = 1_000_000  # pictures of one command
OTHER_PICTURES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jxl", ".svg", ".pdf")
LONGEST_NAME = 100  # bytes; file systems take 255, and a temporary file's name is longer


@dataclass(frozen=True)
class Settings:
    """What pictures of one batch share; None = the model's own. `size`: (height, width).

    `micro`: slots and their numbers.   `picture`: to start from, and `strength` how much of it is drawn anew.
    """

    negative: str = ""
    steps: int | None = None
    guidance: float | None = None
    solver: str | None = None
    size: tuple[int, int] | None = None
    shift: float | None = None
    cfg: float | None = None
    layout: Layout | None = None
    binned: bool | None = None
    guide: Guide | None = None
    micro: tuple[tuple[str, tuple[float, ...]], ...] = ()
    picture: Source | None = None
    strength: float | None = None


@dataclass(frozen=True)
class Request:
    """One prompt with its settings; `where` names it in messages (a line of a file)."""

    prompt: str
    settings: Settings
    seed: int
    where: str = "the prompt"


@dataclass(frozen=True)
class Job:
    """One picture to draw."""

    prompt: str
    seed: int
    settings: Settings
    path: Path


@dataclass(frozen=True)
class Line:
    """A line of a .jsonl file of prompts. Whatever is left out is as on the command line, and `size`, `layout` and `guide` are written as
    there; `micro` is an object: {"crop": [0, 0]}.
    """

    prompt: str
    seed: int | None = None
    negative: str | None = None
    steps: int | None = None
    guidance: float | None = None
    size: int | str | None = None
    solver: str | None = None
    shift: float | None = None
    cfg: float | None = None
    layout: str | None = None
    binned: bool | None = None
    guide: str | None = None
    micro: dict[str, tuple[float, ...]] | None = None
    from_picture: str | None = None
    strength: float | None = None


def requests(prompts: Sequence[str], file: str | None, settings: Settings, seed: int) -> list[Request]:
    """The prompts of the command line, then those of `file` ("-": standard input). `UsageError` when none is there or one is empty."""
    asked = [Request(prompt, settings, seed) for prompt in prompts]
    if file is not None:
        asked += _from_file(file, settings, seed)
    if not asked:
        raise UsageError("no prompt was given", EXAMPLE)
    for request in asked:
        if not request.prompt.strip():
            raise UsageError(f"{request.where} is empty", EXAMPLE)
    return asked


def _from_file(file: str, settings: Settings, seed: int) -> list[Request]:
    name, json_lines, numbered = read_numbered(file)
    if not json_lines:
        return [Request(line, settings, seed, f"{name}, line {number}") for number, line in numbered]
    return [_parse_line(line, settings, seed, f"{name}, line {number}") for number, line in numbered]


def read_numbered(file: str) -> Numbered:
    """What to call a file of prompts ("-": standard input), whether its lines are JSON, and those that are not blank, numbered from 1.

    Raises `UsageError` when it cannot be read, is no UTF-8 text or has no such line.
    """
    name, text = _read(file)
    # Not splitlines(), which also cuts at characters that may stand inside of a prompt or of a JSON string.
    numbered = [(number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1) if line.strip()]
    if not numbered:
        raise UsageError(f"{name} holds no prompt", "one a line")
    return name, file.lower().endswith((".jsonl", ".json")) or (file == "-" and numbered[0][1].startswith("{")), numbered


def _read(file: str) -> tuple[str, str]:
    """(what to call it, its text)."""
    name = "standard input" if file == "-" else file
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return name, content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the prompts in {name}: {error.strerror or error}", "a text file with one prompt a line") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the prompts in {name} are not UTF-8 text (byte {error.start})", "save the file as UTF-8") from error


def _parse_line(line: str, settings: Settings, seed: int, where: str) -> Request:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}", 'a line looks like {"prompt": "a red heart", "seed": 3}') from error
    if not isinstance(content, dict):
        raise UsageError(f"{where} is not a JSON object", 'a line looks like {"prompt": "a red heart", "seed": 3}')
    try:
        parsed = from_dict(Line, content)
        own: dict[str, Any] = {name: getattr(parsed, name) for name in PLAIN if getattr(parsed, name) is not None}
        own |= {} if parsed.size is None else {"size": parse_size(str(parsed.size))}
        own |= {} if parsed.layout is None else {"layout": parse_layout(parsed.layout)}
        own |= {} if parsed.guide is None else {"guide": parse_guide(parsed.guide)}
        own |= {} if parsed.micro is None else {"micro": tuple(parsed.micro.items())}
        own |= {} if parsed.from_picture is None else {"picture": sources.read(parsed.from_picture)}
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", error.hint) from error
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from error
    return Request(parsed.prompt, replace(settings, **own), seed if parsed.seed is None else parsed.seed, where)


def plan(asked: Sequence[Request], num: int, out: Path) -> list[Job]:
    """`num` pictures of each request with seeds counted up, and their files: `out` itself if it ends in .png, else in the folder `out`."""
    if num < 1:
        raise UsageError(f"num is {num}", "at least 1 picture of each prompt")
    if num * len(asked) > MOST:
        raise UsageError(f"{num * len(asked)} pictures in one command", f"at most {MOST}: several commands, each with a --seed of its own")
    drawn = [(request, request.seed + i) for request in asked for i in range(num)]
    if is_png(out):
        if len(drawn) > 1:
            raise UsageError(f"{len(drawn)} pictures do not fit in the one file {out}", f"name a folder: --out {out.with_suffix('')}")
        paths: Iterator[Path] = iter([out])
    else:
        paths = _names(drawn, out)
    return [Job(request.prompt, seed, request.settings, path) for (request, seed), path in zip(drawn, paths, strict=True)]


def is_png(path: Path) -> bool:
    """Whether `path` names one picture and not a folder of them."""
    return path.suffix.lower() == ".png"


def check_out(path: Path) -> None:
    """Refuse a picture of another kind than PNG: there is no folder meant."""
    if path.suffix.lower() in OTHER_PICTURES:
        raise UsageError(f"--out {path}: pictures are written as .png", f"--out {path.with_suffix('.png')}, or a folder")


def _names(drawn: Sequence[tuple[Request, int]], folder: Path) -> Iterator[Path]:
    """A file for each (request, seed): the prompt's words and the seed; a number more where two would be alike."""
    taken: dict[str, int] = {}
    for request, seed in drawn:
        name = f"{slug(request.prompt)}-{seed}"
        taken[name] = taken.get(name, 0) + 1
        yield folder / (f"{name}.png" if taken[name] == 1 else f"{name}-copy{taken[name]}.png")


def slug(prompt: str) -> str:
    """The letters and digits of a prompt, of any script, joined by hyphens, short enough for a file name."""
    words = "".join(c if c.isalnum() else " " for c in prompt.lower()).split()
    cut = "-".join(words).encode()[:LONGEST_NAME].decode(errors="ignore").strip("-")
    return cut or "picture"


def refuse_existing(paths: Sequence[Path], overwrite: bool) -> None:
    """Raise `OutputError` naming the first of `paths` that exists, and how many do, unless they may be overwritten."""
    if overwrite:
        return
    present = [path for path in paths if path.exists()]
    if len(present) > 1:
        raise OutputError(
            f"{present[0]} and {len(present) - 1} more of the {len(paths)} files to write exist and are left as they are",
            "choose another folder with --out, or pass --overwrite",
        )
    for path in present:
        refuse_overwrite(path, overwrite)


def check(settings: Settings, where: str) -> None:
    """Raise `UsageError` for steps, guidance, cfg, a shift, a solver or a strength that no model can draw with. Imports torch."""
    from ..sampling.guidance import ClassifierFree
    from ..sampling.schedules import grid
    from ..sampling.solvers import solvers

    try:
        grid(20 if settings.steps is None else settings.steps, 1.0 if settings.shift is None else settings.shift)
        for weight in (settings.guidance, settings.cfg):
            ClassifierFree(1.0 if weight is None else weight)
        if settings.solver is not None:
            solvers.get(settings.solver)
        if settings.picture is None and settings.strength is not None:
            raise UsageError(f"strength is {settings.strength}, and there is no picture to draw anew", "--from-picture FILE")
        if settings.strength is not None:
            from ..pipelines.going_on import check_strength

            check_strength(settings.strength)
    except SfumatoError as error:
        raise UsageError(f"{where}: {error.message}" if where != "the prompt" else error.message, error.hint) from error


def batches(jobs: Sequence[Job], largest: int) -> Iterator[list[Job]]:
    """Jobs in order, at most `largest` together, and only together where they share their settings."""
    batch: list[Job] = []
    for job in jobs:
        if batch and (len(batch) == largest or job.settings != batch[0].settings):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def given(settings: Settings) -> Mapping[str, Any]:
    """What the settings ask for, as keyword arguments of what draws; what is left out is the model's own."""
    asked = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return {name: dict(value) if name == "micro" else value for name, value in asked.items() if value not in (None, ())}
