"""Inception-v3 as the Fréchet distance of the literature uses it: TensorFlow's network of 2015-12-05 with its own pooling and resizing.

Written as a table of branches; keys are those of pt_inception-2015-12-05 (FID of Heusel et al., arXiv 1706.08500; network: Szegedy et
al., arXiv 1512.00567), so that a file of its tensors loads as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import WeightsError
from ..core.files import read_tensors
from .pictures import chunks

SIZE, DIMS = 299, 2048

# A convolution: name, channels, kernel, stride, padding. A branch: convolutions in a row; a tuple at its end: two side by side.
Conv = tuple[str, int, Any, int, Any]
Branch = list[Any]


class ConvNorm(nn.Module):
    """relu(bn(conv(x)))."""

    def __init__(self, before: int, after: int, kernel: Any, stride: int = 1, padding: Any = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, concatenated along the channels; `pool` ("avg" or "max") feeds `branch_pool`, or stands alone at stride 2."""

    def __init__(self, before: int, branches: list[Branch], pool: str, pooled: int) -> None:
        super().__init__()
        self.chains: list[list[tuple[str, ...]]] = []
        for branch in branches:
            width, chain = before, []
            for step in branch:
                parts: tuple[Conv, ...] = step if isinstance(step[0], tuple) else (step,)
                for name, after, *shape in parts:
                    setattr(self, name, ConvNorm(width, after, *shape))
                chain.append(tuple(part[0] for part in parts))
                width = sum(part[1] for part in parts)
            self.chains.append(chain)
        self.pool, self.pooled = pool, pooled
        if pooled:
            self.branch_pool = ConvNorm(before, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        outs = []
        for chain in self.chains:
            y = x
            for names in chain:
                y = torch.cat([getattr(self, name)(y) for name in names], 1)
            outs.append(y)
        return torch.cat([*outs, self._pool(x)], 1)

    def _pool(self, x: Tensor) -> Tensor:
        if not self.pooled:
            return F.max_pool2d(x, 3, 2)
        # TensorFlow's mean leaves the padding out.
        near = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) if self.pool == "avg" else F.max_pool2d(x, 3, 1, 1)
        out: Tensor = self.branch_pool(near)
        return out


def _a(before: int, pooled: int) -> Mixed:
    five: Branch = [("branch5x5_1", 48, 1, 1, 0), ("branch5x5_2", 64, 5, 1, 2)]
    three: Branch = [("branch3x3dbl_1", 64, 1, 1, 0), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 1, 1)]
    return Mixed(before, [[("branch1x1", 64, 1, 1, 0)], five, three], "avg", pooled)


def _b(before: int) -> Mixed:
    three: Branch = [("branch3x3dbl_1", 64, 1, 1, 0), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 2, 0)]
    return Mixed(before, [[("branch3x3", 384, 3, 2, 0)], three], "max", 0)


def _c(before: int, inner: int) -> Mixed:
    across, down = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    seven: Branch = [("branch7x7_1", inner, 1, 1, 0), ("branch7x7_2", inner, *across), ("branch7x7_3", 192, *down)]
    turns = (down, across, down, across)
    double: Branch = [("branch7x7dbl_1", inner, 1, 1, 0)]
    double += [(f"branch7x7dbl_{i + 2}", 192 if i == 3 else inner, *turn) for i, turn in enumerate(turns)]
    return Mixed(before, [[("branch1x1", 192, 1, 1, 0)], seven, double], "avg", 192)


def _d(before: int) -> Mixed:
    three: Branch = [("branch3x3_1", 192, 1, 1, 0), ("branch3x3_2", 320, 3, 2, 0)]
    seven: Branch = [
        ("branch7x7x3_1", 192, 1, 1, 0),
        ("branch7x7x3_2", 192, (1, 7), 1, (0, 3)),
        ("branch7x7x3_3", 192, (7, 1), 1, (3, 0)),
        ("branch7x7x3_4", 192, 3, 2, 0),
    ]
    return Mixed(before, [three, seven], "max", 0)


def _e(before: int, pool: str) -> Mixed:
    def split(name: str) -> Any:
        return (f"{name}a", 384, (1, 3), 1, (0, 1)), (f"{name}b", 384, (3, 1), 1, (1, 0))

    three: Branch = [("branch3x3_1", 384, 1, 1, 0), split("branch3x3_2")]
    double: Branch = [("branch3x3dbl_1", 448, 1, 1, 0), ("branch3x3dbl_2", 384, 3, 1, 1), split("branch3x3dbl_3")]
    return Mixed(before, [[("branch1x1", 320, 1, 1, 0)], three, double], pool, 192)


class Inception(nn.Module):
    """(N, 2048) from pictures (N, 3, 299, 299) with values (grey - 128) / 128."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = ConvNorm(3, 32, 3, 2), ConvNorm(32, 32, 3), ConvNorm(32, 64, 3, 1, 1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = ConvNorm(64, 80, 1), ConvNorm(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _c(768, 128), _c(768, 160), _c(768, 160), _c(768, 192)
        # The last block pools by maximum, a quirk of the published network.
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = _d(768), _e(1280, "avg"), _e(2048, "max")

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))


def tensorflow_resize(x: Tensor, size: int) -> Tensor:
    """Bilinear as TensorFlow 1 has it: pixel i reads from i * (side / size), no half-pixel shift, no antialiasing. x (N, C, H, W)."""

    def weights(side: int) -> Tensor:
        at = torch.arange(size, dtype=torch.float32) * (side / size)
        low = at.floor().long().clamp_max(side - 1)
        table = torch.zeros(size, side)
        table.scatter_add_(1, low[:, None], (1 - (at - low))[:, None])
        return table.scatter_add_(1, (low + 1).clamp_max(side - 1)[:, None], (at - low)[:, None]).to(x)

    return weights(x.shape[2]) @ x @ weights(x.shape[3]).T


class InceptionFeatures:
    """The network behind `Features`: pictures as they are saved, in 256 greys."""

    name, size, dims = "Inception", SIZE, DIMS

    def __init__(self, net: Inception) -> None:
        self.net = net.eval()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        parts = [torch.zeros(0, DIMS)]
        for chunk in chunks(images, next(self.net.parameters()).device):
            greys = ((chunk.float().clamp(-1, 1) + 1) * 127.5).round()
            parts.append(self.net((tensorflow_resize(greys, SIZE) - 128) / 128).float().cpu())
        return torch.cat(parts)


def load_inception(path: Path, device: torch.device | str = "cpu") -> InceptionFeatures:
    """From the tensors of pt_inception-2015-12-05 as safetensors; its classifier is left behind. Raises `WeightsError` on a wrong key."""
    state = {name: tensor for name, tensor in read_tensors(path).items() if not name.startswith(("fc.", "AuxLogits."))}
    net = Inception()
    own = net.state_dict()
    # Files made before torch counted batches lack the counters, which inference never reads.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    wrong = [name for name in state if name not in own or own[name].shape != state[name].shape]
    if missing or wrong:
        found = f"{len(missing)} keys missing ({', '.join(missing[:3])}), {len(wrong)} unknown or misshapen ({', '.join(wrong[:3])})"
        raise WeightsError(
            f"{path} does not hold pt_inception-2015-12-05: {found}", "torch.load it where you trust it, save_file the tensors"
        )
    net.load_state_dict(state, strict=False)
    return InceptionFeatures(net.to(device))
