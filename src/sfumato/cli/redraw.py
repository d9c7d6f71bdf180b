"""A saved picture drawn again: the model that drew it, found and checked, and a machine set as it was then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config import from_dict, to_dict
from ..core.errors import UsageError, WeightsError
from . import loras, png, sources
from .drawing import Artist
from .jobs import Settings, check, given
from .verb import DtypeName, pick_device, pick_dtype

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pipelines import TextToImage
    from .sources import Source

PLAIN = png.Loaded()


def settings_of(record: png.Share, picture: Path, source: Source | None = None, strength: float | None = None) -> Settings:
    """What a model drew `picture` with, and the `source` that it started from. Raises `UsageError` for settings no model draws with."""
    from ..sampling.guidance import Guide
    from ..sampling.schedules import Layout

    try:
        layout = None if record.layout is None else from_dict(Layout, record.layout)
        guide = None if record.guide is None else from_dict(Guide, record.guide)
    except UsageError as error:
        raise UsageError(f"the record in {picture} cannot be read: {error.message}", "was it made by a newer sfumato?") from error
    same = ("negative", "steps", "guidance", "solver", "size", "shift", "cfg", "binned")
    values = {name: getattr(record, name) for name in same}
    micro = tuple(record.micro.items())
    settings = Settings(**values, layout=layout, guide=guide, micro=micro, picture=source, strength=strength)
    check(settings, str(picture))
    return settings


@dataclass(frozen=True)
class Elsewhere:
    """What is no longer as a record says: the folders of model and refiner, the file of the picture it started from, device, dtype."""

    model: str | None = None
    refiner: str | None = None
    source: str | None = None
    device: str | None = None
    dtype: DtypeName | None = None


@contextmanager
def as_it_was(picture: Path, record: png.Record, now: Elsewhere) -> Iterator[tuple[Artist, dict[str, Any]]]:
    """Who drew `picture` and the options of the call that draws it again, while torch has as many threads as then.

    Raises `WeightsError` where weights, LoRAs or the picture it started from are not those of then.
    """
    for given_now, recorded, option in ((now.refiner, record.refiner, "refiner"), (now.source, record.picture, "from-picture")):
        if given_now is not None and recorded is None:
            raise UsageError(f"{picture} was drawn without a {option.rpartition('-')[2]}", f"leave out --{option}")
    source = None if record.picture is None else sources.again(record.picture, now.source, picture)
    settings = settings_of(record, picture, source, record.strength)
    loras.check(record.loras, picture)
    name = now.model or where(record.model)
    pipe = _model(name, record, picture, now, "model")
    options: dict[str, Any] = {**given(settings), "frame": record.frame}
    artist = Artist(pipe, (name,))
    if record.refiner is not None:
        from ..pipelines import Refined

        second = now.refiner or where(record.refiner.model, "refiner")
        refiner = _model(second, record.refiner, picture, now, "refiner")
        artist = Artist(pipe, (name, second), Refined(pipe, refiner, record.refiner.at))
        # All that is said of the refiner is its own, so that nothing of the first model's takes its place.
        own = {"cfg": record.refiner.cfg, "micro": dict(record.refiner.micro), "frame": (*record.frame[:2], record.refiner.tokens)}
        options["then"] = {**given(settings_of(record.refiner, picture)), **own}
    artist.settle(**options)
    adapted = loras.again(record.loras, pipe, picture)
    with threads(record.machine.threads):
        yield artist, {**options, "seed": record.seed, "loras": adapted}


def _model(name: str, record: png.Share, picture: Path, now: Elsewhere, option: str) -> TextToImage:
    """The model `name`, loaded as when it drew `picture`; packed, where it was."""
    device = now.device or pick_device(record.device)
    pipe = load_pipeline(name, device, now.dtype or record.dtype, record.loaded)
    same_weights(record.model, pipe, picture, option)
    return pipe.pack() if record.packed else pipe


def load_pipeline(model: str, device: str, dtype: str | None, loaded: png.Loaded = PLAIN) -> TextToImage:
    """A pipeline by shipped name or folder; `dtype` by name, None = what suits the device."""
    from ..pipelines import load

    return load(model, device=device, dtype=pick_dtype(dtype), **to_dict(loaded))  # type: ignore[arg-type]


def where(model: png.ModelId, option: str = "model") -> str:
    """A model by its name where it ships with the package, else where it was loaded from; `option`: by which another place is named."""
    from ..pipelines import shipped

    if model.name in shipped():
        return model.name
    if not Path(model.path).is_dir():
        raise UsageError(f"the {option} {model.name!r} that drew the picture is not in {model.path}", f"say where it is: --{option} FOLDER")
    return model.path


def same_weights(model: png.ModelId, pipe: TextToImage, picture: Path, option: str = "model") -> None:
    """Raise `WeightsError` unless `pipe` has the weights that drew `picture`."""
    for part, recorded, key in (("network", model.sha256, "sha256"), ("codec", model.codec_sha256, "codec_sha256")):
        found = pipe.identity.get(key, "")
        if found != recorded:
            raise WeightsError(
                f"{picture} was drawn by another {option}: the {part} of {model.name!r} had sha256 {recorded}, this one has {found}",
                f"name the {option} that drew it: --{option} FOLDER",
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
