"""Where pictures and captions come from: EmojiWorld, an image folder, parquet, Arrow or the hub, all read by one loader.

    source = open_source("out/emoji", split="train")
    source[0].image, source[0].captions        # (3, 128, 128) uint8, several texts
    source.images()                            # (N, 3, 128, 128) uint8, for training in memory

A broken picture or caption is left out when the source is opened, with its reason, so `len(source)` counts what can be read.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from sfumato.core.errors import DataError, UnknownNameError, UsageError

from .opening import read_records
from .packages import TRAINABLE
from .pictures import Colour, Pixels, decode
from .records import Records
from .splits import SPLITS, split_of

THREADS = min(16, (os.cpu_count() or 1) + 2)


@dataclass(frozen=True)
class Sample:
    """One picture: `image` (3, H, W) uint8 over the background, `alpha` (H, W) uint8 or None, its captions and attributes."""

    id: str
    image: torch.Tensor
    alpha: torch.Tensor | None
    captions: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Broken:
    """A row that was left out, and why."""

    id: str
    reason: str


class Source:
    """A sequence of `Sample`s, decoded when asked for. `quarantine` lists broken rows, `excluded` counts rows per barred licence."""

    def __init__(self, records: Records, rows: Sequence[int], size: int, background: Colour, excluded: Mapping[str, int]) -> None:
        self._records, self._rows, self.size, self.background = records, list(rows), size, background
        self.excluded = MappingProxyType(dict(excluded))
        self.quarantine: list[Broken] = []

    def at(self, size: int) -> Source:
        """The same rows as pictures of `size` x `size`."""
        if size < 1:
            raise UsageError(f"size {size}", "at least 1 pixel")
        resized = copy.copy(self)
        resized.size = size
        return resized

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Sample:
        row = self._rows[i]
        rgb, alpha = self._pixels(row)
        image = torch.from_numpy(rgb).permute(2, 0, 1).contiguous()
        attributes = MappingProxyType(dict(self._records.attributes(row)))
        mask = None if alpha is None else torch.from_numpy(alpha)
        return Sample(self._records.id(row), image, mask, self._records.captions(row), attributes)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def _pixels(self, row: int) -> tuple[Pixels, Pixels | None]:
        return decode(self._records.image(row), self.size, self.background)

    def encoded(self, i: int) -> bytes:
        """The bytes of picture `i` as stored, whatever their format. Raises `DataError` when the row has none."""
        return self._records.image(self._rows[i])

    def images(self) -> torch.Tensor:
        """(N, 3, size, size) uint8 of all rows, decoded by several threads; N * size * size * 3 bytes of memory."""
        result = np.empty((len(self), 3, self.size, self.size), np.uint8)

        def fill(i: int) -> None:
            result[i] = self._pixels(self._rows[i])[0].transpose(2, 0, 1)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fill, range(len(self))))
        return torch.from_numpy(result)

    def column(self, name: str) -> list[Any]:
        """All rows' values of "id", "captions" or an attribute, without decoding a picture. Raises `UnknownNameError`."""
        if name == "id":
            return [self._records.id(row) for row in self._rows]
        if name == "captions":
            return [self._records.captions(row) for row in self._rows]
        values = self._records.column(name)
        if values is not None:
            return [values[row] for row in self._rows]
        attributes = [self._records.attributes(row) for row in self._rows]
        known = {key for row in attributes for key in row}
        if name not in known:
            raise UnknownNameError("column", name, known | {"id", "captions"})
        return [row.get(name) for row in attributes]

    def check(self) -> None:
        """Read every row once and move the broken ones to `quarantine`. Raises `DataError` when none is left."""

        def problem(row: int) -> str | None:
            try:
                self._records.captions(row)
                self._records.attributes(row)
                self._pixels(row)
            except DataError as error:
                return error.message
            return None

        with ThreadPoolExecutor(THREADS) as pool:
            problems = list(pool.map(problem, self._rows))
        pairs = list(zip(self._rows, problems, strict=True))
        self.quarantine += [Broken(self._records.id(row), reason) for row, reason in pairs if reason is not None]
        self._rows = [row for row, reason in pairs if reason is None]
        if not self._rows:
            first = self.quarantine[0]
            raise DataError(f"none of the {len(self.quarantine)} pictures can be read; {first.id}: {first.reason}")


def open_source(
    spec: str | Path,
    *,
    split: str | None = None,
    licences: Sequence[str] | None = TRAINABLE,
    size: int = 128,
    background: Colour = (255, 255, 255),
    check: bool | None = None,
) -> Source:
    """Open a data set: an EmojiWorld folder, an image folder, a parquet file or folder, an Arrow folder, or a hub name ("org/name").

    `split`: train, validation or test (None: all); sources without splits of their own are split by the hash of the first caption.
    `licences`: only rows under these, where rows have a licence (None: all; the default bars share-alike). Pictures come as
    `size` x `size` over `background`. `check` reads every row at opening to quarantine broken ones (None: all sources but
    EmojiWorld, whose files are verified by checksum). Raises `UsageError` or `DataError`.
    """
    if split is not None and split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if size < 1 or len(background) != 3 or not all(0 <= c <= 255 for c in background):
        raise UsageError(f"size {size}, background {background}", "at least 1 pixel; three numbers from 0 to 255")
    records, verified = read_records(spec, split, size)
    rows = _rows_of_split(records, split)
    rows, excluded = _licensed(records, rows, licences)
    if not rows:
        barred = ", ".join(f"{count} under {licence}" for licence, count in excluded.items())
        raise DataError(
            f"{spec} holds no picture for split {split or 'all'}" + (f"; left out: {barred}" if barred else ""),
            f"name the licences you accept, for example {', '.join(excluded)}" if excluded else "choose another split",
        )
    source = Source(records, rows, size, background, excluded)
    if check or (check is None and not verified):
        source.check()
    return source


def _rows_of_split(records: Records, split: str | None) -> list[int]:
    if split is None:
        return list(range(len(records)))
    named = records.column("split")
    return [row for row in range(len(records)) if (named[row] if named else _hashed_split(records, row)) == split]


def _hashed_split(records: Records, row: int) -> str:
    """Rows without a split of their own: equal captions fall together. A row without a caption goes to train, to be quarantined there."""
    try:
        return split_of(records.captions(row)[0], "")
    except DataError:
        return "train"


def _licensed(records: Records, rows: list[int], licences: Sequence[str] | None) -> tuple[list[int], Counter[str]]:
    held = records.column("licence")
    if licences is None or held is None:
        return rows, Counter()
    barred = Counter(str(held[row]) for row in rows if held[row] not in licences)
    return [row for row in rows if held[row] in licences], barred
