"""What is written under a picture: the captions of one drawing in several forms, and the caption files users keep beside images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sfumato.core.errors import DataError

CAPTION_FIELDS = ("caption", "captions", "text", "texts", "prompt", "prompts", "label", "title", "description")


def phrase(label: str) -> str:
    """A Unicode label as it is said: "flag: Germany" -> "flag of Germany", "keycap: 1" -> "keycap 1"."""
    head, colon, tail = label.partition(": ")
    if not colon:
        return label
    return f"{head} of {tail}" if head in ("flag", "family", "couple", "kiss") else f"{head} {tail}"


def drawing_captions(label: str, style: str, tags: Sequence[str], colours: Sequence[str]) -> tuple[str, ...]:
    """Five captions of one drawing: bare label; label and style; a drawing of it; label and tags; a sentence with its colours."""
    said = phrase(label)
    other = [tag for tag in tags if tag.lower() not in said.lower()][:5]
    mostly = f", mostly {' and '.join(colours[:2])}" if colours else ""
    return (
        said,
        f"{said}, {style} style",
        f"a {style} style drawing of {said}",
        ", ".join((said, *other)),
        f"A picture of {said}, drawn in the {style} emoji style{mostly}.",
    )


def caption_list(value: Any) -> tuple[str, ...]:
    """One caption or a list of them, stripped, as a tuple. Raises `DataError` when it holds no text."""
    values = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    captions = tuple(" ".join(v.split()) for v in values if isinstance(v, str) and v.strip())
    if not captions:
        raise DataError(f"no caption in {str(value)[:60]!r}", "a text, or a list of texts, is needed")
    return captions


def read_captions(path: Path) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """(captions, other attributes) from a caption file: `.txt` one caption a line, `.json` a text, a list, or an object.

    An object's captions stand under one of CAPTION_FIELDS; its other fields are attributes. Raises `DataError` on an unreadable,
    damaged or empty file.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the caption {path.name}: {error}", "captions are UTF-8 text") from error
    if path.suffix.lower() == ".txt":
        return caption_list(content.splitlines()), {}
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"damaged caption {path.name}: {error}", "one JSON text, list or object is needed") from error
    if not isinstance(value, dict):
        return caption_list(value), {}
    field = next((name for name in CAPTION_FIELDS if name in value), None)
    if field is None:
        raise DataError(f"{path.name} has no caption field", f"one of {', '.join(CAPTION_FIELDS)}")
    return caption_list(value[field]), {name: v for name, v in value.items() if name != field}
