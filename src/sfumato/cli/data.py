"""`sfumato data emoji` builds EmojiWorld (`data/emoji.py`), `sfumato data scenes` composes its drawings (`data/scenes/`)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from .verb import Verb, unset


@dataclass(frozen=True, kw_only=True)
class Emoji(Verb):
    """Build EmojiWorld: openly licensed drawings with captions, as parquet files. Run again, it completes or verifies the folder."""

    # The folder to build.
    out: Path
    # Pixels of a side.
    size: int = 128
    # Only these styles, for example: noto "fluent 3d".
    styles: Annotated[tuple[str, ...] | None, unset("all")] = None
    # Also the skin-tone variants.
    skin_tones: bool = False
    # A node_modules folder that holds the packages.
    packages: Annotated[Path | None, unset("they are fetched with the npm client, once")] = None
    # Processes that render.
    workers: Annotated[int | None, unset("one per core")] = None
    # Replace a folder that holds something else.
    overwrite: bool = False
    # No progress bar.
    quiet: bool = False

    def run(self) -> int:
        from ..data.emoji import build_emoji

        report = build_emoji(
            self.out,
            size=self.size,
            styles=self.styles,
            skin_tones=self.skin_tones,
            packages=self.packages,
            workers=self.workers,
            overwrite=self.overwrite,
            progress=not self.quiet and sys.stderr.isatty(),
        )
        for style, splits in report.counts.items():
            print(f"{style:12} " + "  ".join(f"{split} {count}" for split, count in splits.items()))
        kept = f", {report.shards_kept} of {report.shards} files were there already" if report.shards_kept else ""
        print(f"{report.rows} drawings in {report.out}; {report.quarantined} left out (quarantine.jsonl says why){kept}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Scenes(Verb):
    """Compose EmojiWorld's drawings into scenes with exact captions, masks and boxes. Run again, it completes or verifies the folder."""

    # The EmojiWorld folder to take drawings from.
    data: Path
    # The folder to build.
    out: Path
    # How many samples.
    count: int = 1000
    # Another seed, other samples.
    seed: int = 0
    # From 1 (one thing on a plain ground) to 5 (up to nine things of several styles, overlapping, with signs).
    difficulty: int = 3
    # Pixels of a side.
    size: int = 128
    # What a sample is: scenes, edits, subjects, stories, videos, tryon, documents or probes.
    kind: str = "scenes"
    # Processes that draw.
    workers: Annotated[int | None, unset("one per core")] = None
    # Replace a folder that holds something else.
    overwrite: bool = False
    # No progress bar.
    quiet: bool = False

    def run(self) -> int:
        from ..data.scenes.build import build_scenes

        report = build_scenes(
            self.out,
            self.data,
            kind=self.kind,
            count=self.count,
            seed=self.seed,
            difficulty=self.difficulty,
            size=self.size,
            workers=self.workers,
            overwrite=self.overwrite,
            progress=not self.quiet and sys.stderr.isatty(),
        )
        kept = f", {report.shards_kept} of {report.shards} files were there already" if report.shards_kept else ""
        print(f"{report.rows} {self.kind} in {report.out}: " + "  ".join(f"{split} {n}" for split, n in report.counts.items()) + kept)
        return 0
