"""Per-row randomness: the same seed gives the same numbers for any batch size, order or device.

A stream of numbers is named by a key `(seed, purpose, step)`. Each row of a batch has its own seed, and numbers are always
drawn on the CPU, before a forward pass, then moved: recomputation and device never change them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Key = tuple[int, str, int]


def generator(key: Key) -> torch.Generator:
    """A CPU generator for `key = (seed, purpose, step)`; equal keys give equal streams on every platform."""
    seed, purpose, step = key
    digest = hashlib.sha256(f"{seed}|{purpose}|{step}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") & (2**63 - 1))


def normal(shape: Sequence[int], key: Key) -> torch.Tensor:
    """Standard normal numbers of one row, float32 on the CPU. `shape` excludes the batch dimension."""
    return torch.randn(tuple(shape), generator=generator(key), dtype=torch.float32)


def uniform(shape: Sequence[int], key: Key) -> torch.Tensor:
    """Uniform numbers in [0, 1) of one row, float32 on the CPU."""
    return torch.rand(tuple(shape), generator=generator(key), dtype=torch.float32)


@dataclass(frozen=True)
class Rows:
    """The seeds of a batch's rows; draws give one independent row per seed, stacked on dim 0."""

    seeds: tuple[int, ...]
    scope: str = ""

    def within(self, purpose: str, step: int = 0) -> Rows:
        """The same seeds for a run nested in step `step` of this one: its draws repeat neither the outer run's nor another step's."""
        return Rows(self.seeds, f"{self.scope}{purpose}@{step}/")

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, shape: Sequence[int], purpose: str, step: int = 0) -> torch.Tensor:
        """(B, *shape) standard normal, float32, CPU."""
        return torch.stack([normal(shape, (s, self.scope + purpose, step)) for s in self.seeds])

    def uniform(self, shape: Sequence[int], purpose: str, step: int = 0) -> torch.Tensor:
        """(B, *shape) uniform in [0, 1), float32, CPU."""
        return torch.stack([uniform(shape, (s, self.scope + purpose, step)) for s in self.seeds])


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step: whole batches, a pure function of (seed, step, micro-batch, purpose)."""

    seed: int
    step: int
    micro: int = 0

    def normal(self, shape: Sequence[int], purpose: str) -> torch.Tensor:
        """Standard normal numbers of the full `shape`, float32, CPU."""
        return normal(shape, (self.seed, f"{purpose}/{self.micro}", self.step))

    def uniform(self, shape: Sequence[int], purpose: str) -> torch.Tensor:
        """Uniform numbers in [0, 1) of the full `shape`, float32, CPU."""
        return uniform(shape, (self.seed, f"{purpose}/{self.micro}", self.step))
