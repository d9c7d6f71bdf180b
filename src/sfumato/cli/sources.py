"""Pictures that others start from (`--from-picture`): read before any model, and known again by their checksum."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import DataError, UsageError, WeightsError
from . import png

if TYPE_CHECKING:
    from torch import Tensor

WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Source:
    """A picture's file as the user named it, its checksum, and its size (height, width) as it is held upright."""

    path: str
    sha256: str
    size: tuple[int, int]

    def pixels(self, size: tuple[int, int]) -> Tensor:
        """(3, H, W) in [-1, 1], over white, scaled to cover `size` (height, width) and cropped to it around the middle."""
        import torch

        from ..data.pictures import decode

        content = _content(self.path)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise UsageError(f"the picture {self.path} was written to while others were drawn from it", "start again from the one you want")
        return torch.from_numpy(decode(content, size, WHITE)[0]).permute(2, 0, 1).float() / 127.5 - 1


def read(path: str) -> Source:
    """The picture in the file `path`. Raises `UsageError` where there is none, or it is no picture that can be read."""
    from ..data.pictures import decode

    content = _content(path)
    try:
        pixels = decode(content, None, WHITE)[0]
    except DataError as error:
        raise UsageError(f"{path} is no picture to start from: {error.message}", "a whole PNG, JPEG or WebP, say") from error
    return Source(path, hashlib.sha256(content).hexdigest(), (pixels.shape[0], pixels.shape[1]))


def again(recorded: png.SourceId, moved: str | None, picture: Path) -> Source:
    """The picture that a saved one started from, at `moved` where it is no longer where it was. Raises `WeightsError` where it is gone or
    another.
    """
    path = moved or recorded.path
    try:
        found = read(path)
    except UsageError as error:
        hint = f"put it back, or say where it is: --from-picture FILE (sha256 {recorded.sha256})"
        raise WeightsError(f"{picture} was drawn from the picture {recorded.path}: {error.message}", hint) from error
    if found.sha256 != recorded.sha256:
        raise WeightsError(
            f"{picture} was drawn from another picture: {recorded.path} had sha256 {recorded.sha256}, {path} has {found.sha256}",
            "put the former file back, or say where it is: --from-picture FILE",
        )
    return found


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the picture {path!r}: {error.strerror or error}", "--from-picture FILE, a PNG or JPEG, say"
        ) from error
