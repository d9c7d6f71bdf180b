"""LoRA files, read: safetensors in the naming of diffusers, PEFT, kohya or ai-toolkit, held strictly against a network.

A module that their model holds fused and ours apart (q, k, v in one Linear; FLUX's attention output and MLP in one) is split by the rule of
its name: rows of B and one A where outputs are joined, columns of A and one B where inputs are. Nothing is executed or unpickled, and no
key is ignored: it acts, or it is reported, or the file is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ..backbones.checkpoints import Rule
from ..core.errors import WeightsError
from ..core.files import sha256
from ..core.program import Network
from .lora import Delta, Lora, Source, Weight
from .lora_names import Key, Names, TextNames, likely_family, naming_of, parse
from .lora_raw import Raw, read_raw
from .lora_report import Match, Report

# Text encoders' modules have one name, whoever wrote the file.
USUAL = frozenset({"diffusers", "first release"})


@dataclass
class Module:
    """What a file holds for one of its modules: tensors by part, the keys they stand under, and `why` it is refused, if it is."""

    name: str
    key: Key
    parts: dict[str, Tensor] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    why: str = ""


@dataclass(frozen=True)
class Place:
    """Where a module of a file acts: the rule of its name, our Linears behind it, and whose names it is among."""

    module: Module
    ours: tuple[str, ...]
    rule: Rule
    layouts: frozenset[str]


@dataclass(frozen=True)
class TextPlace:
    """Where a module of a file acts in a text encoder: its folder and the Linear's name there."""

    module: Module
    part: str
    name: str


def load_lora(
    path: str | Path, net: Network, weight: Weight = 1.0, partial: bool = False, texts: Mapping[str, nn.Module] | None = None
) -> Lora:
    """The LoRA in a file (or in the folder that PEFT or diffusers made for it) for `net` and a pipeline's text encoders `texts` (models of
    transformers by their folders), on the CPU, in the types it is stored in.

    partial: load what fits and leave the rest to the report, instead of refusing the file. Raises `WeightsError`: a pickled, damaged,
    misshapen or non-finite file; one that acts on nothing here (its likely family is named); keys that act on nothing, unless `partial`.
    """
    raw, names, text_names = read_raw(path), Names(net), TextNames(texts or {})
    found, read, refused = _places(_modules(raw), names, text_names)
    extra = {key: why for module, why in refused for key in module.keys}
    deltas: dict[str, Delta] = {}
    matched: list[Match] = []
    _refuse_foreign(raw, names.family, len(found) + len(read), refused)
    for place in found:
        whole = _delta(place.module, raw, names.component)
        _check_shape(place.module.name, whole, _wanted(place, names), names.family, raw.path)
        if twice := [n for n in place.ours if n in deltas]:
            raise WeightsError(f"{raw.path} changes {twice[0]} twice, the second time as {place.module.name}", "once is what a file may")
        deltas |= dict(zip(place.ours, _split(place.rule, whole), strict=True))
        matched.append(Match(place.module.key.module, place.ours, whole.rank, whole.alpha))
    in_texts, matched_texts = _text_deltas(read, text_names, raw)
    missing = tuple(n for n in names.linears if n not in deltas)
    naming = naming_of([(place.module.key, place.layouts) for place in found] + [(place.module.key, USUAL) for place in read])
    report = Report(raw.path, names.family, naming, tuple(matched), missing, extra, matched_texts)
    if extra and not partial:
        raise WeightsError(
            f"{len(extra)} keys of {raw.path} act on nothing in this {names.family}",
            "\n  ".join([*report.reasons(), "load the rest alone with partial=True (--lora-partial)"]),
        )
    return Lora(deltas, weight, Source(raw.path, sha256(raw.file)), report, in_texts)


def examine(path: str | Path, net: Network, texts: Mapping[str, nn.Module] | None = None) -> Report:
    """What is in a LoRA file and what of it acts on `net` and `texts`, which may be on meta.

    Raises `WeightsError` as `load_lora` does, except for keys that act on nothing: those are reported.
    """
    report = load_lora(path, net, partial=True, texts=texts).report
    assert report is not None
    return report


def _places(modules: Iterable[Module], names: Names, texts: TextNames) -> tuple[list[Place], list[TextPlace], list[tuple[Module, str]]]:
    """Where each module of a file acts, in the network and in text encoders, and those that act nowhere, with the reason."""
    places: list[Place] = []
    read: list[TextPlace] = []
    refused: list[tuple[Module, str]] = []
    for module in modules:
        found = names.find(module.key)
        ours = None if found is None else names.ours(found[1])
        in_text = texts.find(module.key)
        if module.why:
            refused.append((module, module.why))
        elif in_text is not None:
            read.append(TextPlace(module, *in_text))
        elif module.key.of_text and texts.linears:
            refused.append((module, "a text encoder's; none of this pipeline's has such a Linear"))
        elif module.key.of_text:
            refused.append((module, "a text encoder's; only the network is adapted here"))
        elif found is None:
            refused.append((module, f"no module of this {names.family} has that name"))
        elif ours is None:
            refused.append((module, f"a module that is no Linear in this {names.family}; only Linears are adapted here"))
        else:
            places.append(Place(module, ours, found[1], found[0]))
    return places, read, refused


def _text_deltas(places: Sequence[TextPlace], names: TextNames, raw: Raw) -> tuple[dict[str, dict[str, Delta]], tuple[Match, ...]]:
    found: dict[str, dict[str, Delta]] = {}
    matched: list[Match] = []
    for place in places:
        delta, linear, key = _delta(place.module, raw, place.part), names.linears[place.part][place.name], place.module.key
        _check_shape(place.module.name, delta, (linear.in_features, linear.out_features), place.part, raw.path)
        if place.name in found.setdefault(place.part, {}):
            raise WeightsError(f"{raw.path} changes {place.part}.{place.name} twice", "once is what a file may")
        found[place.part][place.name] = delta
        matched.append(Match(key.prefix + key.module, (f"{place.part}.{place.name}",), delta.rank, delta.alpha))
    return found, tuple(matched)


def _refuse_foreign(raw: Raw, family: str, found: int, refused: Sequence[tuple[Module, str]]) -> None:
    """Raise `WeightsError` for a file with nothing for this network, or with more that another family has names for: some names (a last
    projection's, say) are those of many.
    """
    strangers = [module.key.module for module, _ in refused if not module.why and not module.key.of_text]
    likely = likely_family(strangers) if len(strangers) > found else ""
    if found and likely in ("", f"a {family}"):
        return
    why = f": its names are those of {likely}" if likely else ""
    report = Report(raw.path, family, "", (), (), {key: reason for module, reason in refused for key in module.keys})
    raise WeightsError(f"{raw.path} is no LoRA for this {family}{why}", "\n  ".join(report.reasons()))


def _modules(raw: Raw) -> Collection[Module]:
    """A file's keys, put together by module; a module with a part that no LoRA has is marked with the reason."""
    found: dict[str, Module] = {}
    for name, tensor in raw.tensors.items():
        key = parse(name)
        module = found.setdefault(key.prefix + key.module, Module(key.prefix + key.module, key))
        if key.part in module.parts:
            raise WeightsError(f"{raw.path} holds two adapters: {name} comes twice but for the adapter's name", "save them one by one")
        module.keys.append(name)
        module.why = module.why or key.why
        if key.part:
            module.parts[key.part] = tensor
    return found.values()


def _delta(module: Module, raw: Raw, component: str) -> Delta:
    """The whole module's change. Raises `WeightsError` naming what is missing, misshapen or not finite."""
    name = module.name
    if absent := [part for part in ("down", "up") if part not in module.parts]:
        raise WeightsError(f"damaged file {raw.path}: {name} lacks its {absent[0]} matrix", f"it has only {', '.join(module.keys)}")
    # Some write a Linear's matrices as 1 x 1 convolutions.
    down, up = (x[:, :, 0, 0] if x.ndim == 4 and x.shape[2:] == (1, 1) else x for x in (module.parts["down"], module.parts["up"]))
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        shapes = f"A {tuple(down.shape)} and B {tuple(up.shape)}"
        raise WeightsError(f"damaged file {raw.path}: {name} has {shapes}", "A is (rank, inputs) and B (outputs, rank)")
    for tensor in (down, up):
        if not tensor.is_floating_point() or not tensor.float().isfinite().all():
            raise WeightsError(f"damaged file {raw.path}: {name} holds values that are not finite numbers", "train or fetch it again")
    alpha = (
        raw.alpha(component, module.key.module, down.shape[0])
        if "alpha" not in module.parts
        else _number(name, module.parts["alpha"], raw.path)
    )
    return Delta(down, up, alpha)


def _number(name: str, alpha: Tensor, path: str) -> float:
    if alpha.numel() != 1 or not alpha.float().isfinite().all():
        raise WeightsError(f"damaged file {path}: the alpha of {name} is {alpha.flatten()[:4].tolist()}", "one finite number")
    return float(alpha)


def _wanted(place: Place, names: Names) -> tuple[int, int]:
    """(inputs, outputs) of the module as their model holds it."""
    ins, outs = ([getattr(names.linears[n], side) for n in place.ours] for side in ("in_features", "out_features"))
    return (ins[0], sum(outs)) if place.rule.dim == 0 else (sum(ins), outs[0])


def _check_shape(module: str, delta: Delta, wanted: tuple[int, int], family: str, path: str) -> None:
    if (delta.down.shape[1], delta.up.shape[0]) != wanted:
        raise WeightsError(
            f"{path} is for a {family} of another size: {module} is {delta.down.shape[1]} -> {delta.up.shape[0]}",
            f"in this one it is {wanted[0]} -> {wanted[1]}",
        )


def _split(rule: Rule, whole: Delta) -> list[Delta]:
    """A fused module's change as those of our Linears."""
    if rule.dim == 0:
        return [Delta(whole.down, up, whole.alpha) for up in rule.split(whole.up)]
    return [Delta(down, whole.up, whole.alpha) for down in rule.split(whole.down)]
