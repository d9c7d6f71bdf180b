"""Every field of a network's config shows in its weights or in what it says. A new field without a line in a table here fails the test."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from sfumato.backbones import backbones
from sfumato.backbones.ascan import AsCANConfig
from sfumato.backbones.checkpoints import of_family
from sfumato.backbones.dit import DiTConfig
from sfumato.backbones.flux import FluxConfig
from sfumato.backbones.hidream import HiDreamConfig
from sfumato.backbones.lumina2 import Lumina2Config
from sfumato.backbones.microdit import MicroDiTConfig
from sfumato.backbones.mmdit import MMDiTConfig
from sfumato.backbones.nextdit import NextDiTConfig
from sfumato.backbones.pixart import PixArtConfig
from sfumato.backbones.sana import SanaConfig
from sfumato.backbones.unet_plan import SIZES, UNetConfig
from sfumato.backbones.unidiffuser import UniDiffuserConfig
from sfumato.backbones.uvit import UViTConfig
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.errors import ConfigError
from sfumato.core.state import Stream

# How each field of a config shows: in the network's weights, the optimizer's groups, the learning rate, or in what is drawn.
MMDIT: dict[str, Any] = {
    "depth": 4,
    "width": 48,
    "heads": 4,
    "channels": 8,
    "patch": 1,
    "text_width": 16,
    "pooled_width": 8,
    "mlp_ratio": 2,
    "qk_norm": False,
    "base_grid": 8,
    "positions": "span",
    "table_grid": 9,
    "dual": (1,),
}
PIXART: dict[str, Any] = {
    "depth": 4, "width": 48, "heads": 4, "channels": 8, "patch": 1, "text_width": 16, "mlp_ratio": 2, "span": 8.0, "sizes": True,
    "variance": False, "compress": (1,), "ratio": 1, "attention": "linear",
}  # fmt: skip
FLUX: dict[str, Any] = {
    "dual": 1, "single": 2, "width": 32, "heads": 2, "channels": 8, "patch": 1, "axes": (4, 8, 4), "text_width": 16, "pooled_width": 8,
    "mlp_ratio": 2, "guided": False,
}  # fmt: skip
UVIT: dict[str, Any] = {
    "depth": 4, "width": 64, "heads": 1, "channels": 8, "patch": 1, "grid": 2, "words": 9, "text_width": 16, "mlp_ratio": 2,
    "skips": False, "time_mlp": True, "smooth": False,
}  # fmt: skip
NEXTDIT: dict[str, Any] = {
    "depth": 1, "width": 48, "heads": 2, "kv_heads": 1, "hidden": 32, "channels": 8, "patch": 1, "text_width": 16, "qk_norm": False,
    "variance": False, "eps": 0.1, "sandwich": False,
}  # fmt: skip
LUMINA2: dict[str, Any] = {
    "depth": 1, "refiners": 0, "width": 48, "heads": 2, "kv_heads": 1, "hidden": 32, "channels": 8, "patch": 1, "text_width": 16,
    "axes": (4, 2, 2), "eps": 0.1,
}  # fmt: skip
UNET: dict[str, Any] = {
    "channels": 8, "widths": (16, 16), "down": ((0,), (2,)), "middle": 0, "up": ((1, 2), (0, 0)), "heads": (2, 2), "attention": "prefix",
    "resample": "residual", "scale_shift": True, "text_width": 16, "pooled_width": 7, "sizes": ("aesthetic",), "sizes_width": 4,
    "image_width": 0, "image_tokens": 3, "variance": True, "groups": 8, "eps": 0.1, "pointwise": True,
}  # fmt: skip
DIT: dict[str, Any] = {
    "depth": 1, "width": 48, "heads": 4, "classes": 9, "channels": 8, "patch": 1, "mlp_ratio": 2, "span": 8.0, "variance": False,
    "bias": False, "gelu": "none", "eps": 0.1, "affine": True, "closed": True, "attention": "linear+v",
}  # fmt: skip
SANA: dict[str, Any] = {
    "depth": 1, "width": 48, "heads": 4, "cross_heads": 4, "hidden": 16, "channels": 8, "patch": 1, "text_width": 16, "bias": True,
    "qk_norm": True, "affine": True, "eps": 0.1, "span": 4.0, "time_scale": 1.0, "guided": False, "guidance_scale": 1.0,
}  # fmt: skip
MICRODIT: dict[str, Any] = {
    "depth": 3, "width": 32, "head": 8, "channels": 8, "patch": 1, "text_width": 16, "span": 8.0, "attention_ratio": (1.0, 0.5),
    "mlp_ratio": (2.0, 1.0), "mixer_depth": 0, "mixer_width": 24, "experts": 0, "capacity": 1.0, "multiple": 48,
}  # fmt: skip
ASCAN: dict[str, Any] = {
    "channels": 8, "widths": (16, 8), "layout": "CT-TT-C-CT-CT", "head": 8, "text_width": 16, "text_blocks": 0, "text_heads": 1,
    "mlp_ratio": 2, "expand": 2, "squeeze": 0.5, "groups": 2, "activated": False, "rotary": False, "strict": False,
}  # fmt: skip
HIDREAM: dict[str, Any] = {
    "dual": 2, "single": 1, "width": 48, "heads": 1, "channels": 8, "patch": 4, "axes": (4, 8, 4), "text_width": 16, "tap_width": 4,
    "pooled_width": 8, "taps": (1, 0, 1), "experts": 0, "active": 1, "balance": 0.5, "filled": 0,
}  # fmt: skip
UNIDIFFUSER: dict[str, Any] = {
    "depth": 4, "width": 64, "heads": 1, "channels": 8, "patch": 1, "grid": 2, "words": 9, "text_width": 16, "clip_width": 8,
    "mlp_ratio": 2, "bias": True, "kinds": False,
}  # fmt: skip
# Sizes that belong together are refused one by one.
TOGETHER = {(c, n) for c in (FluxConfig, Lumina2Config, HiDreamConfig) for n in ("width", "heads")}
TOGETHER |= {(PixArtConfig, "attention"), (HiDreamConfig, "dual"), (HiDreamConfig, "single")}


@pytest.mark.parametrize(
    ("plain", "knobs"),
    [
        (MMDiTConfig(depth=3, width=32, heads=2, channels=4, text_width=12, pooled_width=6, base_grid=4), MMDIT),
        (FluxConfig(dual=2, single=1, width=16, heads=1, channels=4, axes=(4, 6, 6), text_width=12, pooled_width=6), FLUX),
        (UViTConfig(depth=2, width=32, heads=2, channels=4, grid=4, words=8, text_width=12), UVIT),
        (PixArtConfig(depth=3, width=24, heads=2, channels=4, text_width=12, span=4.0, compress=(0,)), PIXART),
        (DiTConfig(depth=2, width=24, heads=2, classes=5, span=4.0), DIT),
        (SanaConfig(depth=2, width=24, heads=2, cross_heads=2, hidden=32, channels=4, patch=2, text_width=12, guided=True), SANA),
        (
            MicroDiTConfig(depth=4, width=24, head=4, text_width=12, span=4.0, mixer_depth=2, mixer_width=16, experts=4, multiple=8),
            MICRODIT,
        ),
        (AsCANConfig(widths=(8, 16), layout="CC-CT-T-CT-CC", head=4, text_width=12, text_blocks=1, text_heads=2, groups=4), ASCAN),
        (NextDiTConfig(depth=2, width=32, heads=4, kv_heads=2, hidden=48, text_width=12), NEXTDIT),
        (
            UNetConfig(
                widths=(8, 16),
                down=((0,), (1,)),
                middle=1,
                up=((1, 1), (0, 0)),
                heads=(2, 4),
                groups=4,
                text_width=12,
                pooled_width=6,
                sizes_width=8,
                image_width=5,
                image_tokens=2,
            ),
            UNET,
        ),
        (
            HiDreamConfig(
                dual=1,
                single=2,
                width=32,
                heads=2,
                channels=4,
                axes=(8, 4, 4),
                text_width=12,
                tap_width=8,
                pooled_width=6,
                taps=(0, 1, 1),
                filled=24,
            ),
            HIDREAM,
        ),
        (UniDiffuserConfig(depth=2, width=32, heads=2, grid=4, words=5, text_width=12, clip_width=6), UNIDIFFUSER),
        (Lumina2Config(depth=2, refiners=1, width=32, heads=4, kv_heads=2, hidden=48, channels=4, text_width=12, axes=(2, 2, 4)), LUMINA2),
    ],
)
def test_every_field_of_a_network(plain: Any, knobs: dict[str, Any]) -> None:
    assert {f.name for f in fields(plain)} == set(knobs)
    for name, value in knobs.items():
        try:
            turned = replace(plain, **{name: value})
        except ConfigError:
            assert (type(plain), name) in TOGETHER, name
            continue
        if name == "pointwise":  # how it is published, not what it computes
            assert _answer(plain) == _answer(turned) and of_family("UNet").rules(plain) != of_family("UNet").rules(turned)
        elif (type(plain), name) != (AsCANConfig, "strict"):  # changes what is accepted: tests/backbones/test_ascan.py
            assert _answer(plain) != _answer(turned), name


def _answer(config: Any) -> tuple[Any, ...]:
    """The shapes of the weights and what the network says, every weight drawn from its place in the list."""
    net = next(f for f in map(backbones.get, backbones) if f.config is type(config)).network(config)
    with torch.no_grad():
        for index, parameter in enumerate(net.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) * 0.2)
        with torch.enable_grad():  # where losses are made
            out = net(_streams(config, net.inputs), _conditions(config, net.slots))
    shapes = tuple(sorted((n, tuple(p.shape)) for n, p in net.named_parameters()))
    # The same prediction may weigh more in the loss.
    return shapes, out.pred["image"].flatten()[:4].tolist(), [float(x.detach()) for x in out.aux.values()]


def _streams(config: Any, names: tuple[str, ...]) -> dict[str, Stream]:
    t = torch.tensor([0.5])
    # A picture that is no square: some networks fill it up.
    of_captions = (
        {"clip": (1, getattr(config, "clip_width", 0)), "text": (getattr(config, "words", 0), config.text_width)} if names[1:] else {}
    )
    streams = {"image": Stream(torch.ones(1, config.channels, 4, 8 if hasattr(config, "filled") else 4), t=t)}
    return streams | {name: Stream(torch.ones(1, *shape), t=t) for name, shape in of_captions.items()}


def _conditions(config: Any, slots: frozenset[str]) -> Conditions:
    def words(width: int) -> Tokens:
        return Tokens(torch.linspace(0, 1, width).expand(1, 3, width), torch.ones(1, 3, dtype=torch.bool))

    tokens = {"text": getattr(config, "text_width", 1), "taps": getattr(config, "tap_width", 0) * getattr(config, "layers", 0)}
    widths = {"pooled": getattr(config, "pooled_width", 0), "sizes": 3, "image_embedding": getattr(config, "image_width", 0), **SIZES}
    scalars = {"guidance": torch.ones(1), "class": torch.ones(1, dtype=torch.long), "kind": torch.ones(1, dtype=torch.long)}
    return Conditions(
        {n: words(w) for n, w in tokens.items() if n in slots},
        {n: torch.ones(1, w) for n, w in widths.items() if n in slots},
        {n: v for n, v in scalars.items() if n in slots},
    )
