"""A saved picture drawn again: the model that drew it, found and checked, and a machine set as it was then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config import from_dict
from ..core.errors import ConfigError, UsageError, WeightsError
from . import loras, png
from .jobs import Settings, check, given
from .verb import DtypeName, pick_device, pick_dtype

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pipelines.text_to_image import TextToImage


def settings_of(record: png.Record, picture: Path) -> Settings:
    """What `picture` was drawn with. Raises `UsageError` for settings that no model draws with."""
    from ..sampling.schedules import Layout

    try:
        layout = None if record.layout is None else from_dict(Layout, record.layout)
    except ConfigError as error:
        raise UsageError(f"the record in {picture} cannot be read: {error.message}", "was it made by a newer sfumato?") from error
    settings = Settings(
        negative=record.negative,
        steps=record.steps,
        guidance=record.guidance,
        solver=record.solver,
        size=record.size,
        shift=record.shift,
        cfg=record.cfg,
        layout=layout,
        binned=record.binned,
    )
    check(settings, str(picture))
    return settings


@contextmanager
def as_it_was(
    picture: Path, record: png.Record, model: str | None, device: str | None, dtype: DtypeName | None
) -> Iterator[tuple[TextToImage, dict[str, Any]]]:
    """The pipeline that drew `picture` and the options of the call that draws it again, while torch has as many threads as then.

    `model`, `device`, `dtype`: others than in the record. Raises `WeightsError` where weights or LoRAs are not those of then.
    """
    settings = settings_of(record, picture)
    loras.check(record.loras, picture)
    pipe = load_pipeline(model or where(record.model), device or pick_device(record.device), dtype or record.dtype)
    same_weights(record.model, pipe, picture)
    pipe.settle(**given(settings))
    if record.packed:
        pipe.pack()
    adapted = loras.again(record.loras, pipe, picture)
    with threads(record.machine.threads):
        yield pipe, {**given(settings), "seed": record.seed, "frame": record.frame, "loras": adapted}


def load_pipeline(model: str, device: str, dtype: str | None) -> TextToImage:
    """A pipeline by shipped name or folder; `dtype` by name, None = what suits the device."""
    from ..pipelines import load

    return load(model, device=device, dtype=pick_dtype(dtype))  # type: ignore[arg-type]


def where(model: png.ModelId) -> str:
    """A model by its name where it ships with the package, else where it was loaded from."""
    from ..pipelines import shipped

    if model.name in shipped():
        return model.name
    if not Path(model.path).is_dir():
        raise UsageError(f"the model {model.name!r} that drew the picture is not in {model.path}", "say where it is: --model FOLDER")
    return model.path


def same_weights(model: png.ModelId, pipe: TextToImage, picture: Path) -> None:
    """Raise `WeightsError` unless `pipe` has the weights that drew `picture`."""
    for part, recorded, key in (("network", model.sha256, "sha256"), ("codec", model.codec_sha256, "codec_sha256")):
        found = pipe.identity.get(key, "")
        if found != recorded:
            raise WeightsError(
                f"{picture} was drawn by another model: the {part} of {model.name!r} had sha256 {recorded}, this one has {found}",
                "name the model that drew it: --model FOLDER",
            )


def same_pixels(picture: Path, drawn: Image) -> bool:
    """Whether the file `picture` holds exactly these pixels."""
    from PIL import Image

    with Image.open(picture) as opened:
        return opened.mode == drawn.mode and opened.size == drawn.size and opened.tobytes() == drawn.tobytes()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch on `count` threads, where this machine has as many; sums are split differently on another number of threads."""
    import torch

    before = torch.get_num_threads()
    if 1 <= count <= (os.cpu_count() or 1):
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differences(then: png.Record, now: png.Record) -> Iterator[str]:
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
