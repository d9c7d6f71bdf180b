"""The U-Net of latent diffusion (Rombach et al., arXiv 2112.10752), as Stable Diffusion 1, 2 and XL (arXiv 2307.01952) and Kandinsky 2.2
(arXiv 2310.03502) have it: residual convolutions and stacks of transformer blocks, down through the levels and up again with skips.

    c = silu(MLP(sinusoid(1000 t)) [+ MLP(pooled vector, sinusoids of sizes)] [+ LN(W image embedding)])
    down, at each level      residual block [+ stack], remembered; then half the sides
    middle                   residual block, stack, residual block
    up, deepest level first  joined with what was remembered: residual block [+ stack]; then the sides of the next level

`unet_plan.py` lists the program's items with their places. A picture's tokens are latent cells, row by row, and a stream's grid says how
many rows and columns there are at its level. May touch nn/ and core/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..core.blocks import Block, SiteInfo
from ..core.call import Call
from ..core.conditions import Conditions
from ..core.errors import UsageError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.conv import Down, Residual, Up
from ..nn.embeddings import MLPEmbedding, TimeEmbedding, sinusoid
from ..nn.grids import at_level, plane, tokens
from ..nn.linear import Linear, name_linears
from ..nn.norms import GroupNorm
from ..nn.projections import AttentionShape
from ..nn.rewires import Join, Push
from ..nn.stack import Enter, Leave, PrefixBranch, layer
from . import Family
from .unet_plan import Part, UNetConfig, plan


class UNet(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Predicts "image" (B, C, h, w) and, with `variance`, "variance" of that shape.

    Slots: tokens "text" (B, N, text_width), or vector "image_embedding" (B, image_width); with `pooled_width`, vector "pooled" and the
    vectors of `sizes` in pixels ("aesthetic": a score), (B, 2) as (height, width) or (top, left), the score (B, 1).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config, self.parts = config, plan(config)
        self.capabilities = frozenset({"softmax", "cross"} if config.attention == "stack" else {"softmax"})
        self.slots = frozenset({"image_embedding" if config.image_width else "text", *config.sizes})
        first = config.widths[0]
        self.entry = nn.Conv2d(config.channels, first, 3, padding=1)
        self.time = TimeEmbedding(config.time_width, features=first)
        if config.pooled_width:
            self.slots |= {"pooled"}
            self.added = MLPEmbedding(config.added_width, config.time_width)
        if config.image_width:
            self.image_tokens = Linear(config.image_width, config.image_tokens * config.text_width, "embed")
            self.image_norm = nn.LayerNorm(config.text_width)
            self.image_time, self.image_time_norm = Linear(config.image_width, config.time_width, "embed"), nn.LayerNorm(config.time_width)
        self.set_program([_item(part, config) for part in self.parts])
        self.final_norm = GroupNorm(config.groups, first, config.eps)
        self.final = nn.Conv2d(first, config.channels * (2 if config.variance else 1), 3, padding=1)
        _initialise(self)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time, config = self.time(self.level(streams), call), self.config
        c = time
        if config.pooled_width:
            numbers = [sinusoid(cond.vectors[name], config.sizes_width).flatten(1) for name in config.sizes]
            c = c + self.added(torch.cat([cond.vectors["pooled"].to(time.dtype), *(n.to(time.dtype) for n in numbers)], dim=1), call)
        if config.image_width:
            c = c + self.image_time_norm(self.image_time(cond.vectors["image_embedding"].to(time.dtype), call)).to(time.dtype)
        return {"time": time, "c": silu(c)}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, dtype = streams["image"].x, self.entry.weight.dtype
        rows, columns = latents.shape[-2:]
        halvings = 2 ** (len(self.config.widths) - 1)
        if self.config.resample == "residual" and (rows % halvings or columns % halvings):
            raise UsageError(
                f"a latent of {rows} x {columns} is not halved {len(self.config.widths) - 1} times", f"multiples of {halvings}"
            )
        image = Stream(tokens(self.entry(latents.to(dtype))), grid=(rows, columns), t=streams["image"].t)
        return {"image": image, **self.told(cond, call)}

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        dtype = self.entry.weight.dtype
        if not self.config.image_width:
            text = cond.tokens["text"]
            return {"text": Stream(text.silenced(dtype), keep=text.keep, update=False)}
        states = self.image_tokens(cond.vectors["image_embedding"].to(dtype), call).unflatten(1, (-1, self.config.text_width))
        return {"text": Stream(self.image_norm(states).to(dtype), update=False)}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        image = state.streams["image"]
        answer = self.final(plane(silu(self.final_norm(image.x)), image.grid))
        return dict(zip(("image", "variance"), answer.split(self.config.channels, dim=1), strict=False))

    def sites(self) -> tuple[SiteInfo, ...]:
        """As every network's; costs are asked with the whole picture's tokens and counted with those of the site's level."""
        return tuple(at_level(info, self.parts[info.site.block].level) for info in super().sites())


def _item(part: Part, config: UNetConfig) -> nn.Module:
    heads = config.heads[part.level]
    if part.kind == "push":
        return Push("image")
    if part.kind == "join":
        return Join()
    if part.kind == "enter":
        return Enter(part.width, config.groups)
    if part.kind == "layer":
        return layer(part.width, heads, config.text_width)
    if part.kind == "leave":
        return Block(Leave(part.width))
    if part.kind == "prefix":
        return Block(PrefixBranch(AttentionShape(part.width, heads, qk_norm=False), config.text_width, config.groups))
    if part.kind in ("down", "up") and config.resample == "conv":
        return Down(part.width) if part.kind == "down" else Up(part.width)
    resample = part.kind if part.kind in ("down", "up") else ""
    return Block(Residual(part.width_in, part.width, config.time_width, config.groups, config.eps, config.scale_shift, resample))


def _initialise(net: UNet) -> None:
    """Residual blocks, stacks and the network begin closed: their last layers are zero, the rest is torch's own."""
    for module in net.modules():
        if isinstance(module, (Residual, Leave, PrefixBranch)):
            closing = {Residual: "conv_out", Leave: "linear", PrefixBranch: "core.own.out"}[type(module)]
            _close(module.get_submodule(closing))
    _close(net.final)


def _close(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def tiny(seed: int = 0, **shape: Any) -> UNet:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {
        "widths": (8, 16), "down": ((0,), (1,)), "middle": 1, "up": ((1, 2), (0, 0)), "heads": (2, 4), "groups": 4, "text_width": 12,
        "pooled_width": 6, "sizes_width": 8,
    }  # fmt: skip
    net = UNet(UNetConfig(**{**small, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(UNet, UNetConfig, tiny)
