"""The trained perceptual network: the one that ships, or one of a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.config import from_dict, to_dict
from ..core.errors import UsageError
from ..core.kept import fetch, keep
from .net import PerceptualConfig, PerceptualNet


class Perceptual:
    """How unlike pictures look. `card`: what the network was trained on and how well it agrees with what it never saw."""

    def __init__(self, net: PerceptualNet, card: Mapping[str, Any]) -> None:
        self.net, self.card = net.eval().requires_grad_(False), dict(card)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(B,) fp32 distance of images a to b (B, 3, H, W) in [-1, 1]: 0 to rounding where they are equal. Its gradient reaches the images.

        Raises `UsageError` on unequal shapes, other channels, and sides that are too small. NaN and infinity go through, as in any loss.
        """
        least = self.net.config.least
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[-2:]) < least:
            shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
            raise UsageError(f"pictures of shapes {shapes} to compare", f"equal shapes (B, 3, H, W), sides of {least} pixels or more")
        # One pass over both: half the calls.
        whole = self.net(torch.cat([a, b]))
        sides = [feature.chunk(2) for feature in whole]
        return self.net.distance([x for x, _ in sides], [y for _, y in sides])

    def to(self, device: torch.device | str) -> Perceptual:
        self.net.to(device)
        return self

    def _nets(self) -> dict[str, nn.Module]:
        return {"net": self.net}

    def save(self, folder: Path) -> None:
        """Write `perceptual.safetensors` (fp16) and `perceptual.json` (config, card, checksum) into `folder`."""
        keep(folder, "perceptual", self._nets(), {"config": to_dict(self.net.config), "card": self.card})

    @classmethod
    def load(cls, folder: Path | None = None) -> Perceptual:
        """The network in `folder`, or the one that ships. Raises `WeightsError` when a file is missing, damaged or misshapen."""

        def build(content: Mapping[str, Any]) -> Perceptual:
            return cls(PerceptualNet(from_dict(PerceptualConfig, content["config"])), content["card"])

        home = Path(str(package_files("sfumato") / "assets" / "perceptual")) if folder is None else folder
        return fetch(home, "perceptual", build, Perceptual._nets)
