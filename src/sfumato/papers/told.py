"""Pictures of which a network is told what was done to them: some shrunk and enlarged again, some cut out of a wider or taller one.

Both are what a collection of photographs holds and EmojiWorld does not (SDXL, arXiv 2307.01952, section 2.2 and algorithm 1). Which
drawing meets which fate is a function of its number alone: every arm and seed is taught from the same pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.conditions import Conditions
from ..core.files import read_tensors, write_tensors
from ..core.rng import generator
from ..evaluate.pictures import resized
from ..training.diffusion import LatentStream
from ..training.precompute import Precomputed, encode_pictures
from .tuning import fingerprint
from .world import World

# Share of the drawings that is shrunk; their sides, as parts of the whole; the side of a drawing within a picture that is cut.
SHARE, SMALLEST, LARGEST, INSIDE = 0.4, 1 / 4, 1 / 2, 3 / 4
INK, RUN = 0.25, 1 / 20
"""How dark a pixel, and how long a part of a border, has to be for a drawing to count as cut there."""


@dataclass(frozen=True)
class Taught:
    """Pictures to train on in place of a world's own.   told: numbers of each by slot, (N, k) fp32.   mark: names them in cells."""

    mark: str
    data: Precomputed
    told: Mapping[str, Tensor] = field(default_factory=dict)

    def rows(self, index: Tensor) -> Taught:
        """Some of them."""
        data = replace(self.data, latents=self.data.latents[index], captions=self.data.captions[index])
        return Taught(f"{self.mark}, {len(index)} of them", data, {name: numbers[index] for name, numbers in self.told.items()})

    def saying(self, **numbers: Sequence[float]) -> Taught:
        """The same pictures, of all of which the same is told."""
        return Taught(f"{self.mark}, all said to be {numbers}", self.data, {**self.told, **alike(len(self.data.latents), numbers)})


@dataclass(frozen=True)
class ToldStream:
    """The batches of `stream` with numbers of each picture beside its text."""

    stream: LatentStream
    told: Mapping[str, Tensor]

    def batch(self, index: int) -> Mapping[str, Any]:
        found, rows = self.stream.batch(index), self.stream.rows.indices(index)
        return {**found, "cond": telling(found["cond"], {name: numbers[rows] for name, numbers in self.told.items()})}


def telling(cond: Conditions, told: Mapping[str, Tensor]) -> Conditions:
    """`cond` with numbers (B, k) in their slots."""
    return replace(cond, vectors={**cond.vectors, **told})


def alike(rows: int, numbers: Mapping[str, Sequence[float]]) -> dict[str, Tensor]:
    """The same numbers for every one of `rows` pictures."""
    return {name: torch.tensor([list(row)], dtype=torch.float32).repeat(rows, 1) for name, row in numbers.items()}


def whole(side: int) -> dict[str, Sequence[float]]:
    """What SDXL is told of a picture that was neither enlarged nor cut."""
    return {"original_size": (side, side), "crop": (0, 0), "target_size": (side, side)}


def shrunk(world: World, cache: Path) -> Taught:
    """All training drawings, `SHARE` of them shrunk and enlarged again, with their original sizes."""
    mark = _mark("shrunk", world)
    side, count = world.pipe.defaults.size[0], len(world.train.latents)
    chance, small = torch.rand(2, count, generator=generator((0, "shrunk", 0)))
    low, high = int(SMALLEST * side), int(LARGEST * side)
    sides = torch.where(chance < SHARE, low + (small * (high - low + 1)).long(), torch.full((count,), side))

    def picture(row: int, image: Tensor) -> Tensor:
        return resized(resized(image, int(sides[row])), side)

    rows = (sides < side).nonzero().flatten()
    latents = world.train.latents.clone()
    latents[rows] = _encoded(world, rows, picture, side, cache / f"{mark}.safetensors")
    told = {**alike(count, whole(side)), "original_size": sides[:, None].repeat(1, 2).float()}
    return Taught(mark, replace(world.train, latents=latents), told)


def cropped(world: World, cache: Path) -> Taught:
    """All training drawings with white around them, a third in a square, the others in pictures twice as wide or high, of which a square
    is cut out at random, with its corner (top, left).
    """
    mark = _mark("cropped", world)
    side, count = world.pipe.defaults.size[0], len(world.train.latents)
    kind, offset = torch.rand(2, count, generator=generator((0, "cropped", 0)))
    wide, tall = kind < 1 / 3, kind > 2 / 3
    corner = torch.stack([tall, wide], 1) * (offset * (side + 1)).long()[:, None]
    # Places in a square twice as wide, in whose middle the drawing is.
    starts = torch.where(torch.stack([tall, wide], 1), corner, side // 2).tolist()
    inside = int(INSIDE * side)
    edge = side - inside // 2

    def picture(row: int, image: Tensor) -> Tensor:
        canvas = torch.full((1, 3, 2 * side, 2 * side), 255.0)
        canvas[..., edge : edge + inside, edge : edge + inside] = image
        top, left = starts[row]
        return canvas[..., top : top + side, left : left + side]

    latents = _encoded(world, torch.arange(count), picture, inside, cache / f"{mark}.safetensors")
    return Taught(mark, replace(world.train, latents=latents), {**alike(count, whole(side)), "crop": corner.float()})


def _mark(name: str, world: World) -> str:
    return f"{name}-{fingerprint([world.mark, *map(str, (SHARE, SMALLEST, LARGEST, INSIDE))], ())}"


def _encoded(world: World, rows: Tensor, picture: Any, side: int, path: Path) -> Tensor:
    """Latents of `picture(row, drawing (1, 3, side, side) in 0 ... 255)` of some training drawings, kept in `path`."""
    if not path.is_file():
        own = [i for i, split in enumerate(world.source.column("split")) if split == "train"]
        source, parts = world.source.at(side), list[Tensor]()
        for chunk in rows.split(256):
            drawn = [picture(row, source[own[row]].image[None].float()) for row in chunk.tolist()]
            parts.append(encode_pictures(torch.cat(drawn).round().to(torch.uint8), world.pipe.codec, 64))
        write_tensors(path, {"latents": torch.cat(parts)})
    return read_tensors(path)["latents"]


def detail(images: Tensor) -> float:
    """Mean squared difference of pictures (N, 3, S, S) uint8, as parts of 255, to themselves shrunk to the smallest side and enlarged."""
    full, side = images.float() / 255, images.shape[-1]
    return float((full - resized(resized(full, int(SMALLEST * side)), side)).square().mean())


def cut(images: Tensor) -> Tensor:
    """(N,) whether a drawing on white (N, 3, S, S) uint8 goes on beyond a border."""
    ink = _ink(images)
    borders = torch.stack([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], 1)
    return ((borders > INK).double().mean(2) > RUN).any(1)


def middle(images: Tensor) -> float:
    """How far to the right the ink of drawings on white is in the mean, as a part of the width."""
    columns = _ink(images).sum(1)
    places = (torch.arange(columns.shape[1]) + 0.5) / columns.shape[1]
    return float(((columns * places).sum(1) / columns.sum(1).clamp_min(1e-6)).mean())


def _ink(images: Tensor) -> Tensor:
    """(N, S, S) how far each pixel is from white, 0 ... 1."""
    return 1 - images.amin(1).float() / 255
