"""UniDiffuser as diffusers' `UniDiffuserModel`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...core.denoiser import Meaning
from ...core.discrete import Betas
from ...core.errors import ConfigError
from ..unidiffuser import UniDiffuserConfig
from . import Format, Rule, rule, trained_side

_ROOT = (
    rule("vae_img_in.proj", "patch.proj"),
    rule("clip_img_in", "clip"),
    rule("text_in", "text"),
    rule("pos_embed", "positions"),
    rule("transformer.norm_out", "final_norm"),
    rule("vae_img_out", "final"),
    rule("clip_img_out", "final_clip"),
    rule("text_out", "final_text"),
)
_KINDS = (rule("data_type_token_embedding", "kinds"), rule("data_type_pos_embed_token", "kind_position"))
_BLOCK = tuple(
    rule(theirs, ours)
    for theirs, ours in (
        ("attn1.to_q", "attention.core.projections.any.q"),
        ("attn1.to_k", "attention.core.projections.any.k"),
        ("attn1.to_v", "attention.core.projections.any.v"),
        ("attn1.to_out.0", "attention.core.projections.any.out"),
        ("norm1", "attention.norm"),
        ("norm3", "mlp.norm"),
        ("ff.net.0.proj", "mlp.core.up"),
        ("ff.net.2", "mlp.core.down"),
    )
)
_SKIP = (rule("skip_linear", "linear"), rule("norm", "norm"))


def _rules(config: UniDiffuserConfig) -> tuple[Rule, ...]:
    """Blocks in, one in the middle, blocks out with a skip before each: in our program every skip is an item of its own."""
    half = config.depth // 2
    places = [(f"transformer_in_blocks.{i}", 2 * i, _BLOCK) for i in range(half)]
    places.append(("transformer_mid_block", 2 * half, _BLOCK))
    for i in range(half):
        here = 2 * half + 1 + 2 * i
        places += [(f"transformer_out_blocks.{i}.skip", here, _SKIP), (f"transformer_out_blocks.{i}.block", here + 1, _BLOCK)]
    blocks = tuple(
        replace(r, theirs=f"transformer.{there}.{r.theirs}", ours=tuple(f"blocks.{here}.{o}" for o in r.ours))
        for there, here, rules in places
        for r in rules
    )
    return _ROOT + (_KINDS if config.kinds else ()) + blocks


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    channels, patch, side = theirs.get("in_channels"), theirs.get("patch_size"), trained_side(theirs, 0)
    if not (channels and patch and side) or theirs.get("out_channels") != channels:
        raise ConfigError(
            f"in_channels = {channels}, out_channels = {theirs.get('out_channels')}, patch_size = {patch}, sample_size = {side}",
            "numbers, as many channels out as in",
        )
    layers = theirs.get("num_layers", 1)
    # An odd number is rounded down there, as the middle block is beside them.
    return {
        "depth": layers - layers % 2,
        "width": theirs.get("num_attention_heads", 16) * theirs.get("attention_head_dim", 88),
        "grid": side // patch,
    }


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    if ours["mlp_ratio"] != 4:
        raise ConfigError(f"diffusers' UniDiffuser has an mlp_ratio of 4, not {ours['mlp_ratio']}", "save in sfumato's own format")
    return {
        "num_layers": ours["depth"],
        "attention_head_dim": ours["width"] // ours["heads"],
        "sample_size": ours["grid"] * ours["patch"],
        "out_channels": ours["channels"],
    }


FORMAT = Format(
    class_name="UniDiffuserModel",
    family="UniDiffuser",
    component="unet",
    rules=_rules,
    fields={
        "num_attention_heads": "heads",
        "in_channels": "channels",
        "patch_size": "patch",
        "num_text_tokens": "words",
        "text_dim": "text_width",
        "clip_img_dim": "clip_width",
        "attention_bias": "bias",
        "use_data_type_embedding": "kinds",
    },
    fixed={
        "dropout": (0.0,),
        "norm_num_groups": (32,),
        "cross_attention_dim": (None,),
        "num_vector_embeds": (None,),
        "activation_fn": ("gelu",),
        # Read by a norm that is none of these.
        "num_embeds_ada_norm": (None, 1000),
        "use_linear_projection": (False,),
        "only_cross_attention": (False,),
        "upcast_attention": (False,),
        "norm_type": ("layer_norm",),
        "block_type": ("unidiffuser",),
        "pre_layer_norm": (False,),
        "use_timestep_embedding": (False,),
        "norm_elementwise_affine": (True,),
        "use_patch_pos_embed": (False,),
        "ff_final_dropout": (True,),
    },
    derive=_derive,
    describe=_describe,
    derives=frozenset({"num_layers", "attention_head_dim", "sample_size", "out_channels"}),
    unread={"transformer.pos_embed.proj.weight": ("width", "channels", "patch", "patch"), "transformer.pos_embed.proj.bias": ("width",)},
    # The original's step counts from 1, so that 0 is the data and N says nothing: t itself. Their pipeline tells a step less.
    meaning=Meaning("eps", Betas("scaled_linear", 0.00085, 0.012)),
)
