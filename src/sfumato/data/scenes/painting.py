"""A scene's exact pixels at any size, and everything that is known about each of them: masks, depth, edges, boxes.

Objects are painted from far to near. A pixel belongs to the nearest item that covers it at least half; that one rule makes the visible
masks (disjoint by construction), the depth map and the outlines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato.core.errors import UsageError

from ..pictures import Pixels
from .cast import Cast
from .colours import GROUNDS, SOFT, rgb
from .description import Background, Box, Object, Scene, Sign
from .lettering import letter

Mask = npt.NDArray[np.bool_]
STEP = 28
"""An edge is where neighbouring pixels differ by more than this in some channel (of 255), or belong to different items."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """What a scene looks like at one size. N items = its objects in order, then its sign.

    `picture` (H, W, 3) uint8; `full` (N, H, W): each item's own silhouette, hidden parts included, cut at the picture's border;
    `labels` (H, W) uint8: 0 background, k + 1 where item k is what one sees; `depth` (H, W) uint8: 0 far to 255 near;
    `edges` (H, W) bool.
    """

    picture: Pixels
    full: Mask
    labels: Pixels
    depth: Pixels
    edges: Mask

    @property
    def visible(self) -> Mask:
        """(N, H, W): where each item is what one sees; disjoint."""
        return self.labels[None] == np.arange(1, len(self.full) + 1, dtype=np.uint8)[:, None, None]

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The tight box of each silhouette, as fractions; (0, 0, 0, 0) where an item lies outside of the picture."""
        return tuple(map(tight_box, self.full))


def tight_box(mask: Mask) -> Box:
    """The smallest box that encloses `mask` (H, W), as fractions; (0, 0, 0, 0) for an empty one."""
    height, width = mask.shape
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return 0.0, 0.0, 0.0, 0.0
    return float(xs[0]) / width, float(ys[0]) / height, float(xs[-1] + 1) / width, float(ys[-1] + 1) / height


def render(scene: Scene, cast: Cast, size: int = 128) -> Rendered:
    """Draw `scene` as a (size, size) picture with its ground truth. Raises `UsageError` (size) or `DataError` (a drawing is missing)."""
    if not 16 <= size <= 2048:
        raise UsageError(f"size is {size}", f"from 16 to 2048 pixels; the nearest is {min(max(size, 16), 2048)}")
    canvas = _backdrop(scene.background, size).copy()
    full = np.zeros((len(scene.items), size, size), bool)
    labels = np.zeros((size, size), np.uint8)
    depth = np.zeros((size, size), np.uint8)
    for k in scene.paint_order:
        item = scene.items[k]
        patch, x, y = _patch(item, cast, size)
        canvas.paste(patch, (x, y), patch)
        _stamp(full[k], np.asarray(patch)[..., 3] >= 128, x, y)
        labels[full[k]] = k + 1
        depth[full[k]] = round(255 * item.depth)
    picture = np.array(canvas)
    return Rendered(picture, full, labels, depth, _edges(picture, labels))


def _patch(item: Object | Sign, cast: Cast, size: int) -> tuple[Image.Image, int, int]:
    """(RGBA pixels of an item, x, y of their upper left corner); the item's box, rounded to whole pixels."""
    x0, y0, x1, y1 = (round(edge * size) for edge in item.box)
    width, height = max(1, x1 - x0), max(1, y1 - y0)
    if isinstance(item, Sign):
        return letter(item.word, width, height, item.ink, item.board), x0, y0
    sprite = cast.sprite(item.drawing, item.colour, cast.side_for(item.drawing, width, height))
    patch = Image.fromarray(sprite).resize((width, height), Image.Resampling.LANCZOS)
    if item.turn:
        patch = patch.rotate(item.turn, Image.Resampling.BICUBIC, expand=True)
    return patch, x0 - (patch.width - width) // 2, y0 - (patch.height - height) // 2


def _stamp(mask: Mask, patch: Mask, x: int, y: int) -> None:
    """Copy `patch` into `mask` with its corner at (x, y), cut at the border."""
    height, width = mask.shape
    x0, y0, x1, y1 = max(0, x), max(0, y), min(width, x + patch.shape[1]), min(height, y + patch.shape[0])
    if x0 < x1 and y0 < y1:
        mask[y0:y1, x0:x1] = patch[y0 - y : y1 - y, x0 - x : x1 - x]


def _edges(picture: Pixels, labels: Pixels) -> Mask:
    """Where the picture or the owner of a pixel changes towards the right or below."""
    edges = np.zeros(labels.shape, bool)
    values = picture.astype(np.int16)
    for axis in (0, 1):
        jump = (np.abs(np.diff(values, axis=axis)).max(-1) > STEP) | (np.diff(labels, axis=axis) != 0)
        edges[(slice(None, -1), slice(None))[:: 1 if axis == 0 else -1]] |= jump
    return edges


@lru_cache(maxsize=512)
def _backdrop(background: Background, size: int) -> Image.Image:
    first, *rest = (np.array(rgb(GROUNDS.get(word, SOFT.get(word, 0))), float) for word in background.colours)
    y = np.linspace(0, 1, size)[:, None, None]
    pixels = np.broadcast_to(first, (size, size, 3)).copy()
    if background.kind == "fade":
        pixels = np.broadcast_to(first * (1 - y) + rest[0] * y, pixels.shape)
    elif background.kind == "ground":
        pixels[round(size * 0.6) :] = rest[0]
    elif background.kind == "stripes":
        pixels[:, (np.arange(size) * 8 // size) % 2 == 1] = rest[0]
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
