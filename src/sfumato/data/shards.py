"""One row per drawing, and the parquet file that holds a chunk of them: byte-identical for identical drawings (no clock, no path in it)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from .building import write_table
from .captions import drawing_captions
from .drawings import Drawing
from .splits import split_of

ROW_VERSION = 1
"""Raise when the same drawing would give another row, so that old shards are made anew."""


@cache
def _schema() -> Any:
    """The Arrow schema, with the notes by which `datasets` knows that `image` is a picture."""
    import pyarrow as pa

    text, texts = {"dtype": "string", "_type": "Value"}, {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}
    number = {"dtype": "int32", "_type": "Value"}
    names = "id concept style package version licence split hexcode emoji group subgroup gender skin_tone"
    fields: dict[str, tuple[Any, Any]] = {name: (pa.string(), text) for name in names.split()}
    fields |= {name: (pa.list_(pa.string()), texts) for name in ("tags", "colours", "captions")}
    fields["labels"] = (
        pa.list_(pa.struct([("language", pa.string()), ("label", pa.string())])),
        {"feature": {"language": text, "label": text}, "_type": "List"},
    )
    fields |= {"svg": (pa.string(), text), "width": (pa.int32(), number), "height": (pa.int32(), number)}
    fields["image"] = (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"})
    notes = {"info": {"features": {name: note for name, (_, note) in fields.items()}}}
    return pa.schema([(name, kind) for name, (kind, _) in fields.items()], metadata={"huggingface": json.dumps(notes)})


def row_of(drawing: Drawing, png: bytes, colours: Sequence[str], size: int) -> dict[str, Any]:
    """The row of a rendered drawing: names, attributes, captions, SVG and a PNG whose alpha is the drawing's mask."""
    entry, style = drawing.entry, drawing.style
    return {
        "id": drawing.id,
        "concept": entry.label,
        "style": style.word,
        "package": style.package,
        "version": drawing.version,
        "licence": style.licence,
        "split": split_of(entry.label, style.word),
        "hexcode": entry.hexcode,
        "emoji": entry.emoji,
        "group": entry.group,
        "subgroup": entry.subgroup,
        "gender": entry.gender,
        "skin_tone": entry.skin_tone,
        "tags": list(entry.tags),
        "colours": list(colours),
        "captions": list(drawing_captions(entry.label, style.word, entry.tags, colours)),
        "labels": [{"language": language, "label": label} for language, label in entry.labels],
        "svg": drawing.svg,
        "width": size,
        "height": size,
        "image": {"bytes": png, "path": f"{drawing.name}.png"},
    }


def fingerprint(drawings: Sequence[Drawing], size: int) -> str:
    """sha256 of everything a shard is made from."""
    digest = hashlib.sha256(f"{ROW_VERSION}|{size}".encode())
    for drawing in drawings:
        digest.update(json.dumps(asdict(drawing), sort_keys=True).encode())
    return digest.hexdigest()


def write_shard(path: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write `rows` as parquet, atomically. Returns the shard's record: style, rows, splits, sha256. Raises `OutputError`."""
    return {"style": rows[0]["style"] if rows else "", **write_table(path, rows, _schema())}
