"""T2I scalability (Li et al., arXiv 2404.02883): what to scale in a text-to-image model, and the laws that its score follows.

The smoke check holds the U-Nets' sizes, the laws and the measures of data against the paper. The measured claim (depth at low resolution
pays better than channels) needs a family of U-Nets trained over and over: more than a CPU gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..backbones.pixart import PixArtConfig
from ..training.diffusion import LatentStream, TextTable
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import parameters
from .scaling import PowerLaw, frontier, image_nouns, power_law

CLAIM = Claim(
    slug="t2i-scalability",
    title="On the Scalability of Diffusion-based Text-to-Image Generation",
    arxiv="2404.02883",
    statement="More transformer blocks at low resolution buy a U-Net prompt alignment more cheaply than more channels; denser captions buy "
    "it more cheaply than more pictures; and alignment follows power laws of compute, size and image-noun pairs.",
    budgets=("smoke",),
)


def check(budget: Budget) -> Outcome:
    """The exact checks."""
    return Outcome((*sizes(), *laws(), *data()))


def sizes() -> tuple[Finding, ...]:
    """SDXL's U-Net with a text of 1024 channels and nothing else, and the one with 4 blocks at both attending levels (TD4_4)."""
    (large, large_cost), (small, small_cost) = (_measured(depths) for depths in ((1, 2, 10), (1, 4, 4)))
    shapes = (PixArtConfig(width=1152), PixArtConfig(width=1536))
    transformers = [parameters(shape) / 1e9 for shape in shapes]
    return (
        exact("parameters of SDXL's U-Net", 2_391_824_644, large),
        exact("parameters of TD4_4", 1_321_930_244, small),
        exact("TD4_4 over SDXL, parameters", 0.5527, small / large, 5e-5),
        exact("multiply-adds of both at 256 pixels, to 2%", (198, 143), (large_cost / 1e9, small_cost / 1e9), 3.0, "G"),
        exact("PixArt of width 1152 and 1536, depth 28", (0.61, 1.08), transformers, 0.01, "B"),
    )


def laws() -> tuple[Finding, ...]:
    """The fit finds a law again, takes the frontier alone, and shows the printed exponent of size to be a misprint."""
    compute = [(10.0 ** (11 + k / 8), 0.47 * (10.0 ** (11 + k / 8)) ** 0.02) for k in range(9)]
    found = power_law(frontier([*compute, (10.0**11.5, 0.2), (10.0**12, 0.1)]))
    printed, read = (PowerLaw(0.77, exponent, 1.0, (exponent, exponent)) for exponent in (0.11, 0.011))
    return (
        exact("factor and exponent found in 0.47 C^0.02 among worse runs", (0.47, 0.02), (found.factor, found.exponent), 1e-6),
        exact("score at 1e12 GFLOPs", 0.8168, found(1e12), 5e-5),
        exact("printed 0.77 N^0.11 at 420 M, a share above 1", 1.496, printed(420), 5e-4),
        exact("0.77 N^0.011 at 420, 2390 and 4070 M", (0.823, 0.839, 0.844), [read(n) for n in (420, 2390, 4070)], 5e-4),
        Finding("largest score of that law up to 10,000 M", "at most 1", read(10_000), read(10_000) <= 1),
    )


def data() -> tuple[Finding, ...]:
    """Captions drawn half from the original, half from five others; pairs of image and noun."""
    table = TextTable(torch.arange(6.0)[:, None], torch.arange(7))
    stream = LatentStream(torch.zeros(1, 1, 1, 1), torch.arange(6)[None], table, (0.5, *[0.1] * 5), 1, 0)
    seen = torch.tensor([float(stream.batch(i)["cond"].tokens["text"].states) for i in range(4000)])
    shares = torch.bincount(seen.long(), minlength=6) / len(seen)
    return (
        exact("share of the original caption", 0.5, float(shares[0]), 0.025),
        exact("share of each of the five others", (0.1,) * 5, shares[1:].tolist(), 0.02),
        exact("image-noun pairs of one image, 'red cat' and 'cat on mat'", 2, image_nouns([("red cat", "cat on mat")], {"cat", "mat"})),
    )


def _measured(depths: tuple[int, int, int]) -> tuple[int, float]:
    """Parameters and multiply-adds of a forward at 256 pixels; nothing is allocated. `depths`: transformer blocks by level."""
    net = _unet(depths)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 4, 32, 32), torch.empty(1), torch.empty(1, 77, 1024))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() / 2


def _unet(depths: tuple[int, int, int]) -> nn.Module:
    from diffusers import UNet2DConditionModel

    down = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    up = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    shape: dict[str, Any] = {"block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20), "cross_attention_dim": 1024}
    with torch.device("meta"):
        net: nn.Module = UNet2DConditionModel(
            sample_size=32,
            down_block_types=down,
            up_block_types=up,
            transformer_layers_per_block=depths,
            use_linear_projection=True,
            **shape,
        )
    return net.eval()
