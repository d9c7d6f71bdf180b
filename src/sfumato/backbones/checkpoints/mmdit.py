"""SD3 and SD3.5 as diffusers' `SD3Transformer2DModel`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...core.denoiser import Meaning
from ...core.errors import ConfigError
from ...nn.positions import sincos_2d
from ..mmdit import MMDiTConfig
from . import SWAPPED, Format, Rule, numbered, refuse_channels, rule, trained_side

_ATTENTION = "blocks.{i}.attention.core.projections"
_IMAGE = tuple(
    rule(f"transformer_blocks.{{i}}.{theirs}", f"{_ATTENTION}.image.{ours}")
    for theirs, ours in (
        ("attn.to_q", "q"),
        ("attn.to_k", "k"),
        ("attn.to_v", "v"),
        ("attn.to_out.0", "out"),
        ("attn.norm_q", "q_norm"),
        ("attn.norm_k", "k_norm"),
    )
)
_DUAL = tuple(Rule(r.theirs.replace("attn.", "attn2."), tuple(o.replace("attention.core", "picture.core") for o in r.ours)) for r in _IMAGE)
_TEXT = tuple(
    rule(f"transformer_blocks.{{i}}.attn.{theirs}", f"{_ATTENTION}.text.{ours}")
    for theirs, ours in (
        ("add_q_proj", "q"),
        ("add_k_proj", "k"),
        ("add_v_proj", "v"),
        ("norm_added_q", "q_norm"),
        ("norm_added_k", "k_norm"),
    )
)
_ALL = (
    *_IMAGE,
    *_TEXT,
    rule("transformer_blocks.{i}.ff.net.0.proj", "blocks.{i}.mlp.core.image.up"),
    rule("transformer_blocks.{i}.ff.net.2", "blocks.{i}.mlp.core.image.down"),
)
_NOT_LAST = (
    rule("transformer_blocks.{i}.attn.to_add_out", f"{_ATTENTION}.text.out"),
    rule("transformer_blocks.{i}.ff_context.net.0.proj", "blocks.{i}.mlp.core.text.up"),
    rule("transformer_blocks.{i}.ff_context.net.2", "blocks.{i}.mlp.core.text.down"),
)
_ROOT = (
    rule("pos_embed.proj", "patch.proj"),
    rule("context_embedder", "text"),
    rule("time_text_embed.timestep_embedder.linear_1", "time.mlp.up"),
    rule("time_text_embed.timestep_embedder.linear_2", "time.mlp.down"),
    rule("time_text_embed.text_embedder.linear_1", "pooled.up"),
    rule("time_text_embed.text_embedder.linear_2", "pooled.down"),
    rule("norm_out.linear", "final_modulation.linear", order=SWAPPED),
    rule("proj_out", "final"),
)


def _modulation(block: int, config: MMDiTConfig) -> tuple[Rule, ...]:
    def ours(*names: str) -> tuple[str, ...]:
        return tuple(f"blocks.{block}.{name}.linear" for name in names)

    image = ["attention.modulation.image", "mlp.modulation.image"] + (["picture.modulation.image"] if block in config.dual else [])
    last = block == config.depth - 1
    text = ["attention.modulation.text"] + ([] if last else ["mlp.modulation.text"])
    theirs = f"transformer_blocks.{block}"
    return (
        Rule(f"{theirs}.norm1.linear", ours(*image)),
        Rule(f"{theirs}.norm1_context.linear", ours(*text), SWAPPED if last else ()),
    )


def _rules(config: MMDiTConfig) -> tuple[Rule, ...]:
    modulations = tuple(r for i in range(config.depth) for r in _modulation(i, config))
    dual = tuple(r for i in config.dual for r in numbered(_DUAL, i + 1)[-len(_DUAL) :])
    return _ROOT + numbered(_ALL, config.depth) + numbered(_NOT_LAST, config.depth - 1) + modulations + dual


_ORIGINAL_ROOT = (
    rule("x_embedder.proj", "patch.proj"),
    rule("context_embedder", "text"),
    *(
        rule(f"{theirs}.mlp.{layer}", f"{ours}.{part}")
        for theirs, ours in (("t_embedder", "time.mlp"), ("y_embedder", "pooled"))
        for layer, part in ((0, "up"), (2, "down"))
    ),
    rule("final_layer.adaLN_modulation.1", "final_modulation.linear"),
    rule("final_layer.linear", "final"),
)


def _original_block(i: int, config: MMDiTConfig) -> tuple[Rule, ...]:
    found: list[Rule] = []
    for stream, side in (("image", "x_block"), ("text", "context_block")):
        there, here, silent = f"joint_blocks.{i}.{side}", f"blocks.{i}", stream == "text" and i == config.depth - 1
        dual = stream == "image" and i in config.dual
        for theirs, branch in (("attn", "attention"), *((("attn2", "picture"),) if dual else ())):
            projections = f"{here}.{branch}.core.projections.{stream}"
            found.append(Rule(f"{there}.{theirs}.qkv", tuple(f"{projections}.{part}" for part in "qkv")))
            found += [] if silent else [Rule(f"{there}.{theirs}.proj", (f"{projections}.out",))]
        branches = ("attention", *(() if silent else ("mlp",)), *(("picture",) if dual else ()))
        found.append(Rule(f"{there}.adaLN_modulation.1", tuple(f"{here}.{b}.modulation.{stream}.linear" for b in branches)))
        if not silent:
            found += [Rule(f"{there}.mlp.{t}", (f"{here}.mlp.core.{stream}.{o}",)) for t, o in (("fc1", "up"), ("fc2", "down"))]
    return tuple(found)


def _originals(config: MMDiTConfig) -> tuple[Rule, ...]:
    return _ORIGINAL_ROOT + tuple(r for i in range(config.depth) for r in _original_block(i, config))


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    heads, channels, patch = theirs.get("num_attention_heads", 18), theirs.get("in_channels", 16), theirs.get("patch_size", 2)
    width = heads * theirs.get("attention_head_dim", 64)
    if (caption := theirs.get("caption_projection_dim", 1152)) != width:
        raise ConfigError(f"caption_projection_dim is {caption} and the blocks are {width} wide", "text and image streams share a width")
    refuse_channels(channels, theirs.get("out_channels", channels))
    return {
        "width": width,
        "base_grid": trained_side(theirs, 128) // patch,
        "table_grid": theirs.get("pos_embed_max_size", 96),
        "qk_norm": theirs.get("qk_norm") == "rms_norm",
        "dual": tuple(theirs.get("dual_attention_layers", ())),
    }


def _off(config: MMDiTConfig, stored: Tensor) -> float:
    """How far their table (1, side^2, width) lies from ours; row by row, for it may take a gigabyte."""
    side, half = config.table_grid or config.base_grid, config.width // 2
    if tuple(stored.shape) != (1, side**2, config.width):
        return math.inf
    line = sincos_2d(1, side, config.width, config.base_grid, "crop", side)[:, :half]
    rows = stored.reshape(side, side, config.width)
    return max(
        float((row.float() - torch.cat([line, place.expand(side, -1)], dim=1)).abs().max()) for row, place in zip(rows, line, strict=True)
    )


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    if ours["positions"] != "crop" or ours["mlp_ratio"] != 4:
        raise ConfigError(
            f"diffusers' SD3 crops its positions and has an mlp_ratio of 4, not {ours['positions']!r} and {ours['mlp_ratio']}",
            "save in sfumato's own format",
        )
    return {
        "attention_head_dim": ours["width"] // ours["heads"],
        "caption_projection_dim": ours["width"],
        "sample_size": ours["base_grid"] * ours["patch"],
        "pos_embed_max_size": ours["table_grid"] or ours["base_grid"],
        "out_channels": ours["channels"],
        "qk_norm": "rms_norm" if ours["qk_norm"] else None,
        "dual_attention_layers": list(ours["dual"]),
    }


FORMAT = Format(
    class_name="SD3Transformer2DModel",
    family="MMDiT",
    rules=_rules,
    fields={
        "num_layers": "depth",
        "num_attention_heads": "heads",
        "in_channels": "channels",
        "patch_size": "patch",
        "joint_attention_dim": "text_width",
        "pooled_projection_dim": "pooled_width",
    },
    fixed={"qk_norm": (None, "rms_norm")},
    derive=_derive,
    describe=_describe,
    derives=frozenset(
        {
            "attention_head_dim",
            "caption_projection_dim",
            "sample_size",
            "pos_embed_max_size",
            "out_channels",
            "dual_attention_layers",
        }
    ),
    tables={"pos_embed.pos_embed": _off},
    originals=_originals,
    meaning=Meaning(),
)
