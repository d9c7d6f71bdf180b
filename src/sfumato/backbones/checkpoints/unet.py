"""The U-Nets of Stable Diffusion 1, 2 and XL (base and refiner) and of Kandinsky 2.2's decoder as diffusers' `UNet2DConditionModel`.

Names are made along the program (`unet_plan.py`), theirs and those of the first release side by side. Its config says nothing of the pooled
vector and of the sizes behind it but how wide they are together: five numbers (the refiner's) where the pooled vector then is as wide as
the states that are read, six otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...core.denoiser import Meaning
from ...core.discrete import Betas
from ...core.errors import ConfigError
from ..unet_plan import Part, UNetConfig, plan
from . import Format, Rule, rule

BASE, REFINER = ("original_size", "crop", "target_size"), ("original_size", "crop", "aesthetic")

# Theirs, the first release's, ours.
_RESIDUAL = (
    ("norm1", "in_layers.0", "norm"),
    ("conv1", "in_layers.2", "conv"),
    ("norm2", "out_layers.0", "norm_out"),
    ("conv2", "out_layers.3", "conv_out"),
)
_LAYER = (
    *((f"attn1.to_{p}", f"attention.core.projections.image.{p}") for p in "qkv"),
    *((f"attn2.to_{p}", f"cross.core.{p}") for p in "qkv"),
    ("attn1.to_out.0", "attention.core.projections.image.out"),
    ("attn2.to_out.0", "cross.core.out"),
    *((f"norm{i}", f"{branch}.norm") for i, branch in ((1, "attention"), (2, "cross"), (3, "mlp"))),
    ("ff.net.2", "mlp.core.down"),
)
_PREFIX = (
    ("group_norm", "norm"),
    *((f"to_{p}", f"core.own.{p}") for p in "qkv"),
    ("to_out.0", "core.own.out"),
    *((f"add_{p}_proj", f"core.{p}") for p in "kv"),
)
_ROOT = (
    ("conv_in", "input_blocks.0.0", "entry"),
    ("time_embedding.linear_1", "time_embed.0", "time.mlp.up"),
    ("time_embedding.linear_2", "time_embed.2", "time.mlp.down"),
    ("add_embedding.linear_1", "label_emb.0.0", "added.up"),
    ("add_embedding.linear_2", "label_emb.0.2", "added.down"),
    ("add_embedding.image_proj", "", "image_time"),
    ("add_embedding.image_norm", "", "image_time_norm"),
    ("encoder_hid_proj.image_embeds", "", "image_tokens"),
    ("encoder_hid_proj.norm", "", "image_norm"),
    ("conv_norm_out", "out.0", "final_norm"),
    ("conv_out", "out.2", "final"),
)


def _within(part: Part, index: int, there: str, stack: str, first: bool, config: UNetConfig) -> Iterator[Rule]:
    """The rules of one item of the program. there: the name of its residual block or resampler; stack: of what stands behind it.

    first: in the first release's names.
    """
    here = f"blocks.{index}"
    if part.kind == "residual" or (part.kind in ("down", "up") and config.resample == "residual"):
        moved = ("scale", "shift") if config.scale_shift else ("shift",)
        yield from (rule(f"{there}.{(theirs, old)[first]}", f"{here}.residual.{ours}") for theirs, old, ours in _RESIDUAL)
        yield rule(f"{there}.{('time_emb_proj', 'emb_layers.1')[first]}", *(f"{here}.residual.{name}" for name in moved))
        yield Rule(f"{there}.{('conv_shortcut', 'skip_connection')[first]}", (f"{here}.residual.shortcut",), pointwise=True)
    elif part.kind in ("down", "up"):
        yield rule(f"{there}.{'op' if first and part.kind == 'down' else 'conv'}", f"{here}.conv")
    elif part.kind == "enter":
        yield rule(f"{stack}.norm", f"{here}.norm")
        yield Rule(f"{stack}.proj_in", (f"{here}.linear",), pointwise=config.pointwise)
    elif part.kind == "leave":
        yield Rule(f"{stack}.proj_out", (f"{here}.stack.linear",), pointwise=config.pointwise)
    elif part.kind == "layer":
        inside = f"{stack}.transformer_blocks.{part.layer}"
        yield from (rule(f"{inside}.{theirs}", f"{here}.{ours}") for theirs, ours in _LAYER)
        yield rule(f"{inside}.ff.net.0.proj", f"{here}.mlp.core.up", f"{here}.mlp.core.gate")
    elif part.kind == "prefix":
        yield from (rule(f"{stack}.{theirs}", f"{here}.attention.{ours}") for theirs, ours in _PREFIX)


def _rules(config: UNetConfig) -> tuple[Rule, ...]:
    found = [rule(theirs, ours) for theirs, _, ours in _ROOT]
    for index, part in enumerate(plan(config)):
        side = "mid_block" if part.side == "middle" else f"{part.side}_blocks.{part.stage}"
        resampler = f"{side}.{'down' if part.kind == 'down' else 'up'}samplers.0"
        there = resampler if part.kind in ("down", "up") else f"{side}.resnets.{part.pair}"
        found += _within(part, index, there, f"{side}.attentions.{part.pair}", False, config)
    return tuple(found)


def _originals(config: UNetConfig) -> tuple[Rule, ...]:
    """One numbered list down and one up; what is remembered closes an entry, what is joined opens one. Kandinsky's are guided-diffusion's
    and no LoRA of them is known.
    """
    if config.attention == "prefix" or config.resample == "residual":
        return ()
    found = [rule(old, ours) for _, old, ours in _ROOT if old]
    down, up, inside = 0, -1, 0
    for index, part in enumerate(plan(config)):
        down += part.kind == "push"
        up += part.kind == "join"
        inside = 0 if part.kind in ("join", "push") else inside + (part.kind in ("enter", "up"))
        block = {"down": f"input_blocks.{down}", "middle": "middle_block", "up": f"output_blocks.{up}"}[part.side]
        number = 2 * part.pair if part.side == "middle" else inside if part.kind == "up" else 0
        found += _within(part, index, f"{block}.{number}", f"{block}.1", True, config)
    return tuple(found)


# Flags that none of these models sets: diffusers' defaults, which hold where a config leaves them out.
_PLAIN = {
    "act_fn": "silu", "addition_embed_type_num_heads": 64, "attention_type": "default", "center_input_sample": False,
    "class_embed_type": None, "class_embeddings_concat": False, "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_norm": None,
    "downsample_padding": 1, "dropout": 0.0, "dual_cross_attention": False, "flip_sin_to_cos": True, "freq_shift": 0,
    "mid_block_only_cross_attention": None, "mid_block_scale_factor": 1, "num_attention_heads": None, "num_class_embeds": None,
    "only_cross_attention": False, "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False, "time_cond_proj_dim": None,
    "time_embedding_act_fn": None, "time_embedding_dim": None, "time_embedding_type": "positional", "timestep_post_act": None,
}  # fmt: skip
# Those that tell the models apart, with diffusers' defaults.
_SHAPE = {
    "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "attention_head_dim": 8,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"), "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3), "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None, "use_linear_projection": False, "resnet_time_scale_shift": "default",
    "cross_attention_dim": 1280, "encoder_hid_dim": None, "encoder_hid_dim_type": None, "addition_embed_type": None,
    "addition_time_embed_dim": None, "projection_class_embeddings_input_dim": None,
}  # fmt: skip
# Block classes with and without attention, and the middle ones: of a stack's depth, without.
_CLASSES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "stack": {
        "down": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "middle": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
    },
    "prefix": {
        "down": ("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
        "up": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "middle": ("UNetMidBlock2DSimpleCrossAttn",),
    },
}


def _derive(theirs: Mapping[str, Any]) -> dict[str, Any]:
    said = {**_SHAPE, **theirs}
    downs, ups, levels = said["down_block_types"], said["up_block_types"], len(said["down_block_types"])
    attention = "prefix" if set(downs) & set(_CLASSES["prefix"]["down"]) else "stack"
    for side, names in (("down", downs), ("up", ups), ("middle", () if said["mid_block_type"] is None else (said["mid_block_type"],))):
        if strangers := [name for name in names if name not in _CLASSES[attention][side]]:
            raise ConfigError(f"a U-Net of {downs[0]} with a {strangers[0]}", f"supported there: {', '.join(_CLASSES[attention][side])}")
    layers, depths = _listed(said["layers_per_block"], levels), _listed(said["transformer_layers_per_block"], levels)
    heads, deepest = _listed(said["attention_head_dim"], levels), _listed(depths[-1], 1)[0]
    middle = said["mid_block_type"]
    return {
        "widths": tuple(said["block_out_channels"]),
        "down": _depths(downs, depths, layers),
        "middle": None if middle is None else deepest if "CrossAttn" in middle else 0,
        "up": _depths(ups, said["reverse_transformer_layers_per_block"] or depths[::-1], [count + 1 for count in reversed(layers)]),
        # What they call the width of a head is the number of heads, but for Kandinsky.
        "heads": tuple(w // h if attention == "prefix" else h for w, h in zip(said["block_out_channels"], heads, strict=False)),
        "attention": attention,
        "resample": "residual" if attention == "prefix" else "conv",
        "scale_shift": _one_of(said, "resnet_time_scale_shift", ("default", "scale_shift")) == "scale_shift",
        "variance": _variance(said),
        "pointwise": attention == "stack" and not said["use_linear_projection"],
        **_added(said),
    }


def _listed(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


def _depths(kinds: Sequence[str], depths: Sequence[Any], layers: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    each = zip(kinds, depths, layers, strict=False)
    return tuple(tuple(_listed(depth, count)) if "CrossAttn" in kind else (0,) * count for kind, depth, count in each)


def _one_of(said: Mapping[str, Any], name: str, known: tuple[Any, ...]) -> Any:
    if said[name] not in known:
        raise ConfigError(f"UNet2DConditionModel with {name} = {said[name]!r}", f"supported: {', '.join(map(repr, known))}")
    return said[name]


def _variance(said: Mapping[str, Any]) -> bool:
    channels, out = said["in_channels"], said["out_channels"]
    if out not in (channels, 2 * channels):
        raise ConfigError(
            f"in_channels is {channels} and out_channels {out}",
            "as many out as in, or twice as many with a learned variance (inpainting and editing take more in: they are not supported)",
        )
    return bool(out == 2 * channels)


def _added(said: Mapping[str, Any]) -> dict[str, Any]:
    """What is read beside the picture."""
    widths = set(_listed(said["cross_attention_dim"], 1))
    kind, source = _one_of(said, "addition_embed_type", (None, "text_time", "image")), said["encoder_hid_dim_type"]
    if len(widths) > 1:
        raise ConfigError(f"cross_attention_dim is {said['cross_attention_dim']}", "one width for all levels")
    if source != ("image_proj" if kind == "image" else None) or (kind != "image" and said["encoder_hid_dim"] is not None):
        raise ConfigError(
            f"encoder_hid_dim_type is {source!r}, encoder_hid_dim {said['encoder_hid_dim']} and addition_embed_type {kind!r}",
            "None, or for an image embedding (Kandinsky 2.2) 'image_proj' and 'image'",
        )
    read: dict[str, Any] = {"text_width": widths.pop(), "pooled_width": 0, "sizes": (), "image_width": 0}
    if kind == "image":
        return read | {"image_width": said["encoder_hid_dim"], "image_tokens": 32}
    if kind is None:
        return read
    each, whole = said["addition_time_embed_dim"], said["projection_class_embeddings_input_dim"]
    sizes = REFINER if whole - 5 * each == read["text_width"] else BASE
    return read | {"sizes": sizes, "sizes_width": each, "pooled_width": whole - each * (5 if sizes == REFINER else 6)}


def _describe(ours: Mapping[str, Any]) -> dict[str, Any]:
    config = UNetConfig(**ours)
    last, classes = len(config.widths) - 1, _CLASSES[config.attention]
    depths = [
        _depth(config.down[level], config.up[last - level], (config.middle if level == last else 0) or 1) for level in range(last + 1)
    ]
    lists = any(isinstance(depth, list) for depth in depths)
    kind = "image" if config.image_width else "text_time" if config.pooled_width else None
    written = {
        "out_channels": config.channels * (2 if config.variance else 1),
        "block_out_channels": list(config.widths),
        "layers_per_block": _shortest([len(level) for level in config.down]),
        "attention_head_dim": _shortest(
            [w // h if config.attention == "prefix" else h for w, h in zip(config.widths, config.heads, strict=True)]
        ),
        "down_block_types": [classes["down"][not any(level)] for level in config.down],
        "mid_block_type": None if config.middle is None else classes["middle"][0 if config.middle else -1],
        "up_block_types": [classes["up"][not any(level)] for level in config.up],
        "transformer_layers_per_block": depths if lists else _shortest(depths),
        "reverse_transformer_layers_per_block": [_shortest([d or 1 for d in level]) for level in config.up] if lists else None,
        "use_linear_projection": config.attention == "stack" and not config.pointwise,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "cross_attention_dim": config.text_width,
        "encoder_hid_dim": config.image_width or None,
        "encoder_hid_dim_type": "image_proj" if config.image_width else None,
        "addition_embed_type": kind,
        "addition_time_embed_dim": config.sizes_width if kind == "text_time" else None,
        "projection_class_embeddings_input_dim": config.added_width if kind == "text_time" else None,
    }
    again = _derive({**written, "in_channels": config.channels})
    if lost := [name for name, value in again.items() if value != ours[name] and (name != "sizes_width" or kind == "text_time")]:
        raise ConfigError(f"diffusers' U-Net has no {lost[0]} = {ours[lost[0]]!r} beside the rest", "save in sfumato's own format")
    return {**written, "sample_size": None}


def _depth(down: tuple[int, ...], up: tuple[int, ...], otherwise: int) -> Any:
    """One number for a level where it says all, else those on the way down."""
    found = {*down, *up} - {0}
    return list(down) if len(found) > 1 else found.pop() if found else otherwise


def _shortest(values: list[Any]) -> Any:
    return values[0] if len(set(map(str, values))) == 1 else values


FORMAT = Format(
    class_name="UNet2DConditionModel",
    family="UNet",
    rules=_rules,
    fields={"in_channels": "channels", "norm_num_groups": "groups", "norm_eps": "eps"},
    # Upcasting is a repair of half precision: attention's own statistics are in fp32 here.
    fixed={**{name: (value,) for name, value in _PLAIN.items()}, "upcast_attention": (False, True)},
    derive=_derive,
    describe=_describe,
    derives=frozenset({*_SHAPE, "sample_size"}),
    originals=_originals,
    component="unet",
    # As trained; a pipeline's scheduler may say otherwise of a fine-tuned one.
    meaning=Meaning("eps", Betas("scaled_linear", 0.00085, 0.012), "steps"),
)
