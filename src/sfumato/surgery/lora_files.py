"""LoRA files, read: safetensors in the naming of diffusers, PEFT, kohya or ai-toolkit, held strictly against a network.

A module that their model holds fused and ours apart (q, k, v in one Linear; FLUX's attention output and MLP in one) is split by the rule of
its name: rows of B and one A where outputs are joined, columns of A and one B where inputs are. Nothing is executed or unpickled, and no
key is ignored: it acts, or it is reported, or the file is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..backbones.checkpoints import Rule
from ..core.errors import WeightsError
from ..core.files import sha256
from ..core.program import Network
from .lora import Delta, Lora, Source, Weight
from .lora_names import Key, Names, likely_family, naming_of, parse
from .lora_raw import Raw, read_raw
from .lora_report import Match, Report


@dataclass
class Module:
    """What a file holds for one of its modules: tensors by part, and the keys they stand under."""

    key: Key
    parts: dict[str, Tensor] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    why: str = ""


def load_lora(path: str | Path, net: Network, weight: Weight = 1.0, partial: bool = False) -> Lora:
    """The LoRA in a file (or in the folder that PEFT or diffusers made for it) for `net`, on the CPU, in the types it is stored in.

    partial: load what fits and leave the rest to the report, instead of refusing the file. Raises `WeightsError`: a pickled, damaged,
    misshapen or non-finite file; one that acts on nothing here (its likely family is named); keys that act on nothing, unless `partial`.
    """
    lora, strangers = _resolved(path, net)
    report = lora.report
    assert report is not None
    lines = "\n  ".join(report.reasons())
    if not report.matched:
        family = likely_family(strangers) if strangers else ""
        why = f": its names are those of {family}" if family else ""
        raise WeightsError(f"{report.file} changes nothing in this {report.family}{why}", lines)
    if report.extra and not partial:
        raise WeightsError(
            f"{len(report.extra)} keys of {report.file} act on nothing in this {report.family}",
            f"{lines}\n  load the rest alone with partial=True (--lora-partial)",
        )
    return lora.at(weight)


def examine(path: str | Path, net: Network) -> Report:
    """What is in a LoRA file and what of it acts on `net`, which may be on meta. Raises `WeightsError` as `load_lora` does for files that
    cannot be read; one that does not fit is reported.
    """
    report = _resolved(path, net)[0].report
    assert report is not None
    return report


def _resolved(path: str | Path, net: Network) -> tuple[Lora, list[str]]:
    """The LoRA with its report, matched or not, and the modules whose names this network does not know."""
    raw, names = read_raw(path), Names(net)
    matched: list[Match] = []
    deltas: dict[str, Delta] = {}
    extra: dict[str, str] = {}
    namings: list[tuple[Key, frozenset[str]]] = []
    strangers: list[str] = []
    for name, module in _modules(raw).items():
        found = names.find(module.key.module)
        ours = None if found is None else names.ours(found[1])
        why = module.why or _why_not(module.key, found is not None, ours is not None, names.family)
        if why or found is None or ours is None:
            extra |= dict.fromkeys(module.keys, why)
            strangers += [] if found or module.key.of_text else [module.key.module]
            continue
        layouts, rule = found
        whole = _delta(name, module, raw)
        if twice := [n for n in ours if n in deltas]:
            raise WeightsError(f"{raw.path} changes {twice[0]} twice, the second time as {name}", "a file names each module once")
        _check_shape(name, whole, rule, ours, names, raw.path)
        deltas |= dict(zip(ours, _split(rule, whole), strict=True))
        matched.append(Match(module.key.module, ours, whole.rank, whole.alpha))
        namings.append((module.key, layouts))
    missing = tuple(n for n in names.linears if n not in deltas)
    report = Report(raw.path, names.family, naming_of(namings), tuple(matched), missing, extra)
    source = Source(raw.path, sha256(raw.file))
    return Lora(deltas, source=source, report=report), strangers


def _modules(raw: Raw) -> dict[str, Module]:
    """A file's keys, put together by module; a module with a part that no LoRA has is marked with the reason."""
    found: dict[str, Module] = {}
    for name, tensor in raw.tensors.items():
        key = parse(name)
        module = found.setdefault(key.prefix + key.module, Module(key))
        if key.part in module.parts:
            raise WeightsError(f"{raw.path} holds two adapters: {name} comes twice but for the adapter's name", "save them one by one")
        module.keys.append(name)
        module.why = module.why or key.why
        if key.part:
            module.parts[key.part] = tensor
    return found


def _why_not(key: Key, known: bool, linear: bool, family: str) -> str:
    """Why a module of a file acts on nothing; "" when it does act."""
    if key.of_text:
        return "a text encoder's; only the network is adapted here"
    if not known:
        return f"no module of this {family} has that name"
    return "" if linear else f"a module that is no Linear in this {family}; only Linears are adapted here"


def _delta(name: str, module: Module, raw: Raw) -> Delta:
    """The whole module's change. Raises `WeightsError` naming what is missing, misshapen or not finite."""
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
    alpha = raw.alpha(module.key.module, down.shape[0]) if "alpha" not in module.parts else _number(name, module.parts["alpha"], raw.path)
    return Delta(down, up, alpha)


def _number(name: str, alpha: Tensor, path: str) -> float:
    if alpha.numel() != 1 or not alpha.float().isfinite().all():
        raise WeightsError(f"damaged file {path}: the alpha of {name} is {alpha.flatten()[:4].tolist()}", "one finite number")
    return float(alpha)


def _check_shape(name: str, delta: Delta, rule: Rule, ours: Sequence[str], names: Names, path: str) -> None:
    ins, outs = ([getattr(names.linears[n], side) for n in ours] for side in ("in_features", "out_features"))
    wanted = (ins[0], sum(outs)) if rule.dim == 0 else (sum(ins), outs[0])
    if (delta.down.shape[1], delta.up.shape[0]) != wanted:
        raise WeightsError(
            f"{path} is for a {names.family} of another size: {name} is {delta.down.shape[1]} -> {delta.up.shape[0]}",
            f"in this one it is {wanted[0]} -> {wanted[1]}",
        )


def _split(rule: Rule, whole: Delta) -> list[Delta]:
    """A fused module's change as those of our Linears."""
    if rule.dim == 0:
        return [Delta(whole.down, up, whole.alpha) for up in rule.split(whole.up)]
    return [Delta(down, whole.up, whole.alpha) for down in rule.split(whole.down)]
