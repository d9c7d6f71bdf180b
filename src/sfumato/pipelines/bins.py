"""Aspect-ratio bins: the sizes a PixArt was trained at (arXiv 2310.00426, section 2.5), and a Sana, of which the nearest in shape is drawn.

All sizes are one table in sixteenths of the square's side; at 2048 there are a few more. The picture is then resized to what was asked for.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

SIDES = (256, 512, 1024, 2048)
# (height, width), in sixteenths.
BINS = (
    *(
        (8, 32),
        (8, 29),
        (9, 28),
        (9, 27),
        (9, 26),
        (10, 25),
        (10, 24),
        (11, 23),
        (11, 22),
        (11, 21),
        (12, 21),
        (12, 20),
        (13, 19),
        (13, 18),
    ),
    *((14, 18), (14, 17), (15, 17), (15, 16), (16, 16), (16, 15), (17, 15), (17, 14), (18, 14), (18, 13), (19, 13), (20, 12), (21, 12)),
    *((22, 11), (23, 11), (24, 10), (25, 10), (27, 9), (32, 8)),
)
MORE_AT_2048 = ((8, 31), (8, 30), (26, 9), (28, 9), (29, 8), (30, 8), (31, 8))


def nearest(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The trained (height, width) whose shape is nearest to that of `size`; `side`: of the square, one of `SIDES`."""
    bins = BINS if side < 2048 else (*BINS, *MORE_AT_2048)
    # Shapes are told apart by their ratio in hundredths, as published; of two equally near, the wider.
    height, width = min(bins, key=lambda bin: (abs(round(bin[0] / bin[1], 2) - size[0] / size[1]), bin[0] / bin[1]))
    return height * side // 16, width * side // 16


def fitted(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, 3, H, W) scaled until they cover `size` (height, width), without smoothing first, and cropped to it around the middle."""
    inside, ratio = images.shape[2:], max(new / old for new, old in zip(size, images.shape[2:], strict=True))
    if tuple(inside) == size:
        return images
    # At least `size`: a product that rounds down would lose a row.
    height, width = (max(int(old * ratio), new) for old, new in zip(inside, size, strict=True))
    scaled = interpolate(images, (height, width), mode="bilinear", align_corners=False)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return scaled[:, :, top : top + size[0], left : left + size[1]]
