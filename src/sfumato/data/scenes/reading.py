"""Scenes for a model to learn from: folders that `sfumato data scenes` built, read as one source whose captions come in four forms.

A scene has as many captions as its groups and relations give. Here each has one of every form, so that a batch can share a form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.errors import DataError, UsageError

from ..names import read_json
from ..opening import read_records
from ..packages import TRAINABLE
from ..records import Records
from ..sources import Source

FORMS = ("short", "reversed", "related", "long")
"""What each caption of `SceneRecords` is: the things, the same told the other way round, one relation, every fact."""


def forms_of(captions: Sequence[str], turn: int) -> tuple[str, str, str, str]:
    """The FORMS of a scene from all its `captions` (as `captions_of` orders them); `turn` chooses among its relations.

    A scene of one thing has no order and no relation: its short caption stands for both.
    """
    if len(captions) == 2:
        short, long = captions
        return short, short, short, long
    short, turned, *related, first, last = captions
    return short, turned, related[turn % len(related)] if related else short, (first, last)[turn % 2]


class SceneRecords:
    """The rows of several folders one after the other, each with one caption of every form. Implements `Records`."""

    def __init__(self, parts: Sequence[Records]) -> None:
        self._parts = parts
        self._at = [(part, row) for part in parts for row in range(len(part))]

    def __len__(self) -> int:
        return len(self._at)

    def id(self, i: int) -> str:
        part, row = self._at[i]
        return part.id(row)

    def captions(self, i: int) -> tuple[str, ...]:
        part, row = self._at[i]
        return forms_of(part.captions(row), row)

    def attributes(self, i: int) -> Mapping[str, Any]:
        part, row = self._at[i]
        return part.attributes(row)

    def image(self, i: int) -> bytes:
        part, row = self._at[i]
        return part.image(row)

    def column(self, name: str) -> list[Any] | None:
        columns = [part.column(name) for part in self._parts]
        return None if None in columns else [value for column in columns for value in column or ()]


def open_scenes(folders: Sequence[str | Path], *, split: str, size: int = 128, most: int = 4) -> Source:
    """The scenes of `folders` in `split` with at most `most` objects (a sign is none), from drawings that may be trained on.

    Raises `UsageError` when a folder comes twice, `DataError` when one is missing or was not built by `sfumato data scenes`, or when
    no scene is left.
    """
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise UsageError(f"a folder of scenes is named twice: {', '.join(map(str, folders))}", "each once")
    records = SceneRecords([_records(Path(folder), split, size) for folder in folders])
    column = {name: records.column(name) or [] for name in ("split", "licence", "description")}
    rows = [i for i, licence in enumerate(column["licence"]) if column["split"][i] == split and licence in TRAINABLE]
    rows = [i for i in rows if len(json.loads(column["description"][i])["objects"]) <= most]
    if not rows:
        named = ", ".join(map(str, folders))
        raise DataError(f"{named}: no scene of the {split} split has at most {most} objects", "make more scenes, or allow more objects")
    return Source(records, rows, size, (255, 255, 255), {})


def _records(folder: Path, split: str, size: int) -> Records:
    """The rows of one folder, verified by its checksums."""
    manifest = read_json(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
    if folder.exists() and (manifest.get("format"), manifest.get("kind")) != ("sfumato-scenes", "scenes"):
        found = manifest.get("kind") or manifest.get("format") or "no manifest.json"
        raise DataError(f"{folder} is no folder of scenes ({found})", "make one: sfumato data scenes --data data/emoji --out FOLDER")
    return read_records(folder, split, size)[0]
