"""DiT as diffusers' `DiTTransformer2DModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.denoiser import Meaning
from ...core.discrete import Betas
from ...core.errors import ConfigError
from ..dit import DiTConfig
from . import UNUSED, Format, Rule, numbered, refuse_channels, rule, trained_side

_GELU = {"gelu-approximate": "tanh", "gelu": "none"}
_BLOCK = (
    *(
        rule(f"transformer_blocks.{{i}}.attn1.{theirs}", f"blocks.{{i}}.attention.core.projections.image.{ours}")
        for theirs, ours in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "out"))
    ),
    rule("transformer_blocks.{i}.norm1.linear", "blocks.{i}.attention.modulation.linear", "blocks.{i}.mlp.modulation.linear"),
    rule("transformer_blocks.{i}.norm3", "blocks.{i}.mlp.norm"),
    rule("transformer_blocks.{i}.ff.net.0.proj", "blocks.{i}.mlp.core.up"),
    rule("transformer_blocks.{i}.ff.net.2", "blocks.{i}.mlp.core.down"),
)
_ROOT = (
    rule("pos_embed.proj", "patch.proj"),
    rule("proj_out_1", "final_modulation.linear"),
    rule("proj_out_2", "final"),
)
# One embedding of time and class serves all blocks and the head; they keep it once a block.
_EMBEDDING = (
    ("timestep_embedder.linear_1", "time.mlp.up"),
    ("timestep_embedder.linear_2", "time.mlp.down"),
    ("class_embedder.embedding_table", "classes"),
)


def _rules(config: DiTConfig) -> tuple[Rule, ...]:
    def places(name: str) -> tuple[str, ...]:
        return tuple(f"transformer_blocks.{i}.norm1.emb.{name}" for i in range(config.depth))

    shared = tuple(rule(places(theirs)[0], ours, copies=places(theirs)[1:]) for theirs, ours in _EMBEDDING)
    return _ROOT + shared + numbered(_BLOCK, config.depth)


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    channels, activation = theirs.get("in_channels", 4), theirs.get("activation_fn", "gelu-approximate")
    refuse_channels(channels, out := theirs.get("out_channels"), variance=True)
    if activation not in _GELU:
        raise ConfigError(f"activation_fn is {activation!r}", f"supported: {', '.join(map(repr, _GELU))}")
    return {
        "width": theirs.get("num_attention_heads", 16) * theirs.get("attention_head_dim", 72),
        "span": float(trained_side(theirs, 32) // theirs.get("patch_size", 2)),
        "variance": out == 2 * channels,
        "gelu": _GELU[activation],
        "closed": True,
    }


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    if ours["attention"] != "softmax":
        raise ConfigError(f"diffusers' DiT has softmax attention, not {ours['attention']!r}", "save in sfumato's own format")
    if ours["mlp_ratio"] != 4 or not ours["closed"] or ours["span"] != round(ours["span"]):
        raise ConfigError(
            "diffusers' DiT has an mlp_ratio of 4, closed rates of time and a whole span, "
            f"not {ours['mlp_ratio']}, closed = {ours['closed']} and {ours['span']}",
            "save in sfumato's own format",
        )
    return {
        "attention_head_dim": ours["width"] // ours["heads"],
        "sample_size": round(ours["span"]) * ours["patch"],
        "out_channels": ours["channels"] * (2 if ours["variance"] else 1),
        "activation_fn": {v: k for k, v in _GELU.items()}[ours["gelu"]],
    }


FORMAT = Format(
    class_name="DiTTransformer2DModel",
    family="DiT",
    rules=_rules,
    fields={
        "num_layers": "depth",
        "num_attention_heads": "heads",
        "num_embeds_ada_norm": "classes",
        "in_channels": "channels",
        "patch_size": "patch",
        "attention_bias": "bias",
        "norm_eps": "eps",
        "norm_elementwise_affine": "affine",
    },
    fixed={
        "dropout": (0.0,),
        "norm_num_groups": (32,),
        "norm_type": ("ada_norm_zero",),
        "upcast_attention": (False,),
    },
    derive=_derive,
    describe=_describe,
    derives=frozenset({"attention_head_dim", "sample_size", "out_channels", "activation_fn"}),
    former={
        **UNUSED,
        **dict.fromkeys(("cross_attention_dim", "caption_channels", "interpolation_scale", "use_additional_conditions"), (None,)),
        "attention_type": ("default",),
    },
    later={"norm_eps": 1e-5},
    ignored=frozenset({"pos_embed.pos_embed"}),
    # As trained; a pipeline's scheduler may say otherwise of a fine-tuned one.
    meaning=Meaning("eps", Betas(), "steps"),
)
