"""What the judge learns from, in memory: every drawing also as other hands might have drawn it, and rendered scenes whose truth is known.

Touches `data/` only. Both are pure functions of the drawings and a seed; processes share the work.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..core.errors import DataError
from ..data.building import in_order
from ..data.render import rasterise
from ..data.restyle import coloured, restyle
from ..data.scenes import Cast, Scene, render, scene, split_of_scenes
from ..data.scenes.colours import TINTS
from ..data.splits import Split

COLOURS = ("", *TINTS)
"""What a thing in a scene may be tinted; "" = as drawn."""


@dataclass(frozen=True)
class Scenery:
    """M rendered scenes with N objects: `images` (M, 3, H, W) uint8; of each object, in the order of the scenes, its scene's number
    `place` (N,), tight `boxes` (N, 4) as fractions, `visible` (N,) share of its silhouette that nothing hides, names, tint and split.

    Signs, S of them: `sign_place` (S,), `sign_boxes` (S, 4), `words`. `scenes`: the descriptions.
    """

    images: Tensor
    scenes: tuple[Scene, ...]
    place: Tensor
    boxes: Tensor
    visible: Tensor
    concept: tuple[str, ...]
    style: tuple[str, ...]
    colour: tuple[str, ...]
    split: tuple[Split, ...]
    sign_place: Tensor
    sign_boxes: Tensor
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def scenery(
    data: Path, count: int, splits: Sequence[str], *, seed: int = 0, difficulties: Sequence[int] = (1, 2, 3, 4, 5), size: int = 128,
    workers: int = 1,
) -> Scenery:  # fmt: skip
    """The first `count` scenes of these splits, difficulties in turn, drawn from the EmojiWorld folder `data`.

    Raises `DataError` where the folder is none, or where scenes of these splits do not come up.
    """
    _cast(data)  # opened once, before the processes part
    kept: list[tuple[Scene, npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
    start, block = 0, max(64, 2 * count)
    while len(kept) < count:
        jobs = [(data, seed, i, difficulties[i % len(difficulties)], size, tuple(splits)) for i in range(start, start + block)]
        kept += [made for made in in_order(_make, jobs, workers) if made is not None]
        start += block
        if start > 400 * count + 4096:
            raise DataError(f"{len(kept)} of {start} scenes of {data} are of the splits {', '.join(splits)}", f"{count} are needed")
    return _joined(kept[:count], _cast(data))


def restyled(svgs: Sequence[str], concepts: Sequence[str], count: int, *, seed: int = 0, size: int = 128, workers: int = 1) -> Tensor:
    """(N, count, 3, size, size) uint8 on white: each drawing `count` times by other hands. Colours that a name tells do not turn."""
    jobs = [(svg, coloured(name), f"{seed}|{i}", count, size) for i, (svg, name) in enumerate(zip(svgs, concepts, strict=True))]
    found = torch.empty(len(svgs), count, 3, size, size, dtype=torch.uint8)
    for i, pictures in enumerate(in_order(_redraw, jobs, workers)):
        found[i] = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return found


def _redraw(job: tuple[str, bool, str, int, int]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    svg, named, key, count, size = job
    pictures = np.empty((count, size, size, 3), np.uint8)
    for k in range(count):
        drawn = rasterise(restyle(svg, random.Random(f"{key}|{k}"), turns=not named), size)
        with Image.open(io.BytesIO(drawn)) as image:
            paper = Image.new("RGBA", image.size, "white")
            pictures[k] = np.asarray(Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB"))
    return pictures


@lru_cache(maxsize=1)
def _cast(data: Path) -> Cast:
    return Cast.open(data)


Job = tuple[Path, int, int, int, int, tuple[str, ...]]
Made = tuple[Scene, npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]


def _make(job: Job) -> Made | None:
    """(scene, picture, boxes of its items, their visible shares) where the scene is of the wanted splits."""
    data, seed, index, difficulty, size, splits = job
    made = scene(_cast(data), seed, index, difficulty)
    if split_of_scenes([made]) not in splits:
        return None
    drawn = render(made, _cast(data), size)
    shares = drawn.visible.sum((1, 2)) / np.maximum(1, drawn.full.sum((1, 2)))
    return made, drawn.picture, np.array(drawn.boxes, np.float32).reshape(-1, 4), shares.astype(np.float32)


def _joined(made: Sequence[Made], cast: Cast) -> Scenery:
    objects = [(m, thing) for m, (one, *_) in enumerate(made) for thing in one.objects]
    signs = [(m, one.sign.word) for m, (one, *_) in enumerate(made) if one.sign is not None]
    boxes = [torch.from_numpy(found[: len(one.objects)]) for one, _, found, _ in made]
    boards = [torch.from_numpy(found[len(one.objects) :]) for one, _, found, _ in made]
    shares = [torch.from_numpy(found[: len(one.objects)]) for one, _, _, found in made]
    return Scenery(
        images=torch.from_numpy(np.stack([picture for _, picture, _, _ in made])).permute(0, 3, 1, 2).contiguous(),
        scenes=tuple(one for one, *_ in made),
        place=torch.tensor([m for m, _ in objects]),
        boxes=torch.cat(boxes),
        visible=torch.cat(shares),
        concept=tuple(thing.concept for _, thing in objects),
        style=tuple(thing.style for _, thing in objects),
        colour=tuple(thing.colour for _, thing in objects),
        split=tuple(cast.figures[thing.drawing].split for _, thing in objects),
        sign_place=torch.tensor([m for m, _ in signs], dtype=torch.long),
        sign_boxes=torch.cat(boards),
        words=tuple(word for _, word in signs),
    )
