"""Convolutional parts of a U-Net (Ho et al., arXiv 2006.11239; Dhariwal and Nichol, arXiv 2105.05233).

They read a picture's tokens as a plane (`nn/grids.py`) and give tokens back, so that attention, policies and skips see one kind of State.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu, interpolate, silu

from ..core.blocks import Branch, Rewire, SiteInfo, Units
from ..core.call import Call, Site
from ..core.state import State, Stream
from .grids import plane, tokens
from .linear import Linear
from .norms import GroupNorm
from .picture import PICTURE


def halved(x: Tensor) -> Tensor:
    """The mean of each 2 x 2 places of a plane."""
    return avg_pool2d(x, 2)


def grown(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A plane at another size, each place with its nearest neighbour's values."""
    return interpolate(x, size=grid, mode="nearest")


class Residual(Branch):
    """x = S(x) + conv(silu(GN(conv(R(silu(GN(x)))) + shift(c)))), S a Linear where the width changes.

    `scale_shift`: the inner norm is scaled and shifted by c instead, GN(...) * (1 + scale(c)) + shift(c).   `resample`: R halves the sides
    (mean) or brings them to those of the waiting skip (nearest), and x likewise.   c: State.cond["c"], already through its SiLU.
    """

    name = "residual"
    streams = PICTURE

    def __init__(
        self,
        width_in: int,
        width: int,
        width_c: int,
        groups: int,
        eps: float,
        scale_shift: bool = False,
        resample: Literal["", "down", "up"] = "",
    ) -> None:
        super().__init__()
        self.resample, self.recalls = resample, resample == "up"
        self.norm, self.conv = GroupNorm(groups, width_in, eps), nn.Conv2d(width_in, width, 3, padding=1)
        self.shift = Linear(width_c, width, "modulation")
        self.scale = Linear(width_c, width, "modulation") if scale_shift else None
        self.norm_out, self.conv_out = GroupNorm(groups, width, eps), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = Linear(width_in, width, "shortcut") if width_in != width else None

    def carry(self, state: State, call: Call | None) -> State:
        stream = state.streams["image"]
        if self.resample:
            moved = self._resampled(plane(stream.x, stream.grid), state)
            stream = replace(stream, x=tokens(moved), grid=(moved.shape[2], moved.shape[3]))
        return state.attach("image", stream if self.shortcut is None else stream.with_x(self.shortcut(stream.x, call)))

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"image": silu(self.norm(state["image"]))}, {}

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        x, c = plane(inputs["image"], state.streams["image"].grid), state.cond["c"]
        hidden, shift = self.conv(self._resampled(x, state)), self.shift(c, call)
        if self.scale is None:
            y = self.norm_out(tokens(hidden + shift[:, :, None, None]))
        else:
            y = self.norm_out(tokens(hidden)) * (1 + self.scale(c, call)[:, None]) + shift[:, None]
        return {"image": tokens(self.conv_out(silu(plane(y, hidden.shape[2:]))))}

    def _resampled(self, x: Tensor, state: State) -> Tensor:
        if self.resample == "down":
            return halved(x)
        return grown(x, waiting(state).grid or ()) if self.resample == "up" else x

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        """Units are the inner norm's groups: a channel alone would leave its group another mean."""
        width_in, width, count = self.conv.in_channels, self.conv.out_channels, self.norm_out.num_groups
        inner = ("conv", "shift", "norm_out") if self.scale is None else ("conv", "shift", "scale", "norm_out")
        owned = {f"{prefix}.{part}.{kind}": (0, width // count) for part in inner for kind in ("weight", "bias")}
        units = Units("groups", count, owned | {f"{prefix}.conv_out.weight": (1, width // count)})
        each = 9 * width * (width_in + width) + (0 if self.shortcut is None else width_in * width)

        parameters = super().describe(site, prefix).parameters
        return SiteInfo(site, self.streams, parameters, (units,), lambda tokens: tokens["image"] * each)


def waiting(state: State) -> Stream:
    """The picture as it was remembered last."""
    return state.skips[-1]["image"]


class FusedConv(Branch):
    """x += Out(SE(gelu(GN(conv(x) + shift(c))))), a full 3 x 3 convolution `expand` times as wide (FusedMBConv; Tan and Le, arXiv
    2104.00298) and squeeze-and-excitation (Hu et al., arXiv 1709.01507) of `squeeze` width channels; GroupNorm instead of BatchNorm, which
    would mix the rows of a batch and their noise levels.

    c: State.cond["c"], already through its SiLU.
    """

    name = "conv"
    streams = PICTURE

    def __init__(self, width: int, width_c: int, groups: int, expand: int = 4, squeeze: float = 0.25) -> None:
        super().__init__()
        hidden, least = expand * width, max(1, round(squeeze * width))
        self.conv = nn.Conv2d(width, hidden, 3, padding=1)
        self.shift = Linear(width_c, hidden, "modulation")
        self.norm = GroupNorm(groups, hidden)
        self.squeeze, self.excite = Linear(hidden, least, "down"), Linear(least, hidden, "up")
        self.out = Linear(hidden, width, "out")

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"image": state["image"]}, {}

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        seen = tokens(self.conv(plane(inputs["image"], state.streams["image"].grid)))
        hidden = gelu(self.norm(seen + self.shift(state.cond["c"], call)[:, None]))
        excited = self.excite(gelu(self.squeeze(hidden.mean(1), call)), call).sigmoid()
        return {"image": self.out(hidden * excited[:, None], call)}

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        """Units are the norm's groups, coupled by squeeze and excitation, which act once a row and are not counted."""
        width, hidden, count = self.conv.in_channels, self.conv.out_channels, self.norm.num_groups
        whole = [f"{prefix}.{part}.{kind}" for part in ("conv", "shift", "norm", "excite") for kind in ("weight", "bias")]
        columns = [f"{prefix}.{part}.weight" for part in ("squeeze", "out")]
        owned = dict.fromkeys(whole, (0, hidden // count)) | dict.fromkeys(columns, (1, hidden // count))
        parameters = super().describe(site, prefix).parameters
        units = Units("groups", count, owned, coupled=True)
        return SiteInfo(site, self.streams, parameters, (units,), lambda tokens: tokens["image"] * 10 * width * hidden)


class Resize(Rewire):
    """Another level: a convolution that halves the sides, or one over the picture brought to those of the waiting skip."""

    stride = 1

    def __init__(self, width: int, width_out: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width_out or width, 3, self.stride, padding=1)

    def enlarged(self, x: Tensor, state: State) -> Tensor:
        return x

    def forward(self, state: State, call: Call | None = None) -> State:
        stream = state.streams["image"]
        moved = self.conv(self.enlarged(plane(stream.x, stream.grid), state))
        return state.attach("image", replace(stream, x=tokens(moved), grid=(moved.shape[2], moved.shape[3])))

    def describe(self, prefix: str) -> tuple[SiteInfo, ...]:
        each = 9 * self.conv.in_channels * self.conv.out_channels
        names = tuple(f"{prefix}.{n}" for n, _ in self.named_parameters())
        return (SiteInfo(Site(self.index, "conv"), PICTURE, names, (), lambda tokens: tokens["image"] * each),)


class Down(Resize):
    """A convolution of stride 2: sides n become (n + 1) // 2."""

    stride = 2


class Up(Resize):
    """Nearest neighbours up to the waiting skip's sides, which need not be even, then a convolution."""

    def enlarged(self, x: Tensor, state: State) -> Tensor:
        return grown(x, waiting(state).grid or ())
