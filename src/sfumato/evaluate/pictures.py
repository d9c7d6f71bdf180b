"""Drawings in memory with their names: what the judge is trained and tested on, and what pictures are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..core.errors import DataError, NonFiniteError, UnknownNameError, UsageError
from .metrics import finite_rows

if TYPE_CHECKING:
    from ..data.sources import Source


@dataclass(frozen=True)
class Pictures:
    """`images` (N, 3, H, W) uint8 on white; the other fields are N long, in the same order."""

    images: Tensor
    concept: tuple[str, ...]
    style: tuple[str, ...]
    group: tuple[str, ...]
    split: tuple[str, ...]
    licence: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.concept)

    @classmethod
    def of(cls, source: Source) -> Pictures:
        """Decode all of a source. Raises `DataError` when its rows have no concept, style or split: only EmojiWorld's have all."""
        try:
            named = {name: tuple(map(str, source.column(name))) for name in ("concept", "style", "group", "split", "licence")}
        except UnknownNameError as error:
            raise DataError(f"pictures to judge need names: {error.message}", "use EmojiWorld: sfumato data emoji --out DIR") from error
        return cls(images=source.images(), captions=tuple(map(tuple, source.column("captions"))), **named)

    def rows(self, keep: Callable[[int], bool]) -> list[int]:
        """Numbers of the rows for which `keep(row)` holds."""
        return [row for row in range(len(self)) if keep(row)]

    def unit(self, rows: Sequence[int]) -> Tensor:
        """(len(rows), 3, H, W) float in [-1, 1]."""
        return self.images[torch.tensor(rows, dtype=torch.long)].float() / 127.5 - 1.0


def resized(images: Tensor, side: int) -> Tensor:
    """(N, 3, side, side) of square pictures; those of that size as they are."""
    return images if images.shape[-1] == side else interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def checked(images: Tensor, size: int, who: str) -> None:
    """Raise `UsageError` unless images are (B, 3, size, size), `NonFiniteError` where they hold NaN or infinity; `who` looks at them."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise UsageError(f"{who} was given pictures of shape {tuple(images.shape)}", f"(B, 3, {size}, {size}), values in [-1, 1]")
    finite = images.isfinite().flatten(1).all(1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise NonFiniteError(f"{len(bad)} of {len(images)} pictures for {who} hold NaN or infinity: rows {bad[:8]} ({images.dtype})")


def paired(images: Tensor, prompts: Sequence[str]) -> None:
    """Raise `UsageError` unless there is one prompt for each picture."""
    if len(images) != len(prompts):
        raise UsageError(f"{len(images)} pictures and {len(prompts)} prompts to score", "one prompt for each picture")


def chunks(images: Tensor, device: torch.device, most: int = 32) -> Iterator[Tensor]:
    """Images (N, 3, H, W), `most` at a time, on `device`. Raises `UsageError` on other shapes, `NonFiniteError` naming rows with NaN."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(f"pictures of shape {tuple(images.shape)}", "(N, 3, H, W), values in [-1, 1]")
    _, bad = finite_rows(images)
    if bad:
        raise NonFiniteError(f"{len(bad)} of {len(images)} pictures hold NaN or infinity: rows {bad[:8]} ({images.dtype})")
    return (chunk.to(device) for chunk in images.split(most) if len(chunk))
