"""Positions: fixed sine-cosine tables on a grid. All in fp32."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def centred_coordinates(count: int, base: int) -> Tensor:
    """`count` unit-spaced coordinates whose middle is that of [0, base): SD3's grid, where other aspects are crops of one plane.

    A square picture of the training size covers 0 … base − 1; a longer side reaches below 0 and beyond base by equal amounts.
    """
    return torch.arange(count, dtype=torch.float32) - (count - base) / 2


def spanning_coordinates(count: int, base: int) -> Tensor:
    """`count` evenly spaced coordinates that share [0, base) among them: a picture of any size covers the training picture's plane.

    Token i of `count` sits where the middle of its cell falls among `base` cells, so that small and large pictures agree on places.
    """
    return (torch.arange(count, dtype=torch.float32) + 0.5) * (base / count) - 0.5


COORDINATES = {"crop": centred_coordinates, "span": spanning_coordinates}


@lru_cache(maxsize=32)
def sincos_2d(rows: int, columns: int, width: int, base: int, coordinates: str = "crop") -> Tensor:
    """(rows * columns, width) table: half of the channels encode the column, half the row, each as [sin, cos] (MAE's and DiT's layout).

    `coordinates`: a name in `COORDINATES`.
    """
    ys, xs = (COORDINATES[coordinates](count, base) for count in (rows, columns))
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.cat([_sincos(x.flatten(), width // 2), _sincos(y.flatten(), width // 2)], dim=1)


def _sincos(position: Tensor, width: int) -> Tensor:
    rates = 10_000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = position.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()
