"""LoRA (Hu et al., arXiv 2106.09685), riding on a Call:   y = W x + b + sum_k  weight_k * alpha_k / rank_k * B_k A_k x.

The network is never written to: switching and re-weighting change what a Call carries, so a thousand swaps leave every base weight as it
was, and two requests may hold different LoRAs at once. `merge` folds them into a new network instead. Files: `lora_files.py`.
May touch core/ and nn/.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as product

from ..core.call import Adapter, Call
from ..core.errors import ConfigError, UnknownNameError, UsageError, WeightsError
from ..core.program import Network
from ..core.rng import generator
from ..nn.linear import Linear
from ..text.adapted import Change
from .lora_report import Report
from .pack import refuse_packed

Weight = float | tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Delta:
    """One Linear's change, alpha / rank * B A. down: A (rank, D_in).   up: B (D_out, rank)."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def matrix(self) -> Tensor:
        """(D_out, D_in) in fp32: what is added to the Linear's weight."""
        return self.scale * (self.up.float() @ self.down.float())


@dataclass(frozen=True)
class Source:
    """The file a LoRA came from, as the user named it, and its content."""

    path: str
    sha256: str


@dataclass(frozen=True, eq=False)
class Lora:
    """deltas: by Linear name.   texts: those of a pipeline's text encoders, by folder and module.
    weight: how strongly it acts, or one number for each row of the batch.   report: what its file held.

    `fresh` makes a new one to train, `load_lora` reads one.
    """

    deltas: Mapping[str, Delta]
    weight: Weight = 1.0
    source: Source | None = None
    report: Report | None = field(default=None, repr=False)
    texts: Mapping[str, Mapping[str, Delta]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.weights or not all(map(math.isfinite, self.weights)):
            raise UsageError(f"the weight of a LoRA is {self.weight}", "a number, or one for each picture: 1 = as trained, 0 = not at all")

    @property
    def weights(self) -> tuple[float, ...]:
        return self.weight if isinstance(self.weight, tuple) else (self.weight,)

    def at(self, weight: Weight) -> Lora:
        """The same LoRA, acting with another weight."""
        return replace(self, weight=weight)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Lora:
        """A copy elsewhere or in another type; tensors that are there already are shared, as are those that Linears share."""
        moved: dict[int, Tensor] = {}

        def move(x: Tensor) -> Tensor:
            return moved.setdefault(id(x), x.to(device=device, dtype=dtype))

        def moved_all(deltas: Mapping[str, Delta]) -> dict[str, Delta]:
            return {n: replace(d, down=move(d.down), up=move(d.up)) for n, d in deltas.items()}

        return replace(self, deltas=moved_all(self.deltas), texts={part: moved_all(d) for part, d in self.texts.items()})

    def record(self) -> dict[str, Any]:
        """What a picture must know to be drawn with it again; path and checksum are empty for one that came from no file."""
        source = self.source or Source("", "")
        return {"path": source.path, "sha256": source.sha256, "weight": self.weight}

    def parameters(self) -> list[Tensor]:
        """Every A and B, for an optimizer; those that several Linears share stand there once."""
        deltas = [d for group in (self.deltas, *self.texts.values()) for d in group.values()]
        return list({id(x): x for d in deltas for x in (d.down, d.up)}.values())


@dataclass(frozen=True, eq=False)
class LoraAdapter:
    """All LoRAs of one Linear. parts: each with its factor weight * alpha / rank, a number or (B,) numbers for the rows."""

    parts: tuple[tuple[Delta, float | Tensor], ...]
    laneless: ClassVar[bool] = True

    def __call__(self, linear: Any, x: Tensor, base: Callable[[Tensor], Tensor], call: Call) -> Tensor:
        y = base(x)
        for delta, factor in self.parts:
            change = product(product(x, delta.down.to(x.dtype)), delta.up.to(x.dtype))
            if isinstance(factor, Tensor):
                # Lanes that run together follow one another, each with all of the rows.
                lanes, rows = max(1, len(call.together)), len(x) if call.owners is None else call.owners[1]
                if lanes * len(factor) != rows:
                    raise UsageError(f"a LoRA has {len(factor)} weights for {rows // lanes} rows", "one weight, or one for each row")
                factor = factor.to(change).repeat(lanes)
                own = (-1, *[1] * (change.ndim - 1))
                factor = factor.view(own) if call.owners is None else factor[call.owners[0]][None, :, None]
            y = y + factor * change
        return y


def adapters(net: Network, loras: Iterable[Lora]) -> dict[str, Adapter]:
    """`Call.adapters` for `net`, of which text encoders are no part; LoRAs of one Linear add up. One of weight 0 is left out, so that not a
    bit changes.

    Raises `WeightsError` for a LoRA that was made for another network: the Call would never ask for what it changes.
    """
    found: dict[str, list[tuple[Delta, float | Tensor]]] = {}
    linears = linears_of(net)
    for lora in loras:
        check_fit(lora, linears)
        for name, delta in lora.deltas.items() if any(lora.weights) else ():
            factor: float | Tensor
            if isinstance(lora.weight, tuple):
                factor = delta.scale * torch.tensor(lora.weight, device=delta.up.device)
            else:
                factor = delta.scale * lora.weight
            found.setdefault(name, []).append((delta, factor))
    return {name: LoraAdapter(tuple(parts)) for name, parts in found.items()}


def text_changes(loras: Iterable[Lora]) -> dict[str, dict[str, list[Change]]]:
    """What `loras` change in text encoders, by folder and module, for `Joined.adapted`; those of one Linear add up.

    Raises `UsageError` for weights by row: a prompt is read once for all of its pictures.
    """
    found: dict[str, dict[str, list[Change]]] = {}
    for lora in loras:
        if lora.texts and isinstance(lora.weight, tuple):
            raise UsageError("a LoRA of a text encoder with a weight for each picture", "one weight, or one call for each")
        for part, deltas in lora.texts.items() if any(lora.weights) else ():
            for name, delta in deltas.items():
                found.setdefault(part, {}).setdefault(name, []).append((delta.down, delta.up, delta.scale * lora.weights[0]))
    return found


def merge(net: Network, loras: Sequence[Lora]) -> Network:
    """A network with `loras` folded into its weights, summed in fp32 and rounded once to the weights' type. `net` stays as it is; frozen
    weights that no LoRA touches lie in memory once for both. Raises as `adapters` does, and `UsageError` for weights by row, which no
    single matrix has.
    """
    refuse_packed(net, "merged with")
    changes: dict[str, list[Tensor]] = {}
    linears = linears_of(net)
    for lora in loras:
        check_fit(lora, linears)
        if isinstance(lora.weight, tuple):
            raise UsageError("a LoRA with a weight for each row cannot be merged", "merge with one weight, or keep it on the Call")
        if lora.texts:
            raise UsageError("a LoRA of text encoders cannot be merged into the network", "keep it on the call")
        for name, delta in lora.deltas.items() if lora.weight else ():
            changes.setdefault(name, []).append(lora.weight * delta.matrix().detach().to(linears[name].weight.device))
    # Parameters of its own even where the memory is shared: casting or moving one network must not cast or move the other.
    merged = copy.deepcopy(net, {id(p): nn.Parameter(p.detach(), False) for p in net.parameters() if not p.requires_grad})
    for name, parts in changes.items():
        old = linears[name].weight.detach()
        new = sum(parts, old.float()).to(old.dtype)
        merged.get_submodule(name).weight = nn.Parameter(new, requires_grad=linears[name].weight.requires_grad)
    return merged


def fresh(
    net: Network,
    rank: int,
    alpha: float | None = None,
    roles: Sequence[str] = ("q", "k", "v", "out"),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Lora:
    """A LoRA to train on the Linears of these roles: A uniform as PEFT draws it, B zero, so that it starts as no change at all.

    Raises `ConfigError` for a rank below 1, `UnknownNameError` for a role that no Linear of `net` has, `UsageError` for a packed network.
    """
    refuse_packed(net, "trained with a LoRA")
    if rank < 1:
        raise ConfigError(f"rank is {rank}", "at least 1; 4 to 64 are common")
    linears = linears_of(net)
    known = {layer.role for layer in linears.values()}
    for role in roles:
        if role not in known:
            raise UnknownNameError("role of a Linear", role, known)
    deltas: dict[str, Delta] = {}
    for name, layer in linears.items():
        if layer.role in roles:
            bound = layer.in_features**-0.5
            down = torch.empty(rank, layer.in_features).uniform_(-bound, bound, generator=generator((seed, f"lora/{name}", 0)))
            down, up = (nn.Parameter(x.to(layer.weight.device, dtype)) for x in (down, torch.zeros(layer.out_features, rank)))
            deltas[name] = Delta(down, up, float(rank if alpha is None else alpha))
    return Lora(deltas)


def linears_of(net: nn.Module) -> dict[str, Linear]:
    """Every Linear that an adapter can reach, by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, Linear)}


def check_fit(lora: Lora, linears: Mapping[str, Linear]) -> None:
    """Raise `WeightsError` unless every delta has a Linear of its shape."""
    for name, delta in lora.deltas.items():
        layer = linears.get(name)
        if layer is None or (delta.up.shape[0], delta.down.shape[1]) != (layer.out_features, layer.in_features):
            has = "has no such Linear" if layer is None else f"has {layer.in_features} -> {layer.out_features} there"
            raise WeightsError(
                f"a LoRA changes {name}, {delta.down.shape[1]} -> {delta.up.shape[0]}, and this network {has}",
                "it was made for another network; load it for this one",
            )
