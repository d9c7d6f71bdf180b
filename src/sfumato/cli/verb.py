"""What the verbs share: the base of their options, sizes and devices as people write them, and the progress bar."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro import conf

from ..core.errors import ConfigError, OutputError, UnknownNameError, UsageError

if TYPE_CHECKING:
    import torch

    from ..sampling.guidance import Guide
    from ..sampling.schedules import Layout

DtypeName = Literal["float32", "bfloat16", "float16"]


def unset(meaning: str, metavar: str | None = None) -> object:
    """For an option whose default is None: the help says what that means."""
    return conf.arg(help_behavior_hint=f"(default: {meaning})", metavar=metavar)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A command: its fields are its options. `run` does the work and returns the exit code."""

    # On an error, print where it happened.
    debug: bool = False

    def run(self) -> int:
        raise NotImplementedError


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) from "128" or "128x192", width first as people say it. `UsageError` for anything else."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower())
    if not found:
        raise UsageError(f"size {text!r} is not a size", "one number for a square, or width x height: 128 or 128x192")
    width = int(found[1])
    return int(found[2] or width), width


def parse_layout(text: str) -> Layout:
    """A `Layout` from its kind, and its other fields by name: "released", "uniform,end=first", "paper,tokens=256/0.5/4096/1".

    Raises `UsageError` for anything else. Imports torch.
    """
    from ..core.config import from_dict
    from ..sampling.schedules import KINDS, Layout

    kind, *words = (word.strip() for word in text.split(","))
    if kind not in KINDS:
        raise UnknownNameError("layout", kind, KINDS)
    values = _fields(words, f"the layout {text!r}", f"a kind, then each other field once: {kind},end=first", {"kind": kind})
    try:
        return from_dict(Layout, values)
    except ConfigError as error:
        raise UsageError(f"the layout {text!r}: {error.message}", error.hint) from error


def parse_guide(text: str) -> Guide:
    """A `Guide` from its fields by name: "interval=0.2/0.8", "channels=3,renorm=picture"; "everywhere": guidance acts everywhere.

    Raises `UsageError` for anything else. Imports torch.
    """
    from ..core.config import from_dict
    from ..sampling.guidance import Guide

    right = "everywhere, or each field once: interval=0.2/0.8,channels=3,renorm=picture"
    words = [] if text.strip() == "everywhere" else [word.strip() for word in text.split(",")]
    try:
        return from_dict(Guide, _fields(words, f"the guide {text!r}", right))
    except ConfigError as error:
        raise UsageError(f"the guide {text!r}: {error.message}", right) from error


def parse_micro(words: Sequence[str]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Slots and their numbers, each as "original_size=512,768". Raises `UsageError` for anything else, or a slot that comes twice."""
    found: dict[str, tuple[float, ...]] = {}
    for word in words:
        name, _, numbers = word.partition("=")
        try:
            values = tuple(float(number) for number in numbers.split(","))
        except ValueError as error:
            raise UsageError(f"the numbers {word!r}", "a slot and its numbers: original_size=512,768 (height, width)") from error
        if name in found:
            raise UsageError(f"{name} comes twice: {word!r}", "each slot once")
        found[name] = values
    return tuple(found.items())


def _fields(words: Sequence[str], what: str, right: str, values: Mapping[str, object] | None = None) -> dict[str, object]:
    """`values` and each of "name=value". Raises `UsageError` saying `what` is wrong and what is `right`."""
    found = dict(values or {})
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name in found:
            raise UsageError(f"{what} says {word!r}", right)
        found[name] = _value(value)
    return found


def _value(text: str) -> object:
    """What a field of a config is set to: yes or no, a number, several between slashes, or a word."""
    if "/" in text:
        return [_value(part) for part in text.split("/")]
    if text in ("yes", "no"):
        return text == "yes"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def pick_device(name: str) -> str:
    """ "auto" = the GPU where torch sees one, else the CPU; any other name as it is."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(name: DtypeName | None) -> torch.dtype | None:
    """torch's type of this name."""
    import torch

    return None if name is None else {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def make_folder(folder: Path) -> None:
    """Make `folder` now, so that a path nothing can be written to is refused before the work and not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}", "name a folder you may write to") from error


def check_folder(folder: Path) -> None:
    """Raise `OutputError` where `folder` cannot be one: something on the way to it is a file, or may not be written to. Makes nothing."""
    there = next(path for path in (folder, *folder.parents) if path.exists() or path.parent == path)
    if not there.is_dir():
        raise OutputError(f"cannot make the folder {folder}: {there} is a file", "name a folder: --out FOLDER")
    if not os.access(there, os.W_OK):
        raise OutputError(f"cannot write into {there}", "name a folder you may write to: --out FOLDER")


def note(text: str) -> None:
    """A remark on standard error; results alone go to standard output."""
    print(f"note: {text}", file=sys.stderr)


@contextmanager
def progress_bars(quiet: bool, **totals: int) -> Iterator[Callable[[str, int, int], None]]:
    """One bar on standard error for each of `totals`; yields `update(name, done, total)`. None when `quiet` or off a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # rich sends what is printed meanwhile to its own stream: right on one terminal, wrong when standard output goes to a file.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bar:
        tasks = {name: bar.add_task(name, total=total) for name, total in totals.items()}
        yield lambda name, done, total: bar.update(tasks[name], completed=done, total=total)
