"""PixArt-alpha and -Sigma as diffusers' `PixArtTransformer2DModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.denoiser import Meaning
from ...core.discrete import Betas
from ...core.errors import ConfigError
from ..pixart import PixArtConfig
from . import UNUSED, Format, Rule, numbered, refuse_channels, rule, trained_side

_ATTENTION = tuple(
    rule(f"transformer_blocks.{{i}}.{theirs}.{part}", f"blocks.{{i}}.{ours}.{own}")
    for theirs, ours in (("attn1", "attention.core.projections.image"), ("attn2", "cross.core"))
    for part, own in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "out"))
)
_BLOCK = (
    *_ATTENTION,
    rule("transformer_blocks.{i}.scale_shift_table", "blocks.{i}.attention.modulation.table", "blocks.{i}.mlp.modulation.table"),
    rule("transformer_blocks.{i}.ff.net.0.proj", "blocks.{i}.mlp.core.up"),
    rule("transformer_blocks.{i}.ff.net.2", "blocks.{i}.mlp.core.down"),
)
_ROOT = (
    rule("pos_embed.proj", "patch.proj"),
    rule("caption_projection.linear_1", "text.up"),
    rule("caption_projection.linear_2", "text.down"),
    rule("adaln_single.emb.timestep_embedder.linear_1", "time.mlp.up"),
    rule("adaln_single.emb.timestep_embedder.linear_2", "time.mlp.down"),
    rule("adaln_single.emb.resolution_embedder.linear_1", "resolution.up"),
    rule("adaln_single.emb.resolution_embedder.linear_2", "resolution.down"),
    rule("adaln_single.emb.aspect_ratio_embedder.linear_1", "aspect.up"),
    rule("adaln_single.emb.aspect_ratio_embedder.linear_2", "aspect.down"),
    rule("adaln_single.linear", "shared"),
    rule("scale_shift_table", "final_modulation.table"),
    rule("proj_out", "final"),
)


def _rules(config: PixArtConfig) -> tuple[Rule, ...]:
    return _ROOT + numbered(_BLOCK, config.depth)


_ORIGINAL_BLOCK = (
    rule("blocks.{i}.attn.qkv", *(f"blocks.{{i}}.attention.core.projections.image.{part}" for part in "qkv")),
    rule("blocks.{i}.attn.proj", "blocks.{i}.attention.core.projections.image.out"),
    rule("blocks.{i}.cross_attn.q_linear", "blocks.{i}.cross.core.q"),
    rule("blocks.{i}.cross_attn.kv_linear", "blocks.{i}.cross.core.k", "blocks.{i}.cross.core.v"),
    rule("blocks.{i}.cross_attn.proj", "blocks.{i}.cross.core.out"),
    rule("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.core.up"),
    rule("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.core.down"),
)
_ORIGINAL_ROOT = (
    rule("x_embedder.proj", "patch.proj"),
    *(
        rule(f"{theirs}.{layer}", f"{ours}.{part}")
        for theirs, ours, layers in (
            ("t_embedder.mlp", "time.mlp", "02"),
            ("csize_embedder.mlp", "resolution", "02"),
            ("ar_embedder.mlp", "aspect", "02"),
            ("y_embedder.y_proj", "text", ("fc1", "fc2")),
        )
        for layer, part in zip(layers, ("up", "down"), strict=True)
    ),
    rule("t_block.1", "shared"),
    rule("final_layer.linear", "final"),
)


def _originals(config: PixArtConfig) -> tuple[Rule, ...]:
    return _ORIGINAL_ROOT + numbered(_ORIGINAL_BLOCK, config.depth)


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    heads, channels, side = theirs.get("num_attention_heads", 16), theirs.get("in_channels", 4), trained_side(theirs, 128)
    patch, out = theirs.get("patch_size", 2), theirs.get("out_channels", 8)
    width = heads * theirs.get("attention_head_dim", 72)
    if (cross := theirs.get("cross_attention_dim", 1152)) != width:
        raise ConfigError(f"cross_attention_dim is {cross} and the blocks are {width} wide", "captions are projected to the blocks' width")
    refuse_channels(channels, out, variance=True)
    # diffusers' own defaults where the config leaves these open.
    scale, sizes = theirs.get("interpolation_scale"), theirs.get("use_additional_conditions")
    return {
        "width": width,
        "span": side // patch / (max(side // 64, 1) if scale is None else scale),
        "sizes": side == 128 if sizes is None else bool(sizes),
        "variance": out == 2 * channels,
    }


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    if ours["attention"] != "softmax":
        raise ConfigError(f"diffusers' PixArt has softmax attention, not {ours['attention']!r}", "save in sfumato's own format")
    if ours["compress"]:
        raise ConfigError("diffusers' PixArt has no compressed keys and values", "save in sfumato's own format")
    if ours["mlp_ratio"] != 4:
        raise ConfigError(f"diffusers' PixArt has an mlp_ratio of 4, not {ours['mlp_ratio']}", "save in sfumato's own format")
    # Only side / patch / scale matters: a scale of 1 on a grid of `span` tokens says the same.
    side = round(ours["span"]) * ours["patch"]
    return {
        "attention_head_dim": ours["width"] // ours["heads"],
        "cross_attention_dim": ours["width"],
        "sample_size": side,
        "interpolation_scale": side / ours["patch"] / ours["span"],
        "use_additional_conditions": ours["sizes"],
        "out_channels": ours["channels"] * (2 if ours["variance"] else 1),
    }


FORMAT = Format(
    class_name="PixArtTransformer2DModel",
    family="PixArt",
    rules=_rules,
    fields={
        "num_layers": "depth",
        "num_attention_heads": "heads",
        "in_channels": "channels",
        "patch_size": "patch",
        "caption_channels": "text_width",
    },
    fixed={
        "activation_fn": ("gelu-approximate",),
        "attention_bias": (True,),
        "attention_type": ("default", None),
        "dropout": (0.0,),
        "norm_elementwise_affine": (False,),
        "norm_eps": (1e-6,),
        "norm_type": ("ada_norm_single",),
        "num_embeds_ada_norm": (1000,),
        "norm_num_groups": (32,),
        "upcast_attention": (False,),
    },
    derive=_derive,
    describe=_describe,
    derives=frozenset(
        {"attention_head_dim", "cross_attention_dim", "sample_size", "interpolation_scale", "use_additional_conditions", "out_channels"}
    ),
    former=UNUSED,
    # The former class kept the caption of dropped rows, which training alone reads.
    ignored=frozenset({"pos_embed.pos_embed", "caption_projection.y_embedding"}),
    originals=_originals,
    # As trained; a pipeline's scheduler may say otherwise of a fine-tuned one.
    meaning=Meaning("eps", Betas(), "steps"),
)
