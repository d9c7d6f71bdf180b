"""Jobs to finished pictures with their records: batch by batch, or the best of several for each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import SfumatoError
from . import png
from .jobs import Job, batches, given

if TYPE_CHECKING:
    from ..pipelines import Pictures, TextToImage
    from ..pipelines.best_of import BestOf
    from ..sampling.loop import OnStep
    from ..surgery import Lora


@dataclass(frozen=True)
class Drawn:
    """Finished pictures of some jobs, in their order; `chosen`: why, where they are the best of several."""

    jobs: Sequence[Job]
    pictures: Pictures
    seconds: float
    chosen: png.Chosen | None = None


def batch_by_batch(pipe: TextToImage, jobs: Sequence[Job], largest: int, loras: Sequence[Lora], on_step: OnStep) -> Iterator[Drawn]:
    for batch in batches(jobs, largest):
        started = time.monotonic()
        options: dict[str, Any] = dict(given(batch[0].settings))
        with memory(len(batch), pipe):
            pictures = pipe([job.prompt for job in batch], seeds=[job.seed for job in batch], loras=loras, on_step=on_step, **options)
        yield Drawn(batch, pictures, time.monotonic() - started)


def best_of_each(best: BestOf, jobs: Sequence[Job], loras: Sequence[Lora], on_step: OnStep) -> Iterator[Drawn]:
    for job in jobs:
        started = time.monotonic()
        with memory(best.batch, best.pipe):
            (found,) = best([job.prompt], [job.seed], on_step=on_step, loras=loras, **given(job.settings))
        why = png.Chosen(found.scorer, found.scores[found.winner], best.count, job.seed)
        yield Drawn([job], found.pictures, time.monotonic() - started, why)


def record_of(pictures: Pictures, row: int, model: str, machine: png.Machine, chosen: png.Chosen | None) -> png.Record:
    """What the PNG of a row says; `model`: as the user named it."""
    made = pictures.settings
    same = ("negative", "steps", "guidance", "solver", "shift", "layout", "binned", "packed", "dtype", "device")
    values = {name: made[name] for name in same}
    return png.Record(
        prompt=pictures.prompts[row],
        seed=pictures.seeds[row],
        size=(made["size"][0], made["size"][1]),
        cfg=made.get("cfg"),
        model=png.ModelId(path=model, **made["model"]),
        frame=pictures.frames[row],
        machine=machine,
        chosen=chosen,
        loras=tuple(png.LoraId(**lora) for lora in made["loras"]),
        **values,
    )


@contextmanager
def memory(pictures: int, pipe: TextToImage) -> Iterator[None]:
    """A full GPU becomes an error that says what helps."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SfumatoError(f"{pictures} pictures at once fill the memory of {pipe.device}", "a smaller --batch or --size") from error
