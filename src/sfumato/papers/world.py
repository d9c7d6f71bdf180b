"""What all cells of a study share: EmojiWorld's drawings, their latents and captions, the parts around a network, a judge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from ..core.conditions import Slot
from ..core.denoiser import Denoiser
from ..core.program import Network
from ..data.sources import Source, open_source
from ..evaluate.judge import Judge
from ..pipelines import TextToImage, load
from ..text import Cached
from ..training.diffusion import TextTable
from ..training.networks import told
from ..training.precompute import Precomputed, precompute
from .claims import Budget, drawings
from .tuning import fingerprint


@dataclass(frozen=True)
class World:
    """`source`: drawings at the size that the judge sees; latents and captions of the train and validation splits, at the size drawn."""

    source: Source
    train: Precomputed
    validation: Precomputed
    pipe: TextToImage
    judge: Judge

    @cached_property
    def mark(self) -> str:
        """A fingerprint: cells measured on other drawings, names or splits, at another size, through another codec or text encoder or by
        another judge are other cells.
        """
        source, encoder = self.source, self.pipe.encoder
        told = zip(source.column("id"), source.column("split"), source.column("captions"), strict=True)
        drawn = hashlib.sha256(b"".join(hashlib.sha256(source.encoded(i)).digest() for i in range(len(source)))).hexdigest()
        read = (encoder.name, encoder.max_tokens, *(slot.name for slot in self.pipe.slots))
        names = [*map(repr, told), drawn, *map(str, (*read, *self.pipe.defaults.size))]
        return fingerprint(names, (self.pipe.codec, self.judge.net, self.judge.styler))

    def around(self, denoiser: Denoiser) -> TextToImage:
        """The pipeline with another network in it, and the slots that this one reads."""
        return replace(self.pipe, denoiser=denoiser, slots=self.slots(denoiser.net))

    def slots(self, net: Network) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.pipe.slots if slot.name in net.slots)

    def table(self, data: Precomputed, net: Network) -> TextTable:
        """The captions of `data` in the form that `net` reads."""
        return told(data.table, net)


def open_world(budget: Budget, size: int = 128) -> World:
    """Drawings, codec, text encoder and judge as `budget` names them, to draw pictures of `size` pixels.

    Raises `DataError` or `WeightsError` for what is missing.
    """
    folder = drawings(budget)
    judge = Judge.load(budget.judge)
    judge.net.to(budget.device)
    judge.styler.to(budget.device)
    pipe = load(budget.model, device=budget.device, dtype=torch.float32)
    parts = replace(pipe, encoder=Cached(pipe.encoder, 4096), defaults=replace(pipe.defaults, size=(size, size)))
    return build_world(folder, parts, judge, budget.work / "latents")


def build_world(folder: Path, pipe: TextToImage, judge: Judge, cache: Path) -> World:
    """The world of an EmojiWorld folder through these parts; latents and text states are kept in `cache`."""
    opened = partial(open_source, folder, size=pipe.defaults.size[0])
    train_split, validation = (precompute(opened(split=s), pipe.codec, pipe.encoder, cache) for s in ("train", "validation"))
    return World(open_source(folder, size=judge.config.size), train_split, validation, pipe, judge)
