"""A saved picture drawn again: the model that drew it, found and checked, and a machine set as it was then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UsageError, WeightsError
from . import png
from .verb import pick_dtype

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pipelines.text_to_image import TextToImage


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
