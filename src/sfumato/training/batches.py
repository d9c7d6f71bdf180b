"""Where batches come from. `batch(index)` is a pure function, so a resumed run sees exactly the data it would have seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..core.errors import DataError
from ..core.rng import generator


class Stream(Protocol):
    """An endless, seekable sequence of batches."""

    def batch(self, index: int) -> Mapping[str, Any]: ...


class Columns:
    """Rows held in memory as tensors of equal length, shuffled anew each epoch by a permutation keyed by (seed, epoch).

    `batch(i)` gives rows `i * size … (i + 1) * size` of the endless concatenation of shuffled epochs, plus their `index`.
    """

    def __init__(self, columns: Mapping[str, Tensor], size: int, seed: int) -> None:
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1 or not min(lengths.values()):
            raise DataError(f"columns of one non-zero length are needed, not {lengths}")
        self.columns, self.size, self.seed = dict(columns), size, seed
        self.rows = next(iter(lengths.values()))
        self._orders: dict[int, Tensor] = {}

    def batch(self, index: int) -> dict[str, Tensor]:
        rows = self.indices(index)
        return {name: column[rows] for name, column in self.columns.items()} | {"index": rows}

    def indices(self, index: int) -> Tensor:
        """(size,) row numbers of batch `index`."""
        positions = torch.arange(index * self.size, (index + 1) * self.size)
        epochs = positions // self.rows
        return torch.stack([self._order(int(e))[int(p) % self.rows] for p, e in zip(positions, epochs, strict=True)])

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            # Only the epochs that a batch can straddle are kept.
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = torch.randperm(self.rows, generator=generator((self.seed, "epoch", epoch)))
        return self._orders[epoch]


@dataclass(frozen=True)
class Staged:
    """`first` for the first `steps` batches, `then` from its own beginning afterwards: a curriculum that stays a function of the index."""

    first: Stream
    steps: int
    then: Stream

    def batch(self, index: int) -> Mapping[str, Any]:
        return self.first.batch(index) if index < self.steps else self.then.batch(index - self.steps)


@dataclass(frozen=True)
class Beside:
    """Several streams at once: `streams`' batches under their names, "drawings.images" say."""

    streams: Mapping[str, Stream]

    def batch(self, index: int) -> Mapping[str, Any]:
        return {f"{name}.{key}": value for name, stream in self.streams.items() for key, value in stream.batch(index).items()}
