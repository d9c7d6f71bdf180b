"""Drawn pictures, with all that is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.call import Session

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Pictures:
    """Drawn pictures: `images` (B, 3, H, W) in [-1, 1] on the CPU, with the prompt, seed and frame of each row. Indexing gives PIL images.

    `notes`: what the user should know (words beyond the encoder's reach, an untrained size). `sessions`: the run's policies at work, in
    the order given: what a recorder saw is in its session, a row for each of the batch's pictures.
    """

    images: Tensor
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    frames: tuple[tuple[int, int, int], ...]
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    sessions: tuple[Session, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Image:
        from PIL import Image

        pixels = self.images[row].clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())

    def only(self, row: int) -> Pictures:
        """The picture `row` alone, with all that is known of it."""
        own = slice(row, row + 1)
        return replace(self, images=self.images[own], prompts=self.prompts[own], seeds=self.seeds[own], frames=self.frames[own])

    def __iter__(self) -> Iterator[Image]:
        return (self[i] for i in range(len(self)))
