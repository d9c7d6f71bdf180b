"""PaintSkills' score of pictures: which of them show what their items ask, by a witness (DALL-Eval, arXiv 2202.04053)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.rng import generator
from ..data.scenes.cast import Cast
from ..data.scenes.painting import render
from ..data.scenes.paintskills import Cell, Item
from .metrics.tasks import Answer, Detection, paint_count, paint_object, paint_spatial
from .pictures import resized
from .witness import Witness

SEEN = 128
"""The side in pixels of what a witness looks at."""


def answer(found: Sequence[Detection], cell: Cell) -> Answer:
    """Whether detections answer a cell, by the rule of its skill."""
    if cell.relation is not None:
        a, b = cell.things
        return paint_spatial(found, a, b, cell.relation)
    return paint_object(found, cell.things[0]) if cell.count is None else paint_count(found, cell.things[0], cell.count)


def grade(found: Sequence[Sequence[Detection]], cells: Sequence[Cell]) -> Tensor:
    """(N,) bool: whether picture i, in which `found[i]` was seen, shows `cells[i]`."""
    return torch.tensor([answer(seen, cell).right for seen, cell in zip(found, cells, strict=True)], dtype=torch.bool)


def look(witness: Witness, images: Tensor) -> list[list[Detection]]:
    """What a witness finds in images (N, 3, H, W) uint8; smaller ones are enlarged to what it looks at."""
    return [seen for chunk in images.split(64) for seen in witness.detect(enlarged(chunk))]


def enlarged(images: Tensor) -> Tensor:
    """(N, 3, 128, 128) in [-1, 1] of uint8 pictures of any size."""
    return resized(images.float() / 127.5 - 1, SEEN)


def paint(items: Sequence[Item], cast: Cast, size: int) -> Tensor:
    """(N, 3, size, size) uint8: the true renders of items."""
    return torch.stack([torch.from_numpy(render(item.scene, cast, size).picture).permute(2, 0, 1) for item in items])


def shuffled(cells: Sequence[Cell], seed: int = 0) -> list[Cell]:
    """The same cells in another order: what a picture scores that knows nothing of its prompt."""
    return [cells[i] for i in torch.randperm(len(cells), generator=generator((seed, "shuffled prompts", 0))).tolist()]
