"""The Task that trains a text-to-image network on precomputed latents and text states, and the stream that feeds it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..core.call import Call
from ..core.conditions import Conditions, Slot, Tokens, concatenate, nulled, picture_sizes
from ..core.denoiser import Denoiser, Meaning
from ..core.errors import ConfigError
from ..core.paths import path
from ..core.program import Network
from ..core.rng import Draws, generator
from ..core.task import Batch, Loss, Phase
from ..objectives.denoising import Denoising, Sample
from .batches import Columns, Stream

TEXT_SLOTS = (Slot("text"), Slot("pooled"))
# Parts of a batch by the length of texts, and rows in each at least: fewer would keep no processor busy.
PARTS, LEAST = 4, 32


@dataclass(frozen=True)
class TextTable:
    """Text states of many captions, without padding: caption i owns rows offsets[i] … offsets[i + 1] of `states` (T, D); pooled (M, P),
    None for networks that read words alone.
    """

    states: Tensor
    offsets: Tensor
    pooled: Tensor | None = None

    def conditions(self, captions: Tensor) -> Conditions:
        """Slots "text" and, where there is one, "pooled" of captions (B,), padded to the longest, fp32."""
        starts, ends = self.offsets[captions], self.offsets[captions + 1]
        steps = torch.arange(int((ends - starts).max()))
        keep = steps < (ends - starts)[:, None]
        rows = (starts[:, None] + steps).clamp_max(len(self.states) - 1)
        states = self.states[rows].float().masked_fill(~keep[..., None], 0.0)
        return Conditions({"text": Tokens(states, keep)}, {} if self.pooled is None else {"pooled": self.pooled[captions].float()})


class LatentStream:
    """Batches of latents with the states of one caption each, a pure function of the batch's index.

    `captions` (rows, forms): caption numbers in the table. `weights` (forms,): how often each form is used. All rows of a batch
    share a form, so that a batch of short captions is not padded to a long one.
    """

    def __init__(self, latents: Tensor, captions: Tensor, table: TextTable, weights: Sequence[float], size: int, seed: int) -> None:
        if captions.shape != (len(latents), len(weights)):
            raise ConfigError(
                f"captions are {tuple(captions.shape)}", f"one row per latent and one column per weight: {(len(latents), len(weights))}"
            )
        self.rows = Columns({"latents": latents, "captions": captions}, size, seed)
        self.table, self.seed = table, seed
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def batch(self, index: int) -> Mapping[str, Any]:
        rows = self.rows.batch(index)
        form = int(torch.multinomial(self.weights, 1, generator=generator((self.seed, "form", index))))
        return {"latents": rows["latents"].float(), "cond": self.table.conditions(rows["captions"][:, form])}


@dataclass(frozen=True)
class Mixed:
    """The batches of several streams as one: the first stream's rows, then the next's; text padded to the longest."""

    streams: Sequence[Stream]

    def batch(self, index: int) -> Mapping[str, Any]:
        parts = [stream.batch(index) for stream in self.streams]
        return {"latents": torch.cat([part["latents"] for part in parts]), "cond": concatenate([part["cond"] for part in parts])}


@dataclass(frozen=True)
class Sized:
    """The batches of `stream` for a network that is told their pictures' sizes; `factor`: pixels on a side of a latent cell."""

    stream: Stream
    factor: int

    def batch(self, index: int) -> Mapping[str, Any]:
        found = self.stream.batch(index)
        rows, _, height, width = found["latents"].shape
        sizes = picture_sizes((height * self.factor, width * self.factor), rows)
        cond = found["cond"]
        return {**found, "cond": replace(cond, vectors={**cond.vectors, "sizes": sizes})}


@dataclass(frozen=True)
class DiffusionTask:
    """Batches hold `latents` (B, C, h, w) and `cond`, Conditions, of which slots that neither `slots` nor the network names stay behind.
    Dropped rows see each slot's null form. What a masked objective keeps is in the Call, as `noise["keep"]`.

    The network sees a large batch in parts, texts of like length together, so that short ones are not padded to the longest of all: the
    same loss, sooner. Auxiliary losses are means over parts, as over micro-batches.
    """

    net: Network
    objective: Denoising = field(default_factory=Denoising)
    meaning: Meaning = field(default_factory=Meaning)
    slots: tuple[Slot, ...] = TEXT_SLOTS

    def __post_init__(self) -> None:
        if (self.objective.prediction, self.objective.path.name) != (self.meaning.prediction, path(self.meaning.path).name):
            raise ConfigError(
                f"the objective trains {self.objective.prediction} on the {self.objective.path.name} path",
                f"the model is saved as {self.meaning}",
            )
        if self.objective.precondition != self.meaning.precondition:
            raise ConfigError(
                f"the objective's precondition is {self.objective.precondition}, the model's {self.meaning.precondition}", "one for both"
            )
        self._check_masking()
        for group in {slot.group for slot in self.slots}:
            if len(dropouts := sorted({slot.dropout for slot in self.slots if slot.group == group})) > 1:
                raise ConfigError(f"slots of group {group!r} have dropouts {dropouts}", "slots of one group are dropped together")

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        return {"net": self.net}

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("denoise", ("net",))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        latents: Tensor = batch["latents"]
        sample = self.objective.draw(latents, draws)
        cond: Conditions = batch["cond"].only(self.net.slots | {slot.name for slot in self.slots}).to(latents.device)
        cond = self._dropped(cond, latents, draws)
        total, metrics = torch.zeros((), device=latents.device), dict[str, Tensor]()
        for part in alike(cond, len(latents)):
            loss = self._part(sample.rows(part), trimmed(cond.rows(part)), len(part) / len(latents))
            total = total + loss.total
            metrics = {name: metrics.get(name, 0.0) + value for name, value in loss.metrics.items()}
        return Loss(total, metrics)

    def _part(self, sample: Sample, cond: Conditions, share: float) -> Loss:
        """What these rows, a `share` of the batch, add to its loss."""
        call = None if sample.keep is None else Call(noise={"keep": sample.keep})
        out = Denoiser(self.net, self.meaning).out(sample.x_t, sample.t, cond, call)
        error = self.objective.loss(out.pred["image"], sample).mean()
        aux = {name.split(".")[-1]: share * value for name, value in out.aux.items()}
        return Loss(share * (error + sum(out.aux.values(), torch.zeros((), device=error.device))), {"mse": share * error, **aux})

    def _check_masking(self) -> None:
        if (masking := self.objective.masking) is None:
            return
        if "masking" not in self.net.capabilities:
            raise ConfigError(f"a masked objective for a {type(self.net).__name__}", "only networks that leave tokens out, like MicroDiT")
        config: Any = self.net.config
        if config.patch != masking.patch:
            raise ConfigError(f"patches of {masking.patch} are masked", f"the network's are of {config.patch}")

    def _dropped(self, cond: Conditions, latents: Tensor, draws: Draws) -> Conditions:
        groups = {slot.group: slot.dropout for slot in self.slots}
        dropped = {g: (draws.uniform((len(latents),), f"drop {g}") < p).to(latents.device) for g, p in groups.items()}
        return nulled(cond, self.slots, dropped)


def alike(cond: Conditions, rows: int) -> Sequence[Tensor]:
    """The numbers of `rows` rows in up to `PARTS` parts of equal size, by the length of their texts; small batches stay whole."""
    lengths = sum((tokens.keep.sum(1).cpu() for tokens in cond.tokens.values()), torch.zeros(rows, dtype=torch.long))
    return lengths.argsort(stable=True).chunk(max(1, min(PARTS, rows // LEAST)))


def trimmed(cond: Conditions) -> Conditions:
    """`cond` without padding that all rows share."""
    return replace(cond, tokens={name: tokens.trimmed() for name, tokens in cond.tokens.items()})
