"""Positions: fixed sine-cosine tables on a grid, and rotations of queries and keys by coordinates. All in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import torch
from torch import Tensor


def cropped_coordinates(count: int, base: float, table: int = 0) -> Tensor:
    """`count` coordinates cut from the middle of a table of `table` entries over [0, base): SD3, where aspects are crops of one plane.

    Without `table` steps are 1: a square picture of the training size covers 0 … base − 1, a longer side reaches beyond both ends.
    """
    table = table or int(base)
    return (torch.arange(count, dtype=torch.float32) + (table - count) // 2) / (table / base)


def spanning_coordinates(count: int, base: float) -> Tensor:
    """`count` evenly spaced coordinates that share [0, base) among them: a picture of any size covers the training picture's plane.

    Token i of `count` sits where the middle of its cell falls among `base` cells, so that small and large pictures agree on places.
    """
    return (torch.arange(count, dtype=torch.float32) + 0.5) * (base / count) - 0.5


def corner_coordinates(count: int, base: float) -> Tensor:
    """`count` evenly spaced coordinates from 0 that share [0, base), each side for itself: PixArt's grid. Token 0 is always at 0."""
    return torch.arange(count, dtype=torch.float32) / (count / base)


Coordinates = Literal["crop", "span", "corner"]


@lru_cache(maxsize=32)
def sincos_2d(rows: int, columns: int, width: int, base: float, coordinates: Coordinates = "crop", table: int = 0) -> Tensor:
    """(rows * columns, width) table: half of the channels encode the column, half the row, each as [sin, cos] (MAE's and DiT's layout).

    `coordinates`: where the tokens lie; `table`: the side of the table that "crop" cuts from.
    """
    places: dict[str, Callable[[int, float], Tensor]] = {
        "crop": partial(cropped_coordinates, table=table),
        "span": spanning_coordinates,
        "corner": corner_coordinates,
    }
    ys, xs = (places[coordinates](count, base) for count in (rows, columns))
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.cat([_sincos(x.flatten(), width // 2), _sincos(y.flatten(), width // 2)], dim=1)


def _sincos(position: Tensor, width: int) -> Tensor:
    rates = 10_000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = position.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def rotary_rates(width: int, theta: float | Tensor = 10_000.0, device: torch.device | None = None) -> Tensor:
    """(B | 1, width / 2): theta^(-2k / width), what `width` channels turn by per unit of a coordinate; theta a number or (B,). In fp64."""
    base = torch.as_tensor(theta, dtype=torch.float64, device=device).reshape(-1, 1)
    return base ** -(torch.arange(0, width, 2, dtype=torch.float64, device=base.device) / width)


@dataclass(frozen=True)
class Rotary:
    """Rotary positions over several axes (Su et al., arXiv 2104.09864): channels 2k, 2k + 1 of a head turn by coordinate * theta^(-2k / d).

    `axes`: channels per coordinate, even; together the head's width. `interleaved`: the axes' pairs alternate (Lumina-Next) instead of
    following one another; axes are then of one width. `Rotary(...)(x, pos)` is `core.attention.Rotate`.
    """

    axes: tuple[int, ...]
    theta: float = 10_000.0
    interleaved: bool = False

    def arranged(self, parts: Sequence[Tensor]) -> Tensor:
        """What belongs to each axis' pairs, (..., axis / 2) each, in the order of a head's pairs: (..., width / 2)."""
        return torch.stack(list(parts), dim=-1).flatten(-2) if self.interleaved else torch.cat(list(parts), dim=-1)

    def rates(self, device: torch.device | None = None) -> Tensor:
        """(1, width / 2) as trained; `nn.rope` has others for larger pictures."""
        return self.arranged([rotary_rates(width, self.theta, device) for width in self.axes])

    def angles(self, pos: Tensor, rates: Tensor | None = None) -> Tensor:
        """(B | 1, N, width / 2) of coordinates (B | 1, N, A) and `rates` (B | 1, width / 2), in fp64, as published tables are made."""
        rates = self.rates(pos.device) if rates is None else rates
        each = [c[..., None].expand(*c.shape, width // 2) for c, width in zip(pos.double().unbind(-1), self.axes, strict=True)]
        return self.arranged(each) * rates[:, None]

    def __call__(self, x: Tensor, pos: Tensor, rates: Tensor | None = None) -> Tensor:
        """x (B, H, N, width) turned by pos (B | 1, N, A); the arithmetic is in fp32, the result has x's type."""
        angles = self.angles(pos, rates)[:, None]
        cos, sin = angles.cos().float(), angles.sin().float()
        real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1).flatten(-2).to(x.dtype)


def grid_coordinates(rows: int, columns: int) -> Tensor:
    """(1, rows * columns, 3): (0, row, column) of each token, FLUX's picture ids."""
    y, x = torch.meshgrid(torch.arange(rows, dtype=torch.float32), torch.arange(columns, dtype=torch.float32), indexing="ij")
    return torch.stack([torch.zeros_like(y), y, x], dim=-1).view(1, -1, 3)
