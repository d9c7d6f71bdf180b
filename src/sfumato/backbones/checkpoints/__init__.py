"""Two-way maps between our networks and published weights: per format a table of name rules and one of config fields, no code per tensor.

    theirs  transformer_blocks.{i}.attn1.to_q           a module (all its parameters) or a bare parameter; {i} is a block's number
    ours    blocks.{i}.attention.core.projections.image.q      several names: theirs is ours joined along dimension 0

Tensors stream one at a time from safetensors shards; nothing in a checkpoint is executed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...core.denoiser import Meaning
from ...core.errors import ConfigError, UnknownNameError, WeightsError
from ...core.registry import Registry


@dataclass(frozen=True)
class Rule:
    """`theirs` = the tensors of `ours` joined along `dim`, then its `order` of equal parts (theirs[k] is our part order[k]).

    `shares`: how much of theirs each of ours takes, as small whole numbers; () = equal parts.   `copies`: names under which they store the
    same tensor again.   `pointwise`: theirs is a 1 x 1 convolution, ours a Linear.
    """

    theirs: str
    ours: tuple[str, ...]
    order: tuple[int, ...] = ()
    shares: tuple[int, ...] = ()
    dim: int = 0
    copies: tuple[str, ...] = ()
    pointwise: bool = False

    def __post_init__(self) -> None:
        if self.order and sorted(self.order) != list(range(len(self.order))):
            raise ConfigError(f"{self.theirs}: order {self.order} is no permutation")

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Our tensors from theirs."""
        if self.pointwise and tensor.ndim == 4:
            tensor = tensor.flatten(1)
        if self.order:
            parts = tensor.chunk(len(self.order))
            tensor = torch.cat([parts[self.order.index(k)] for k in range(len(parts))])
        if len(self.ours) == 1:
            return (tensor,)
        shares = self.shares or (1,) * len(self.ours)
        return tensor.split([tensor.shape[self.dim] * s // sum(shares) for s in shares], dim=self.dim)

    def join(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Their tensor from ours."""
        tensor = torch.cat(tensors, dim=self.dim) if len(tensors) > 1 else tensors[0]
        if self.order:
            parts = tensor.chunk(len(self.order))
            tensor = torch.cat([parts[k] for k in self.order])
        return tensor[..., None, None] if self.pointwise and tensor.ndim == 2 else tensor


def rule(theirs: str, *ours: str, order: tuple[int, ...] = (), copies: tuple[str, ...] = ()) -> Rule:
    return Rule(theirs, ours, order, copies=copies)


# diffusers' AdaLayerNormContinuous holds (scale, shift) where the originals, and ours, hold (shift, scale).
SWAPPED = (1, 0)


Refine = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Format:
    """One class of diffusers: `rules` for its weights and, for its config, `fields` (their name -> ours) and `fixed` (their name -> the
    values we compute with; any other value is refused). `derives`: their names behind our fields that depend on several.

    `ignored`: their tensors that hold nothing learned (a sine table), rebuilt here.   `tables`: such that their own network reads from the
    file, with how far a stored one lies from ours (infinitely far where it has another shape).   `unread`: names of theirs that their own
    forward never reads, of the shape that fields of our config give; left behind, and written as zeros.   `meaning`: what the published
    network's numbers are.   `component`: what a pipeline's folder and LoRA files call it.
    `former`: as `fixed`, fields of the class that it was first published as; they are not written.   `later`: fields which its first
    folders did not have yet, with the values that they were computed with.
    `originals`: the Linears under the names of the model's first release, which kohya and ai-toolkit keep in their files.
    """

    class_name: str
    family: str
    rules: Callable[[Any], tuple[Rule, ...]]
    fields: Mapping[str, str]
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    derive: Refine = field(default=lambda theirs: {})
    describe: Refine = field(default=lambda ours: {})
    derives: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    originals: Callable[[Any], tuple[Rule, ...]] = field(default=lambda config: ())
    component: str = "transformer"
    former: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    later: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Callable[[Any, Tensor], float]] = field(default_factory=dict)
    unread: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    meaning: Meaning = field(kw_only=True)

    def config(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """Our config's fields. Raises `ConfigError` naming a flag that is unknown or has a value we do not compute with."""
        fixed = {**self.fixed, **self.former}
        theirs = {**self.later, **theirs}
        known = self.fields.keys() | fixed.keys() | self.derives
        # Their defaults are not ours: a field that is left out is asked for rather than guessed.
        if missing := sorted(self.fields.keys() - theirs.keys()):
            raise ConfigError(f"the {self.class_name} config lacks {', '.join(missing)}", "save_pretrained writes every field")
        for name, value in theirs.items():
            if name.startswith("_"):
                continue
            if name not in known:
                raise ConfigError(UnknownNameError(f"field of a {self.class_name} config", name, known).args[0])
            if name in fixed and value not in fixed[name]:
                raise ConfigError(f"{self.class_name} with {name} = {value!r}", f"supported: {', '.join(map(repr, fixed[name]))}")
        return {ours: theirs[name] for name, ours in self.fields.items() if name in theirs} | dict(self.derive(theirs))

    def published(self, ours: Any) -> dict[str, Any]:
        """Their config of ours, every field written out."""
        plain = {name: getattr(ours, mine) for name, mine in self.fields.items()} | {name: values[0] for name, values in self.fixed.items()}
        return {"_class_name": self.class_name, **plain, **self.describe(vars(ours))}

    def to_ours(self, config: Any, theirs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Our names and tensors, one of theirs at a time. Raises `WeightsError` listing the tensors that no rule knows, and where a copy
        differs from its original or a table from ours.
        """
        table = Table(self.rules(config))
        strangers: list[str] = []
        for name in theirs:
            if name in self.ignored or name in self.unread:
                continue
            if name in self.tables:
                self._refuse_another(name, theirs[name], config)
                continue
            if (original := table.original(name)) is not None:
                if original not in theirs or not torch.equal(theirs[name], theirs[original]):
                    raise WeightsError(
                        f"{name} differs from {original}", f"a {self.class_name} as published holds the same numbers in both"
                    )
                continue
            if (found := table.ours(name)) is None:
                strangers.append(name)
                continue
            matched, names = found
            yield from zip(names, matched.split(theirs[name]), strict=True)
        if strangers:
            raise WeightsError(
                f"{len(strangers)} tensors belong to no part of a {self.class_name}: {', '.join(sorted(strangers)[:5])}",
                "the checkpoint is of another variant or holds more than the transformer",
            )

    def _refuse_another(self, name: str, stored: Tensor, config: Any) -> None:
        """Raise `WeightsError` where a stored table is not ours, as far as its type can tell; a little is for sines taken in fp32."""
        # Written so that no table of NaN passes.
        if not (off := self.tables[name](config, stored)) <= 2 * torch.finfo(stored.dtype).eps + 2e-5:
            told = f"has the shape {tuple(stored.shape)}, unlike" if off == math.inf else f"lies up to {off:.2g} from"
            raise WeightsError(
                f"{name} {told} the table that is computed here", f"a {self.class_name} with a table of its own is not drawn here"
            )

    def to_theirs(self, config: Any, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Their names and tensors. Raises `WeightsError` for tensors of ours that their format has no place for."""
        like = next(iter(ours.values()))
        written = {name: like.new_zeros([getattr(config, side) for side in shape]) for name, shape in self.unread.items()}
        used: set[str] = set()
        for each in self.rules(config):
            for suffix in ("", ".weight", ".bias"):
                names = tuple(f"{n}{suffix}" for n in each.ours)
                if all(n in ours for n in names):
                    joined = each.join(tuple(ours[n] for n in names))
                    # A file of safetensors holds no tensor twice.
                    written[f"{each.theirs}{suffix}"] = joined
                    written |= {f"{copy}{suffix}": joined.clone() for copy in each.copies}
                    used |= set(names)
        if left := sorted(ours.keys() - used):
            raise WeightsError(f"a {self.class_name} has no place for {', '.join(left[:5])}", "save in sfumato's own format")
        return written


@dataclass(frozen=True)
class Table:
    """Rules with block numbers filled in, found by their names."""

    rules: tuple[Rule, ...]

    @cached_property
    def _by_name(self) -> dict[str, Rule]:
        return {r.theirs: r for r in self.rules}

    @cached_property
    def _originals(self) -> dict[str, str]:
        return {copy: r.theirs for r in self.rules for copy in r.copies}

    def original(self, theirs: str) -> str | None:
        """The name of which a tensor of theirs is a copy; None when it is none."""
        stem, _, suffix = theirs.rpartition(".")
        for name, end in ((theirs, ""), (stem, f".{suffix}")):
            if (found := self._originals.get(name)) is not None:
                return found + end
        return None

    def ours(self, theirs: str) -> tuple[Rule, tuple[str, ...]] | None:
        """The rule for a tensor of theirs and the names of ours it becomes; None when no rule knows it."""
        stem, _, suffix = theirs.rpartition(".")
        for name, end in ((theirs, ""), (stem, f".{suffix}")):
            if (found := self._by_name.get(name)) is not None:
                return found, tuple(n + end for n in found.ours)
        return None


def numbered(rules: tuple[Rule, ...], count: int, mark: str = "{i}") -> tuple[Rule, ...]:
    """Each rule once per block, `{i}` replaced by its number."""

    def fill(text: str, i: int) -> str:
        return text.replace(mark, str(i))

    return tuple(
        replace(r, theirs=fill(r.theirs, i), ours=tuple(fill(o, i) for o in r.ours), copies=tuple(fill(c, i) for c in r.copies))
        for i in range(count)
        for r in rules
    )


def refuse_channels(channels: int, out: int | None, variance: bool = False) -> None:
    """Raise `ConfigError` unless `out` channels come out of a network that reads `channels`: as many, or with `variance` twice as many."""
    if out not in (None, channels) and not (variance and out == 2 * channels):
        raise ConfigError(
            f"in_channels is {channels} and out_channels {out}",
            f"{channels}, or {2 * channels} with a learned variance" if variance else f"as many as in_channels, {channels}",
        )


def trained_side(theirs: Mapping[str, Any], default: int) -> int:
    """Rows of latent cells of the square that a network's positions are those of; left out or null: the class's `default`."""
    side = theirs.get("sample_size")
    if side is None:
        return default
    if type(side) is not int or side < 1:
        raise ConfigError(f"sample_size is {side!r}", "a whole number: positions are laid out over a square")
    return side


# The class that several were published as before each had its own, and the `norm_type` that tells them apart.
FORMER_CLASS = "Transformer2DModel"
# Its fields of other uses, with the values of those who do not use them.
UNUSED: Mapping[str, tuple[Any, ...]] = dict.fromkeys(
    ("double_self_attention", "only_cross_attention", "num_vector_embeds", "use_linear_projection"), (None, False)
)
_BY_NORM = {"ada_norm_single": "PixArtTransformer2DModel", "ada_norm_zero": "DiTTransformer2DModel"}


def class_of(config: Mapping[str, Any]) -> str:
    """The class of a published transformer's config, by today's name. Raises `ConfigError` where the former class means none of today's."""
    name, norm = str(config.get("_class_name", "?")), config.get("norm_type")
    if name == FORMER_CLASS and norm not in _BY_NORM:
        raise ConfigError(f"a {FORMER_CLASS} with norm_type = {norm!r}", f"supported: {', '.join(map(repr, _BY_NORM))}")
    return _BY_NORM[str(norm)] if name == FORMER_CLASS else name


formats: Registry[Format] = Registry("diffusers class")
formats.lazy("DiTTransformer2DModel", "sfumato.backbones.checkpoints.dit:FORMAT")
formats.lazy("FluxTransformer2DModel", "sfumato.backbones.checkpoints.flux:FORMAT")
formats.lazy("HiDreamImageTransformer2DModel", "sfumato.backbones.checkpoints.hidream:FORMAT")
formats.lazy("Lumina2Transformer2DModel", "sfumato.backbones.checkpoints.lumina2:FORMAT")
formats.lazy("LuminaNextDiT2DModel", "sfumato.backbones.checkpoints.nextdit:FORMAT")
formats.lazy("PixArtTransformer2DModel", "sfumato.backbones.checkpoints.pixart:FORMAT")
formats.lazy("SanaTransformer2DModel", "sfumato.backbones.checkpoints.sana:FORMAT")
formats.lazy("SD3Transformer2DModel", "sfumato.backbones.checkpoints.mmdit:FORMAT")
formats.lazy("UNet2DConditionModel", "sfumato.backbones.checkpoints.unet:FORMAT")
formats.lazy("UniDiffuserModel", "sfumato.backbones.checkpoints.unidiffuser:FORMAT")


def format_of(family: str) -> Format | None:
    """The format a family is published in; None for a family that has none."""
    return next((form for form in map(formats.get, formats) if form.family == family), None)


def of_family(family: str) -> Format:
    """The format a family is published in. Raises `UnknownNameError` listing those that have one."""
    form = format_of(family)
    if form is None:
        raise UnknownNameError("published family", family, [f.family for f in map(formats.get, formats)])
    return form
