"""Tokens of a picture as a plane and back. They stand row by row, so (B, N, D) on a grid is a plane (B, D, h, w) whose channels come last
in memory: neither direction moves data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ..core.blocks import SiteInfo
from ..core.errors import ConflictError


def plane(x: Tensor, grid: tuple[int, ...] | None) -> Tensor:
    """(B, rows * columns, D) to (B, D, rows, columns). Raises `ConflictError` on fewer tokens than the grid: they have no neighbours."""
    if grid is None or x.shape[1] != math.prod(grid):
        raise ConflictError(
            f"{x.shape[1]} tokens do not fill a grid of {' x '.join(map(str, grid or ('?',)))}", "a convolution needs all of them"
        )
    return x.transpose(1, 2).unflatten(2, grid)


def at_level(info: SiteInfo, level: int) -> SiteInfo:
    """A site where the picture's sides were halved `level` times: its cost is asked with the whole picture's tokens."""

    def cost(tokens: Mapping[str, int]) -> int:
        return info.cost({**tokens, "image": tokens["image"] // 4**level})

    return replace(info, cost=cost)


def tokens(x: Tensor) -> Tensor:
    """(B, D, rows, columns) to (B, rows * columns, D)."""
    return x.flatten(2).transpose(1, 2)
