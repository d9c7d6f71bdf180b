"""What can happen to a picture, by kind and strength: what a distance between pictures is taught, and tried, on.

A distortion takes ink (B, 3, H, W) in [0, 1], 0 being white paper, strengths u (B,) in [0, 1] and `Draws`. 0 changes nothing; 1 leaves a
drawing hard to tell, or not what it was. With the same draws a larger u goes further along the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, interpolate

from ..core.rng import Draws

Distortion = Callable[[Tensor, Tensor, Draws], Tensor]


def _signed(draws: Draws, shape: tuple[int, ...], purpose: str, like: Tensor) -> Tensor:
    """Uniform numbers in [-1, 1)."""
    return (draws.uniform(shape, purpose) * 2.0 - 1.0).to(like)


def _over(u: Tensor) -> Tensor:
    return u[:, None, None, None]


def _moved(ink: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Sampled at `matrix` (B, 2, 2) p + `shift` (B, 2) of every place p in [-1, 1]^2; paper beyond the edge."""
    grid = affine_grid(torch.cat([matrix, shift[..., None]], 2), list(ink.shape), align_corners=False)
    return grid_sample(ink, grid, align_corners=False)


def _eye(u: Tensor) -> Tensor:
    return torch.eye(2).to(u).expand(len(u), 2, 2)


def shift(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """By up to a quarter of the side, any way."""
    angle = math.pi * _signed(draws, (len(ink),), "shift", ink)
    return _moved(ink, _eye(u), 0.5 * u[:, None] * torch.stack([angle.cos(), angle.sin()], 1))


def turn(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """By up to 45 degrees."""
    angle = math.pi / 4 * u * _signed(draws, (len(ink),), "turn", ink).sign()
    cos, sin = angle.cos(), angle.sin()
    return _moved(ink, torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2), torch.zeros_like(u)[:, None].expand(-1, 2))


def zoom(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """In or out, by up to a factor of 1.6."""
    factor = torch.exp(math.log(1.6) * u * _signed(draws, (len(ink),), "zoom", ink).sign())
    return _moved(ink, factor[:, None, None] * _eye(u), torch.zeros_like(u)[:, None].expand(-1, 2))


def squash(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Wider or taller, by up to a factor of 1.5 each way."""
    factor = torch.exp(math.log(1.5) * u * _signed(draws, (len(ink),), "squash", ink).sign())
    return _moved(ink, torch.diag_embed(torch.stack([factor, 1 / factor], 1)), torch.zeros_like(u)[:, None].expand(-1, 2))


def bend(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Places wander smoothly, by up to about an eighth of the side."""
    field = interpolate(_signed(draws, (len(ink), 2, 4, 4), "bend", ink), size=ink.shape[-2:], mode="bicubic")
    still = affine_grid(torch.eye(2, 3).to(ink).expand(len(ink), 2, 3), list(ink.shape), align_corners=False)
    return grid_sample(ink, still + (0.25 * _over(u) * field).permute(0, 2, 3, 1), align_corners=False)


def _blurred(ink: Tensor, sigma: Tensor) -> Tensor:
    """With a Gaussian of `sigma` (B,) pixels, cut at 3 of the largest."""
    reach = max(1, math.ceil(3 * float(sigma.max())))
    steps = torch.arange(-reach, reach + 1).to(ink)
    kernel = torch.softmax(-0.5 * (steps / sigma.clamp_min(1e-3)[:, None]).square(), 1).repeat_interleave(3, 0)
    rows = ink.flatten(0, 1)[None]
    for shape, padding in (((-1, 1, 1, len(steps)), (0, reach)), ((-1, 1, len(steps), 1), (reach, 0))):
        rows = conv2d(rows, kernel.view(shape), padding=padding, groups=len(kernel))
    return rows[0].view_as(ink)


def soften(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Gaussian blur of up to a sixteenth of the side."""
    return _blurred(ink, u * ink.shape[-1] / 16)


def sharpen(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Up to four times as far from its blur: rings along edges."""
    return ink + 3 * _over(u) * (ink - _blurred(ink, torch.full_like(u, ink.shape[-1] / 48)))


def coarsen(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Towards cells of an eighth of the side, each of one colour."""
    cell, (height, width) = max(1, ink.shape[-1] // 8), ink.shape[-2:]
    cells = interpolate(avg_pool2d(ink, cell, ceil_mode=True), scale_factor=cell)[..., :height, :width]
    return ink + _over(u) * (cells - ink)


def speckle(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """White noise, of a standard deviation up to 0.5."""
    return ink + 0.5 * _over(u) * draws.normal(tuple(ink.shape), "speckle").to(ink)


def mottle(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Stains about an eighth of the side wide."""
    stains = interpolate(draws.normal((len(ink), 3, 8, 8), "mottle").to(ink), size=ink.shape[-2:], mode="bilinear")
    return ink + 0.6 * _over(u) * stains


def tint(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Hues turned by up to 120 degrees about the grey axis."""
    angle = 2 * math.pi / 3 * u * _signed(draws, (len(ink),), "tint", ink).sign()
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    mean, axis = torch.full((3, 3), 1 / 3).to(ink), torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]).to(ink) / 3**0.5
    matrix = cos * torch.eye(3).to(ink) + sin * axis + (1 - cos) * mean
    return torch.einsum("bij,bjhw->bihw", matrix, ink)


def fade(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Down to a tenth of the ink."""
    return ink * (1 - 0.9 * _over(u))


def hide(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Behind a square of up to three quarters of the side, in one colour."""
    centre, colour = draws.uniform((len(ink), 2), "hide").to(ink), draws.uniform((len(ink), 3), "cover").to(ink)
    ys, xs = (torch.linspace(0, 1, n).to(ink) for n in ink.shape[-2:])
    near = [(line[None] - 0.2 - 0.6 * c[:, None]).abs() < 0.375 * u[:, None] for line, c in ((ys, centre[:, 0]), (xs, centre[:, 1]))]
    return torch.where((near[0][:, :, None] & near[1][:, None])[:, None], colour[..., None, None], ink)


def ghost(ink: Tensor, u: Tensor, draws: Draws) -> Tensor:
    """Mixed with its neighbour in the batch, to three quarters."""
    return ink + 0.75 * _over(u) * (ink.roll(1, 0) - ink)


TAUGHT: Mapping[str, Distortion] = {
    f.__name__: f for f in (shift, turn, zoom, soften, sharpen, speckle, tint, fade, hide, ghost)
}  # fmt: skip
# A distance that was taught on the others is tried on these.
KEPT_BACK: Mapping[str, Distortion] = {f.__name__: f for f in (squash, bend, coarsen, mottle)}


def distorted(ink: Tensor, u: Tensor, draws: Draws, kinds: Tensor) -> Tensor:
    """Ink in [0, 1], row i by the taught distortion number `kinds[i]`, at strength u."""
    out = ink.clone()
    with torch.autocast(ink.device.type, enabled=False):
        for number, change in enumerate(TAUGHT.values()):
            rows = (kinds == number).nonzero().flatten()
            if len(rows):
                out[rows] = change(ink[rows], u[rows], draws)
    return out.clamp(0, 1)
