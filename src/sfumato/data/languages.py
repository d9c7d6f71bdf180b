"""Captions in other languages: the labels that Unicode's translators gave each emoji, as EmojiWorld keeps them beside the English ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sfumato.core.errors import DataError, UnknownNameError

from .sources import Source

_COLON = re.compile(r"\s*[:：]\s*")


def captions_in(source: Source, languages: Sequence[str]) -> list[tuple[str, ...]]:
    """Of every row two captions in each of `languages` ("de", "ja", ...): its label, and the label with the style.

    A row that has no label in a language (a drawing that is no emoji) repeats its first and second caption. Raises `DataError` for a source
    without such labels, `UnknownNameError` for a language that none of its rows has.
    """
    try:
        labels, styles = source.column("labels"), source.column("style")
    except UnknownNameError as error:
        raise DataError("these pictures have no labels in other languages", "EmojiWorld's have; for others: no languages") from error
    said = [{entry["language"]: entry["label"] for entry in row or ()} for row in labels]
    for language in languages:
        if not any(language in row for row in said):
            raise UnknownNameError("language", language, {name for row in said for name in row})
    rows = zip(said, styles, source.column("captions"), strict=True)
    return [tuple(text for language in languages for text in _two(row.get(language), style, own)) for row, style, own in rows]


def _two(label: str | None, style: str, own: Sequence[str]) -> tuple[str, str]:
    """ "Flagge: Deutschland" is said "Flagge Deutschland"."""
    said = None if label is None else _COLON.sub(" ", label).strip()
    return (own[0], own[min(1, len(own) - 1)]) if not said else (said, f"{said}, {style} style")
