"""What exact checks ask networks: latents and a prompt that fit any family, and how far two answers lie apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backbones import backbones
from ..core.conditions import Conditions, Tokens
from ..core.program import Network
from ..core.rng import Rows
from ..core.state import Stream


def asked(net: Network, seed: int = 0, words: int = 5, side: int = 8, rows: int = 2) -> tuple[dict[str, Stream], Conditions]:
    """Latents (rows, C, side, side) at several noise levels and a prompt of `words` tokens each; `seed` changes the prompt alone."""
    shape: Any = net.config
    noise, text = (Rows(tuple(range(first, first + rows))) for first in (0, seed + 100))
    keep = torch.ones(rows, words, dtype=torch.bool)
    cond = Conditions({"text": Tokens(text.normal((words, shape.text_width), "text"), keep)})
    if "pooled" in net.slots:
        cond = Conditions(cond.tokens, {"pooled": text.normal((shape.pooled_width,), "pooled")})
    return {"image": Stream(noise.normal((shape.channels, side, side), "image"), t=torch.linspace(0.2, 0.8, rows))}, cond


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference."""
    return float((a - b).abs().max())


def parameters(shape: Any) -> int:
    """How many a family's config has; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in backbones.build(shape).parameters())
