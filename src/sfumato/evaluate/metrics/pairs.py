"""Measures of pictures that belong together: a picture and its caption, or two pictures of one prompt and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import UsageError
from .estimates import Score, tables


def alignment(images: Tensor, captions: Tensor) -> Tensor:
    """(B,) cosine of each picture's embedding (B, E) to its caption's (B, E). Raises `UsageError`, `NonFiniteError`."""
    images, captions = _embeddings(images, captions)
    return F.cosine_similarity(images, captions, dim=1)


@dataclass(frozen=True)
class Retrieval:
    """R@k among `among` pictures: how often the right caption is among the k nearest of a picture (`caption_at`), and the right picture
    among the k nearest of a caption (`picture_at`); by k."""

    caption_at: dict[str, Score]
    picture_at: dict[str, Score]
    among: int


def retrieval(images: Tensor, captions: Tensor, at: Sequence[int] = (1, 5)) -> Retrieval:
    """Of embeddings (B, E) of pictures and their captions, by cosine (R@k as in CLIP, arXiv 2103.00020).

    Captions that embed alike are one caption: any picture of it is right. Others that tie with the right one count before it, so that
    embeddings all alike score 0. The rate depends on how many stand to choose from. Raises `UsageError`, `NonFiniteError`.
    """
    images, captions = (F.normalize(side, dim=1) for side in _embeddings(images, captions))
    cosines = images @ captions.T
    same = (captions @ captions.T) > 1 - 1e-9
    right = cosines.masked_fill(~same, -2.0)

    def rates(table: Tensor, best: Tensor) -> dict[str, Score]:
        before = ((table >= best[:, None] - 1e-12) & ~same).sum(1)
        return {str(k): Score.rate(before < k) for k in at}

    return Retrieval(rates(cosines, right.amax(1)), rates(cosines.T, right.amax(0)), len(images))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """(B,) structural similarity of pictures (B, C, H, W) in [-1, 1], at most 1 (Wang et al. 2004, eq. 13).

    Gaussian window of 11 pixels with sigma 1.5, constants (0.01 L)^2 and (0.03 L)^2 with the range L = 2, mean over places and channels.
    Raises `UsageError` on pictures of other shapes or below 11 pixels.
    """
    if a.shape != b.shape or a.ndim != 4 or min(a.shape[-2:]) < 11:
        raise UsageError(f"pictures of shapes {tuple(a.shape)} and {tuple(b.shape)} to compare", "equal shapes, sides of 11 pixels or more")
    steps = torch.arange(-5, 6, dtype=torch.float64)
    window = torch.softmax(-steps.square() / (2 * 1.5**2), 0)
    kernel = torch.outer(window, window)[None, None]

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x.flatten(0, 1)[:, None], kernel).unflatten(0, x.shape[:2])[:, :, 0]

    x, y = a.double().cpu(), b.double().cpu()
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    similar = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similar.mean((1, 2, 3))


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """(B,) distance of pictures in feature maps a_l, b_l (B, C_l, h_l, w_l) of several layers (LPIPS, arXiv 1801.03924, eq. 1).

    Maps are brought to unit length along the channels; squared differences are summed over them, meaned over places, and meaned over the
    layers: 0 for equal pictures, at most 2 for maps without negative values. All channels weigh 1: no weights are learned from
    human judgements, so values compare with each other and not with published LPIPS.
    """
    layers = [
        (F.normalize(x.double(), dim=1, eps=1e-10) - F.normalize(y.double(), dim=1, eps=1e-10)).square().sum(1).mean((1, 2))
        for x, y in zip(a, b, strict=True)
    ]
    return torch.stack(layers).mean(0)


def _embeddings(images: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
    images, captions = tables(images, captions)
    if len(images) != len(captions):
        raise UsageError(f"{len(images)} pictures and {len(captions)} captions", "one caption for each picture")
    return images, captions
