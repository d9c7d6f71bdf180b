"""The dominant colours of a drawing, as words: each pixel goes to the nearest of a fixed set of named colours in CIELAB.

CIELAB distances follow the eye better than RGB's; each name has a few anchors because "brown" is a region, not a point.
Conversion: sRGB -> linear -> XYZ (D65) -> L*a*b*, CIE 15:2004.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

PALETTE: dict[str, tuple[int, ...]] = {
    "black": (0x000000, 0x202020, 0x303030),
    "grey": (0x5A5A5A, 0x808080, 0xAAAAAA, 0x607080),
    "white": (0xFFFFFF, 0xF0F0F0, 0xDFE3E8),
    "red": (0xE02020, 0xFF3030, 0xB01020, 0xF8312F),
    "orange": (0xFF8000, 0xF58030, 0xE06A10, 0xFF9E40),
    "yellow": (0xFFD000, 0xFFE040, 0xFFC83D, 0xFFF080, 0xFCC21B),
    "green": (0x20A040, 0x60C040, 0x107030, 0xA0D060, 0x688030),
    "cyan": (0x40C8E0, 0x20B0B0, 0x90E0F0, 0x008080),
    "blue": (0x2060D0, 0x3090F0, 0x103080, 0x70B0F0, 0x202060),
    "purple": (0x8030C0, 0xA060E0, 0x602080, 0xC0A0F0),
    "pink": (0xFF60A0, 0xFFA0C0, 0xE02080, 0xFFC8D8),
    "brown": (0x80502A, 0x603018, 0xA07048, 0xC09060, 0x402010),
    "beige": (0xF0D8B0, 0xE0C090, 0xFBD8B8, 0xD8B890),
}


def to_lab(rgb: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(..., 3) sRGB in [0, 255] -> (..., 3) L* in [0, 100], a*, b*."""
    c = np.asarray(rgb, np.float64) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


@cache
def _anchors() -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    pairs = [(name, value) for name, values in PALETTE.items() for value in values]
    rgb = np.array([[value >> 16, value >> 8 & 255, value & 255] for _, value in pairs])
    return tuple(name for name, _ in pairs), to_lab(rgb)


def dominant_colours(rgba: npt.NDArray[np.uint8], least: float = 0.08, most: int = 4) -> tuple[str, ...]:
    """Names of the colours that cover at least the share `least` of what is drawn, largest first, `most` at most.

    `rgba`: (H, W, 4) uint8, straight alpha. Pixels less than half opaque do not count; () when nothing is drawn.
    """
    drawn = rgba[rgba[..., 3] >= 128][:, :3]
    if not len(drawn):
        return ()
    names, anchors = _anchors()
    # Five bits a channel: a drawing has few colours, so the distances are computed once per colour rather than per pixel.
    codes, counts = np.unique((drawn.astype(np.int64) >> 3) @ np.array([1024, 32, 1]), return_counts=True)
    rgb = np.stack([codes >> 10, codes >> 5 & 31, codes & 31], -1) * 8 + 4
    nearest = ((to_lab(rgb)[:, None] - anchors) ** 2).sum(-1).argmin(1)
    shares: dict[str, int] = {}
    for index, count in zip(nearest, counts, strict=True):
        shares[names[index]] = shares.get(names[index], 0) + int(count)
    ranked = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return tuple(name for name, count in ranked[:most] if count >= least * len(drawn))
