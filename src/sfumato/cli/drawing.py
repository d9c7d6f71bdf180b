"""Who draws a command's pictures; jobs drawn batch by batch or as the best of several; what the PNG of each says of how it was made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.config import from_dict, to_dict
from ..core.errors import SfumatoError, UsageError
from . import png
from .jobs import Job, batches, given

if TYPE_CHECKING:
    from ..pipelines import Pictures, Refined, TextToImage
    from ..pipelines.best_of import BestOf
    from ..sampling.loop import OnStep
    from ..surgery import Lora
    from .sources import Source


@dataclass(frozen=True)
class Artist:
    """A pipeline, and the refiner that goes on where it leaves off, or none. `names`: of its models, as the user named them."""

    pipe: TextToImage
    names: tuple[str, ...]
    refined: Refined | None = None

    def __call__(
        self, prompt: str | Sequence[str], *, picture: Source | None = None, strength: float | None = None, **options: Any
    ) -> Pictures:
        """As a call of a pipeline, from noise or, where there is one, from a `picture`, scaled to `size` if that is said."""
        if picture is None:
            return (self.refined or self.pipe)(prompt, **options)
        from ..pipelines.going_on import STRENGTH, redraw

        pixels = picture.pixels(options.get("size") or picture.size)
        found = redraw(self.pipe, prompt, pixels, STRENGTH if strength is None else strength, **options)
        return replace(found, settings={**found.settings, "picture": {"path": picture.path, "sha256": picture.sha256}})

    def settle(self, *, picture: Source | None = None, strength: float | None = None, **options: Any) -> None:
        """Raise what such a call would, before anything is drawn."""
        if picture is None:
            (self.refined or self.pipe).settle(**options)
            return
        from ..pipelines.going_on import STRENGTH, redrawn

        try:
            size = options.get("size") or self.pipe.possible_size(picture.size)
        except UsageError as error:
            raise UsageError(f"{picture.path}: {error.message}", f"{error.hint}; --size scales and crops the picture") from error
        redrawn(self.pipe, size, STRENGTH if strength is None else strength, **options)

    def pack(self) -> None:
        """Pack the networks for this CPU."""
        self.pipe.pack()
        if self.refined:
            self.refined.refiner.pack()


@dataclass(frozen=True)
class Drawn:
    """Finished pictures of some jobs, in their order; `chosen`: why, where they are the best of several."""

    jobs: Sequence[Job]
    pictures: Pictures
    seconds: float
    chosen: png.Chosen | None = None


def batch_by_batch(artist: Artist, jobs: Sequence[Job], largest: int, loras: Sequence[Lora], on_step: OnStep) -> Iterator[Drawn]:
    for batch in batches(jobs, largest):
        started = time.monotonic()
        prompts, seeds = [job.prompt for job in batch], [job.seed for job in batch]
        with memory(len(batch), artist):
            pictures = artist(prompts, seeds=seeds, loras=loras, on_step=on_step, **given(batch[0].settings))
        yield Drawn(batch, pictures, time.monotonic() - started)


def best_of_each(best: BestOf, artist: Artist, jobs: Sequence[Job], loras: Sequence[Lora], on_step: OnStep) -> Iterator[Drawn]:
    for job in jobs:
        started = time.monotonic()
        with memory(best.batch, artist):
            (found,) = best([job.prompt], [job.seed], on_step=on_step, loras=loras, **given(job.settings))
        why = png.Chosen(found.scorer, found.scores[found.winner], best.count, job.seed)
        yield Drawn([job], found.pictures, time.monotonic() - started, why)


def record_of(pictures: Pictures, row: int, artist: Artist, machine: png.Machine, chosen: png.Chosen | None) -> png.Record:
    """What the PNG of a row says. Strict: a setting that the record has no place for is an error, for it could not be drawn again."""
    made = {**pictures.settings, "model": {**pictures.settings["model"], "path": artist.names[0]}}
    if refiner := made.get("refiner"):
        made["refiner"] = {**refiner, "model": {**refiner["model"], "path": artist.names[1]}}
    own = {"prompt": pictures.prompts[row], "seed": pictures.seeds[row], "frame": pictures.frames[row]}
    return from_dict(png.Record, {**made, **own, "machine": to_dict(machine), "chosen": None if chosen is None else to_dict(chosen)})


@contextmanager
def memory(pictures: int, artist: Artist) -> Iterator[None]:
    """A full GPU becomes an error that says what helps."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SfumatoError(f"{pictures} pictures at once fill the memory of {artist.pipe.device}", "a smaller --batch or --size") from error
