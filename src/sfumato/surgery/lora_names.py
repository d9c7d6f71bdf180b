"""The names in LoRA files: `prefix` + module + part, in the spellings of diffusers, PEFT, kohya and ai-toolkit, onto our Linears.

    transformer.transformer_blocks.0.attn.to_q.lora_A.weight             diffusers (and ai-toolkit for FLUX.1); unet. for a U-Net,
                         ... attn1.processor.to_q_lora.down.weight       where it was first written so
    base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight        PEFT
    lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight, .alpha      kohya: underscores for dots, the first release's names
    diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight           ai-toolkit, ComfyUI: the first release's names

Nothing here knows a family: modules are looked up in the tables of `backbones/checkpoints`, under the names of diffusers' class, of the
first release and of our own, all with dots and underscores alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from ..backbones import backbones
from ..backbones.checkpoints import Rule, format_of
from ..core.errors import UnknownNameError
from ..core.program import Network
from .lora import linears_of

# The longest first where one begins another.
PREFIXES: Mapping[str, str] = {
    "base_model.model.transformer.": "PEFT",
    "base_model.model.unet.": "PEFT",
    "base_model.model.": "PEFT",
    "model.diffusion_model.": "ai-toolkit",
    "diffusion_model.": "ai-toolkit",
    "lora_transformer_": "kohya",
    "lora_unet_": "kohya",
    "transformer.": "diffusers",
    "unet.": "diffusers",
    "text_encoder.": "diffusers",
    "text_encoder_2.": "diffusers",
    "text_encoder_3.": "diffusers",
    "lora_te_": "kohya",
    "lora_te1_": "kohya",
    "lora_te2_": "kohya",
    "lora_te3_": "kohya",
}
# The folders of the text encoders that a prefix may mean, the first that a pipeline has; kohya calls T5 the third where it is the second.
TEXT_FOLDERS: Mapping[str, tuple[str, ...]] = {
    **{f"{name}.": (name,) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")},
    **{"lora_te_": ("text_encoder",), "lora_te1_": ("text_encoder",), "lora_te2_": ("text_encoder_2",)},
    "lora_te3_": ("text_encoder_3", "text_encoder_2"),
}
TEXT = re.compile(r"lora_te\d?_|text_encoders?(_\d)?\.|conditioner\.|cond_stage_model\.")
PARTS: Mapping[str, str] = {
    r"lora_A(\.(?!weight$)[^.]+)?\.weight": "down",
    r"lora_B(\.(?!weight$)[^.]+)?\.weight": "up",
    r"lora(_|\.)down\.weight": "down",
    r"lora(_|\.)up\.weight": "up",
    r"alpha": "alpha",
}
# Parts that change what a module computes in ways that a plain LoRA does not: such a module is refused, never half loaded.
OTHER_KINDS: Mapping[str, str] = {
    r"dora_scale|lora_magnitude_vector(\..+)?": "DoRA, which also rescales the base weight; it is not computed here",
    r"hada_\w+": "LoHa, a Hadamard product of two low-rank matrices; it is not computed here",
    r"lokr_\w+": "LoKr, a Kronecker product; it is not computed here",
    r"lora_mid\.weight": "a LoCon of three factors; it is not computed here",
    r"diff(_b)?|set_weight|w_norm|b_norm": "a full difference of weights and no LoRA",
    r"lora_[AB](\.[^.]+)?\.bias": "a LoRA with biases; they are not computed here",
}
# Once an attention's LoRA belonged to its processor.
_PROCESSOR = re.compile(r"\.processor\.to_(q|k|v|out)_lora\.")
_PART = re.compile("|".join(rf"(?P<{kind}{i}>\.{pattern}$)" for i, (pattern, kind) in enumerate(PARTS.items())))
_OTHER = re.compile("|".join(rf"(?P<k{i}>\.({pattern})$)" for i, pattern in enumerate(OTHER_KINDS)))


@dataclass(frozen=True)
class Key:
    """A key of a file taken apart. part: "down", "up", "alpha"; "" where it is none of them, and `why` then says what it is."""

    prefix: str
    module: str
    part: str
    why: str = ""

    @property
    def of_text(self) -> bool:
        return TEXT.match(self.prefix + self.module) is not None


def parse(key: str) -> Key:
    """Any key at all; one that is no part of a LoRA says so."""
    prefix = next((p for p in PREFIXES if key.startswith(p)), "")
    rest = _PROCESSOR.sub(lambda found: f".to_{found[1].replace('out', 'out.0')}.lora.", key.removeprefix(prefix))
    if found := _PART.search(rest):
        return Key(prefix, rest[: found.start()], str(found.lastgroup).rstrip("0123456789"))
    if found := _OTHER.search(rest):
        return Key(prefix, rest[: found.start()], "", list(OTHER_KINDS.values())[int(str(found.lastgroup)[1:])])
    return Key(prefix, rest, "", "no part of a LoRA")


def naming_of(found: Iterable[tuple[Key, frozenset[str]]]) -> str:
    """The naming of a file in words, from its keys and whose names their modules are; what is unusual about it in brackets."""
    shared: dict[str, frozenset[str]] = {}
    for key, layouts in found:
        naming = PREFIXES.get(key.prefix, "diffusers")
        shared[naming] = shared.get(naming, layouts) & layouts
    told = []
    for naming, layouts in sorted(shared.items()):
        usual = "first release" if naming in ("kohya", "ai-toolkit") else "diffusers"
        whose = "" if usual in layouts else f" ({min(layouts, default='mixed')} modules)"
        told.append(naming + whose)
    return " and ".join(told) or "unknown"


def flat(module: str) -> str:
    """A module's name as kohya writes it; the spelling under which all are looked up."""
    return module.replace(".", "_")


class TextNames:
    """Every name that a Linear of a pipeline's text encoders goes by: with `text_model` before it, as CLIP's once had, or without."""

    def __init__(self, models: Mapping[str, nn.Module]) -> None:
        self.linears = {part: {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)} for part, model in models.items()}
        self._flat = {part: {flat(_bare(n)): n for n in linears} for part, linears in self.linears.items()}

    def find(self, key: Key) -> tuple[str, str] | None:
        """(folder, module) for a key of a file; None when no Linear is called so."""
        part = next((name for name in TEXT_FOLDERS.get(key.prefix, ()) if name in self.linears), None)
        name = None if part is None else self._flat[part].get(flat(_bare(key.module)))
        return None if part is None or name is None else (part, name)


def _bare(module: str) -> str:
    return re.sub(r"^text_model[._]", "", module)


class Names:
    """Every name that a Linear of `net` goes by. layouts: rules from their modules to ours, by whose names they are."""

    def __init__(self, net: Network) -> None:
        self.linears = linears_of(net)
        try:
            self.family = backbones.name_of(type(net))
        except UnknownNameError:  # a network that is no registered family has its own names only
            self.family = type(net).__name__
        form = format_of(self.family)
        self.component = "transformer" if form is None else form.component
        own = tuple(Rule(name, (name,)) for name in self.linears)
        config = getattr(net, "config", None)
        self.layouts: dict[str, tuple[Rule, ...]] = {
            **({} if form is None else {"diffusers": form.rules(config), "first release": form.originals(config)}),
            "sfumato": own,
        }

    @cached_property
    def _found(self) -> dict[str, tuple[frozenset[str], Rule]]:
        found: dict[str, tuple[frozenset[str], Rule]] = {}
        for layout, rules in self.layouts.items():
            for each in rules:
                others, first = found.get(flat(weight_of(each.theirs)), (frozenset(), each))
                found[flat(weight_of(each.theirs))] = (others | {layout}, first)
        return found

    def find(self, key: Key) -> tuple[frozenset[str], Rule] | None:
        """(whose names, the rule) for a key of a file; None when no part of this network is called so."""
        # A network may have a part that is called like a prefix: UniDiffuser's is "transformer".
        whole = f"{key.prefix.rstrip('._').split('.')[-1]}.{key.module}"
        return self._found.get(flat(key.module), self._found.get(flat(whole)))

    def ours(self, rule: Rule) -> tuple[str, ...] | None:
        """Our Linears behind a rule; None when one of them is something else (a norm, a table, a convolution)."""
        names = tuple(map(weight_of, rule.ours))
        return names if all(name in self.linears for name in names) else None

    def writing(self) -> tuple[Rule, ...]:
        """Rules that name every Linear for others to read: diffusers' where it has this family, else ours."""
        rules = self.layouts.get("diffusers", self.layouts["sfumato"])
        return tuple(r for r in rules if not r.theirs.endswith(".bias") and self.ours(r) is not None)


def weight_of(name: str) -> str:
    """The module of a rule that names a weight."""
    return name.removesuffix(".weight")


def likely_family(modules: Collection[str]) -> str:
    """The family whose modules are called so, numbers aside, in words; "" when none is."""
    asked = {_unnumbered(m) for m in modules}
    counts: dict[str, int] = {}
    for name in backbones:
        family = backbones.get(name)
        with torch.device("meta"):
            names = Names(family.network(family.config()))
        known = {_unnumbered(r.theirs) for rules in names.layouts.values() for r in rules}
        counts[f"a {name}"] = len(asked & known)
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else ""


def _unnumbered(module: str) -> str:
    return re.sub(r"\d+", "#", flat(weight_of(module)))
