"""One parquet row per sample: the main picture with masks, depth, edges and boxes, other frames, captions, the description as JSON."""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from sfumato.core import config

from ..packages import HELD_OUT, TRAINABLE
from .captions import negatives
from .cast import Cast
from .description import dice, split_of_scenes
from .painting import render
from .samples import KINDS

TEXTS = ("instruction", "edit", "subject", "word", "body", "skill", "question", "answer")
"""Columns that only some kinds fill; "" in the others."""


@cache
def schema() -> Any:
    """The Arrow schema; `datasets` reads `image` as a picture."""
    import pyarrow as pa

    text, texts, number = pa.string(), pa.list_(pa.string()), pa.int32()
    fields = [(name, text) for name in ("id", "kind", "split", "licence", *TEXTS, "description")]
    fields += [(name, texts) for name in ("drawings", "concepts", "styles", "captions", "regions")]
    fields += [(name, number) for name in ("difficulty", "width", "height")]
    fields += [("seed", pa.int64()), ("index", pa.int64())]
    fields += [
        ("negatives", pa.list_(pa.struct([(name, text) for name in ("caption", "fact", "said", "true")]))),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
        ("masks", pa.list_(pa.binary())),
        *((name, pa.binary()) for name in ("labels", "depth", "edges", "pdf")),
        ("frames", pa.list_(pa.struct([("role", text), ("caption", text), ("png", pa.binary())]))),
        ("image", pa.struct([("bytes", pa.binary()), ("path", text)])),
    ]
    notes = {"info": {"features": {name: _note(kind) for name, kind in fields}}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(notes)})


def _note(kind: Any) -> Any:
    """How the `datasets` library writes down an Arrow type."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return {"feature": _note(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        return {"_type": "Image"} if names == ["bytes", "path"] else {field.name: _note(field.type) for field in kind}
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


def row_of(cast: Cast, kind: str, seed: int, index: int, difficulty: int, size: int) -> dict[str, Any]:
    """The row of sample (seed, index) of `kind` (one of KINDS) with pictures of `size` pixels."""
    sample = KINDS[kind](cast, seed, index, difficulty)
    drawn = render(sample.main, cast, size)
    objects = [thing for one in sample.scenes for thing in one.objects]
    licences = {cast.figures[thing.drawing].licence for thing in objects}
    wrong = negatives(cast, sample.main, dice(f"negatives {kind} {difficulty}", seed, index)) if sample.plain else ()
    name = f"{kind}-{difficulty}-{seed}-{index:06d}"
    return {
        "id": name,
        "kind": kind,
        "split": split_of_scenes(sample.scenes),
        "licence": max(licences, key=(*TRAINABLE, *HELD_OUT).index),  # the most demanding one holds for the whole picture
        **dict.fromkeys(TEXTS, ""),
        **sample.texts,
        "description": json.dumps(config.to_dict(sample.description), ensure_ascii=False),
        "drawings": sorted({thing.drawing for thing in objects}),
        "concepts": sorted({thing.concept for thing in objects}),
        "styles": sorted({thing.style for thing in objects}),
        "captions": list(sample.captions),
        "regions": list(sample.regions),
        "difficulty": difficulty,
        "width": size,
        "height": size,
        "seed": seed,
        "index": index,
        "negatives": [config.to_dict(one) for one in wrong],
        "boxes": [list(box) for box in drawn.boxes],
        "masks": [png(mask) for mask in drawn.full],
        "labels": png(drawn.labels),
        "depth": png(drawn.depth),
        "edges": png(drawn.edges),
        "pdf": sample.pdf(size) if sample.pdf else None,
        "frames": [{"role": role, "caption": said, "png": png(render(one, cast, size).picture)} for role, said, one in sample.frames],
        "image": {"bytes": png(drawn.picture), "path": f"{name}.png"},
    }


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """(H, W, 3) or (H, W) uint8, or (H, W) bool as one bit a pixel, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
