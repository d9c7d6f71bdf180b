"""Build EmojiWorld's single drawings: packages -> joined names -> rendered rows -> parquet shards with checksums.

A folder holds `data/<style>-<chunk>.parquet`, `manifest.json` (what was asked, every shard's sha256 and counts) and
`quarantine.jsonl` (what was left out, and why). A shard is a pure function of its drawings and the size: a second run verifies
and skips it, an interrupted run goes on where it stopped, and the same packages give the same bytes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core.errors import UsageError

from .building import ROWS_PER_SHARD, Progress, open_folder, reporter, sound, write_changed, write_manifest
from .drawings import Drawing, Drawings, collect
from .names import read_json
from .packages import LABELS, STYLES, choose_styles, find_packages, read_icon_set
from .render import Rendered, render_all
from .shards import fingerprint, row_of, write_shard
from .splits import SPLITS

FORMAT = "sfumato-emoji"
WORLD_VERSION = 1


@dataclass(frozen=True)
class Report:
    """What a build made: rows per style and split, how many icons were joined to a Unicode label, what was left out."""

    out: Path
    counts: dict[str, dict[str, int]]
    joined: dict[str, int]
    quarantined: int
    duplicates: int
    shards: int
    shards_kept: int

    @property
    def rows(self) -> int:
        return sum(sum(split.values()) for split in self.counts.values())


def build_emoji(
    out: Path,
    *,
    size: int = 128,
    styles: Sequence[str] | None = None,
    skin_tones: bool = False,
    packages: Path | None = None,
    concepts: Iterable[str] | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool | Progress = True,
) -> Report:
    """Build (or complete, or verify) the data set in the folder `out`; pictures are `size` pixels square.

    `styles`: style words (None: the eight of `STYLES`); `packages`: an existing node_modules folder (None: the npm client fetches into the
    cache); `concepts`: only these labels (for fixtures); `workers`: processes (None: one per core); `overwrite`: replace a folder
    that holds something else. Raises `UsageError` (size, style), `DataError` (packages) or `OutputError` (disk, occupied folder).
    """
    if not 8 <= size <= 2048:
        raise UsageError(f"size is {size}", f"from 8 to 2048 pixels; the nearest is {min(max(size, 8), 2048)}")
    if workers is not None and workers < 1:
        raise UsageError(f"workers is {workers}", "at least 1")
    chosen = choose_styles(styles)
    wanted = None if concepts is None else sorted(set(concepts))
    more = [style for style in chosen if style not in STYLES]
    modules = find_packages((*STYLES, *more), packages)
    # All sets are read whatever is drawn: each teaches the others' names, and a concept (hence its split) must not hang on `styles`.
    sets = [read_icon_set(style, modules) for style in (*STYLES, *more)]
    request = {
        "format": FORMAT,
        "world_version": WORLD_VERSION,
        "size": size,
        "styles": [style.word for style in chosen],
        "skin_tones": skin_tones,
        "concepts": wanted,
        "packages": {LABELS[0]: read_json(modules / LABELS[0] / "package.json")["version"]} | {s.style.package: s.version for s in sets},
    }
    before = open_folder(out, request, overwrite)
    found = collect(sets, modules / LABELS[0], chosen, skin_tones=skin_tones, concepts=wanted)
    del sets
    shards, kept = _build(out, request, _plan(found.drawings), before, size, workers or os.cpu_count() or 1, progress)
    return _finish(out, request, shards, kept, found)


def _plan(drawings: Sequence[Drawing]) -> dict[str, list[Drawing]]:
    """Shard file -> its drawings: each style in chunks of ROWS_PER_SHARD, in order."""
    by_style: dict[str, list[Drawing]] = {}
    for drawing in drawings:
        by_style.setdefault(drawing.style.slug, []).append(drawing)
    return {
        f"data/{slug}-{start // ROWS_PER_SHARD:03d}.parquet": group[start : start + ROWS_PER_SHARD]
        for slug, group in by_style.items()
        for start in range(0, len(group), ROWS_PER_SHARD)
    }


def _build(
    out: Path,
    request: dict[str, Any],
    plan: dict[str, list[Drawing]],
    before: dict[str, dict[str, Any]],
    size: int,
    workers: int,
    progress: bool | Progress,
) -> tuple[list[dict[str, Any]], int]:
    """Write the shards that are missing or damaged; (all shards' records in the plan's order, how many were kept)."""
    marks = {file: fingerprint(drawings, size) for file, drawings in plan.items()}
    done = {file: before[file] for file in plan if file in before and sound(out, before[file], marks[file])}
    kept = len(done)
    todo = [file for file in plan if file not in done]
    rendered = render_all([drawing.svg for file in todo for drawing in plan[file]], size, workers)
    with reporter(progress) as report:
        finished, total = 0, sum(len(plan[file]) for file in todo)
        if todo:
            write_manifest(out, request, [done[file] for file in plan if file in done], complete=False)
        for file in todo:
            rows: list[dict[str, Any]] = []
            broken: list[list[str]] = []
            for drawing in plan[file]:
                _keep(drawing, next(rendered), size, rows, broken)
                finished += 1
                report(finished, total, drawing.style.word)
            done[file] = {"file": file, **write_shard(out / file, rows), "fingerprint": marks[file], "quarantined": broken}
            write_manifest(out, request, [done[f] for f in plan if f in done], complete=False)
    return [done[file] for file in plan], kept


def _keep(drawing: Drawing, rendered: Rendered, size: int, rows: list[dict[str, Any]], broken: list[list[str]]) -> None:
    if isinstance(rendered, str):
        broken.append([drawing.id, rendered])
    else:
        rows.append(row_of(drawing, *rendered, size))


def _finish(out: Path, request: dict[str, Any], shards: list[dict[str, Any]], kept: int, found: Drawings) -> Report:
    """Write quarantine.jsonl and the complete manifest."""
    quarantine = [list(pair) for pair in found.quarantine] + [pair for shard in shards for pair in shard["quarantined"]]
    lines = "".join(json.dumps({"id": name, "reason": reason}, ensure_ascii=False) + "\n" for name, reason in sorted(quarantine))
    write_changed(out / "quarantine.jsonl", lines.encode())
    styles = list(dict.fromkeys(drawing.style.word for drawing in found.drawings))
    counts: dict[str, dict[str, int]] = {word: dict.fromkeys(SPLITS, 0) for word in styles}
    for shard in shards:
        for split, count in shard["splits"].items():
            counts[shard["style"]][split] += count
    joined = Counter(drawing.style.word for drawing in found.drawings if drawing.joined)
    joins = {word: joined[word] for word in styles}
    left_out = {"quarantined": len(quarantine), "duplicates": found.duplicates}
    write_manifest(out, request, shards, complete=True, counts=counts, joined=joins, **left_out)
    return Report(out, counts, joins, len(quarantine), sum(found.duplicates.values()), len(shards), kept)
