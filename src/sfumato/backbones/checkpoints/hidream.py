"""HiDream-I1 as diffusers' `HiDreamImageTransformer2DModel`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...core.denoiser import Meaning
from ...core.errors import ConfigError
from ..hidream import HiDreamConfig
from . import Format, Rule, refuse_channels, rule

# Their suffix for the text's half of a dual block's attention, and ours.
_ATTENTION = (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out", "out"), ("q_rms_norm", "q_norm"), ("k_rms_norm", "k_norm"))
_SWIGLU = (("w1", "gate"), ("w2", "down"), ("w3", "up"))
_ROOT = (
    rule("x_embedder.proj", "patch"),
    rule("t_embedder.timestep_embedder.linear_1", "time.mlp.up"),
    rule("t_embedder.timestep_embedder.linear_2", "time.mlp.down"),
    rule("p_embedder.pooled_embedder.linear_1", "pooled.up"),
    rule("p_embedder.pooled_embedder.linear_2", "pooled.down"),
    rule("final_layer.adaLN_modulation.1", "final_modulation.linear"),
    rule("final_layer.linear", "final"),
)


def _swiglu(theirs: str, ours: str) -> tuple[Rule, ...]:
    return tuple(Rule(f"{theirs}.{t}", (f"{ours}.{o}",)) for t, o in _SWIGLU)


def _mixture(theirs: str, ours: str, experts: int) -> tuple[Rule, ...]:
    if not experts:
        return _swiglu(theirs, ours)
    routed = (r for e in range(experts) for r in _swiglu(f"{theirs}.experts.{e}", f"{ours}.experts.{e}"))
    return (rule(f"{theirs}.gate", f"{ours}.router"), *routed, *_swiglu(f"{theirs}.shared_experts", f"{ours}.shared"))


def _block(theirs: str, ours: str, roles: Mapping[str, str], experts: int) -> tuple[Rule, ...]:
    """`roles`: ours, each with their suffix."""
    attention = (
        Rule(f"{theirs}.attn1.{t}{suffix}", (f"{ours}.attention.core.projections.{role}.{o}",))
        for role, suffix in roles.items()
        for t, o in _ATTENTION
    )
    modulation = tuple(f"{ours}.{branch}.modulation.{role}.linear" for role in roles for branch in ("attention", "mlp"))
    first, *others = (f"{ours}.mlp.core.{role}" for role in roles)
    dense = (r for other in others for r in _swiglu(f"{theirs}.ff_t", other))
    return (*attention, Rule(f"{theirs}.adaLN_modulation.1", modulation), *_mixture(f"{theirs}.ff_i", first, experts), *dense)


def _rules(config: HiDreamConfig) -> tuple[Rule, ...]:
    """Block k of theirs is item 2 k + 2 of our program, behind its tap; the last tap is projected at the root, the text after it."""
    count = config.dual + config.single
    blocks: list[Rule] = []
    for k in range(count):
        dual = k < config.dual
        there = f"double_stream_blocks.{k}.block" if dual else f"single_stream_blocks.{k - config.dual}.block"
        blocks += _block(there, f"blocks.{2 * k + 2}", {"image": "", "text": "_t"} if dual else {"any": ""}, config.experts)
    taps = (f"blocks.{2 * k + 1}.linear" for k in range(count - 1))
    captions = tuple(Rule(f"caption_projection.{k}.linear", (ours,)) for k, ours in enumerate((*taps, "last", "text")))
    return _ROOT + captions + tuple(blocks)


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    channels, patch = theirs["in_channels"], theirs["patch_size"]
    refuse_channels(channels, theirs.get("out_channels"))
    if len(captions := tuple(theirs.get("caption_channels") or ())) != 2:
        raise ConfigError(f"caption_channels are {captions}", "two numbers: the width of T5's states and of the language model's")
    if not (taps := tuple(theirs.get("llama_layers") or ())):
        raise ConfigError("llama_layers are missing", "a layer of the language model for each block")
    return {
        "width": theirs["num_attention_heads"] * theirs.get("attention_head_dim", 128),
        "axes": tuple(theirs.get("axes_dims_rope", (32, 32))),
        "text_width": captions[0],
        "tap_width": captions[1],
        "taps": taps,
        "filled": math.prod(theirs.get("max_resolution", (128, 128))) // patch**2,
    }


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    patch, filled = ours["patch"], ours["filled"]
    if not filled or ours["balance"] != HiDreamConfig.balance:
        raise ConfigError(
            f"diffusers' HiDream fills up pictures and has a balance of {HiDreamConfig.balance}, not filled = {filled} and "
            f"balance = {ours['balance']}",
            "save in sfumato's own format",
        )
    side = math.isqrt(filled)
    return {
        "attention_head_dim": ours["width"] // ours["heads"],
        "out_channels": None,
        "caption_channels": [ours["text_width"], ours["tap_width"]],
        "axes_dims_rope": list(ours["axes"]),
        "llama_layers": list(ours["taps"]),
        # Only the product is read.
        "max_resolution": [side * patch, side * patch] if side**2 == filled else [filled * patch, patch],
    }


FORMAT = Format(
    class_name="HiDreamImageTransformer2DModel",
    family="HiDream",
    rules=_rules,
    fields={
        "num_layers": "dual",
        "num_single_layers": "single",
        "num_attention_heads": "heads",
        "in_channels": "channels",
        "patch_size": "patch",
        "text_emb_dim": "pooled_width",
        "num_routed_experts": "experts",
        "num_activated_experts": "active",
    },
    # Their two ways to compute experts, with and without gradients, answer alike.
    fixed={"force_inference_output": (False, True)},
    derive=_derive,
    describe=_describe,
    derives=frozenset({"attention_head_dim", "out_channels", "caption_channels", "axes_dims_rope", "llama_layers", "max_resolution"}),
    # The first release has the same names.
    originals=_rules,
    meaning=Meaning("velocity"),
)
