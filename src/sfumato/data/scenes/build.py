"""Write samples of one kind as a folder that `open_source` reads: parquet shards and a manifest, resumable, checksummed."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from sfumato.core import files
from sfumato.core.errors import UnknownNameError, UsageError

from ..building import ROWS_PER_SHARD, Progress, in_order, open_folder, reporter, sound, write_manifest, write_table
from ..splits import SPLITS
from .cast import Cast
from .content import level_of
from .description import SCENES_VERSION
from .rows import row_of, schema
from .samples import KINDS

FORMAT = "sfumato-scenes"


@dataclass(frozen=True)
class Report:
    """What a build made: rows per split, files in all, and how many of them were there already."""

    out: Path
    counts: dict[str, int]
    shards: int
    shards_kept: int

    @property
    def rows(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class _Job:
    folder: str
    mark: str
    kind: str
    seed: int
    index: int
    difficulty: int
    size: int


def build_scenes(
    out: Path,
    data: Path,
    *,
    kind: str = "scenes",
    count: int = 1000,
    seed: int = 0,
    difficulty: int = 3,
    size: int = 128,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool | Progress = True,
) -> Report:
    """Build (or complete, or verify) samples (seed, 0) to (seed, count - 1) of `kind` in the folder `out`, from the EmojiWorld in `data`.

    `workers`: processes (None: one per core); `overwrite`: replace a folder that holds something else. Raises `UsageError` (an
    option), `DataError` (the EmojiWorld) or `OutputError` (disk, occupied folder).
    """
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    level_of(difficulty)
    if not 16 <= size <= 2048:
        raise UsageError(f"size is {size}", f"from 16 to 2048 pixels; the nearest is {min(max(size, 16), 2048)}")
    for name, value, least in (("count", count, 1), ("seed", seed, 0), ("workers", workers or (1 if workers is None else 0), 1)):
        if value < least:
            raise UsageError(f"{name} is {value}", f"at least {least}")
    world = open_world(data)
    request = {
        "format": FORMAT, "scenes_version": SCENES_VERSION, "kind": kind, "count": count, "seed": seed, "difficulty": difficulty,
        "size": size, "world": world,
    }  # fmt: skip
    before = open_folder(out, request, overwrite)
    plan = {f"data/{kind}-{k:05d}.parquet": range(s, min(s + ROWS_PER_SHARD, count)) for k, s in enumerate(range(0, count, ROWS_PER_SHARD))}
    marks = {file: sha256(f"{json.dumps(request)}|{rows}".encode()).hexdigest() for file, rows in plan.items()}
    done = {file: before[file] for file in plan if file in before and sound(out, before[file], marks[file])}
    kept, todo = len(done), [file for file in plan if file not in done]
    jobs = [_Job(str(data), world, kind, seed, index, difficulty, size) for file in todo for index in plan[file]]
    made = in_order(_make, jobs, workers or os.cpu_count() or 1)
    with reporter(progress) as report:
        finished = 0
        for file in todo:
            rows: list[dict[str, Any]] = []
            for _ in plan[file]:
                rows.append(next(made))
                finished += 1
                report(finished, len(jobs), kind)
            done[file] = {"file": file, **write_table(out / file, rows, schema()), "fingerprint": marks[file]}
            write_manifest(out, request, [done[f] for f in plan if f in done], complete=False)
    shards = [done[file] for file in plan]
    found = sum((Counter(shard["splits"]) for shard in shards), Counter[str]())
    counts: dict[str, int] = {split: found[split] for split in SPLITS}
    write_manifest(out, request, shards, complete=True, counts=counts)
    return Report(out, counts, len(shards), kept)


def open_world(data: Path) -> str:
    """The checksum that names an EmojiWorld folder, which is opened on the way. Raises `DataError` when it is none."""
    manifest = data / "manifest.json"
    mark = files.sha256(manifest) if manifest.is_file() else ""
    _cast(str(data), mark)
    return mark


@lru_cache(maxsize=1)
def _cast(folder: str, mark: str) -> Cast:
    """The drawings, opened once a process; forked children find them here. `mark` tells a rebuilt folder from the old one."""
    return Cast.open(folder)


def _make(job: _Job) -> dict[str, Any]:
    return row_of(_cast(job.folder, job.mark), job.kind, job.seed, job.index, job.difficulty, job.size)
