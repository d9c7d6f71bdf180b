"""The contact sheet beside the pictures of one command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UsageError
from ..core.files import write_with
from .jobs import Job, is_png

LARGEST_AUTOMATIC = 256


def sheet_path(asked: Path | None, out: Path, pictures: int) -> Path | None:
    """Where the sheet goes: where it was asked for, else into the folder of several pictures. `UsageError` unless it is a .png file."""
    if asked is not None:
        if not is_png(asked):
            raise UsageError(f"the contact sheet {asked} is not a .png file", f"--sheet {asked.with_suffix('.png')}")
        return asked
    return out / "sheet.png" if 1 < pictures <= LARGEST_AUTOMATIC and not is_png(out) else None


def save_sheet(jobs: Sequence[Job], path: Path) -> None:
    """All pictures of `jobs`, as they lie on disk, in one, each over its prompt; with its seed where prompts come more than once."""
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
