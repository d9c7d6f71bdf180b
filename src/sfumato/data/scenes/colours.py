"""Colour words and what they look like: tints for drawings, soft colours for backgrounds, inks.

A tint is laid over a drawing by rank: its darkest pixels take the colour's dark end, its lightest the light end, spread evenly between.
Whatever the drawing looked like, most of it then bears the colour's name in `data/palette.py`, so the word in the caption is true.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

TINTS: dict[str, tuple[int, int, int]] = {  # dark, middle, light: all anchors of the palette's word or near one
    "red": (0xB01020, 0xE02020, 0xFF4848),
    "orange": (0xE06A10, 0xFF8000, 0xFFA850),
    "yellow": (0xF5BC10, 0xFFD000, 0xFFF080),
    "green": (0x107030, 0x20A040, 0xA0D060),
    "blue": (0x103080, 0x2060D0, 0x70B0F0),
    "purple": (0x602080, 0x8030C0, 0xC0A0F0),
    "pink": (0xE02080, 0xFF60A0, 0xFFC8D8),
    "brown": (0x603018, 0x80502A, 0xC09060),
    "grey": (0x5A5A5A, 0x808080, 0xB8B8B8),
}
SOFT: dict[str, int] = {
    "white": 0xFFFFFF, "pale blue": 0xCFE8FC, "pale green": 0xD3F2D0, "pale yellow": 0xFFF6C8, "pale pink": 0xFFDDE8,
    "lavender": 0xE3DAF8, "cream": 0xF7EBD8, "light grey": 0xE2E4E8,
}  # fmt: skip
GROUNDS: dict[str, int] = {"green": 0x8CC870, "sandy": 0xE6CF9C, "snowy": 0xF4F8FC, "grey": 0xB4BAC2}
INKS: dict[str, int] = {"black": 0x141414, "white": 0xFFFFFF, "red": 0xC01020, "blue": 0x1848B0, "yellow": 0xFFD84A, "green": 0x0F6B34}
_STOPS = (0.0, 0.12, 0.3, 0.65, 1.0)


def rgb(value: int) -> tuple[int, int, int]:
    """0xRRGGBB as three numbers from 0 to 255."""
    return value >> 16, value >> 8 & 255, value & 255


def tint(rgba: Pixels, colour: str) -> Pixels:
    """`rgba` (H, W, 4) with its colours replaced by shades of `colour`, alpha kept."""
    seen = rgba[..., 3] >= 128
    luma = (rgba[..., :3] @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    # The middle of each grey level's rank among the visible pixels, in [0, 1].
    counts = np.bincount(luma[seen], minlength=256)
    ranks = (np.cumsum(counts) - counts / 2) / max(1, counts.sum())
    dark, middle, light = (np.array(rgb(value), float) for value in TINTS[colour])
    stops = np.stack([dark * 0.45, dark * 0.9, dark, middle, light])
    shades = np.stack([np.interp(ranks, _STOPS, stops[:, channel]) for channel in range(3)], -1)
    return np.concatenate([np.rint(shades).astype(np.uint8)[luma], rgba[..., 3:]], -1)
