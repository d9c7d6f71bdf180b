"""A file of the user's own prompts, one a line: words alone, or a JSON object that also says what the picture must show.

A line that cannot be used is named with its number and what is wrong; the others stand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from ...core.config import from_dict
from ...core.errors import SfumatoError, UnknownNameError, UsageError
from ...data.scenes.colours import TINTS
from ..judge import Judge
from ..metrics import Asked, Facts
from ..metrics.tasks import RelationName

EXAMPLE = 'a line looks like {"prompt": "two foxes, noto style", "objects": [{"concept": "fox", "count": 2}]}'
LARGEST_SEED = 2**63 - 1
MOST_COUNTED = 99
LONGEST_REASON = 200


@dataclass(frozen=True)
class Thing:
    """An object the picture must show: a concept of the judge; exactly `count` of it, in a colour and in a style where given."""

    concept: str
    count: int | None = None
    colour: str = ""
    style: str = ""


@dataclass(frozen=True)
class Line:
    """A JSON line. `relation`: how the second of two objects lies to the first; `words`: what is to be read in the picture."""

    prompt: str
    seed: int | None = None
    objects: tuple[Thing, ...] = ()
    relation: RelationName | None = None
    words: str | None = None


@dataclass(frozen=True)
class Asking:
    """A prompt of the file: `facts` None = alignment alone."""

    number: int
    prompt: str
    seed: int | None = None
    facts: Facts | None = None


@dataclass(frozen=True)
class BadLine:
    """A line that is left out: its number in the file, counted from 1, and why."""

    number: int
    reason: str


def read_lines(numbered: Sequence[tuple[int, str]], json_lines: bool, judge: Judge) -> tuple[list[Asking], list[BadLine]]:
    """The prompts of (number, text) lines, and the lines that are none. Raises `UsageError` when no line is good."""
    good: list[Asking] = []
    bad: list[BadLine] = []
    for number, text in numbered:
        try:
            good.append(_parse(number, text, judge) if json_lines else Asking(number, _sound(text)))
        except SfumatoError as error:
            # A message quotes values, which may be as long as the file.
            bad.append(BadLine(number, shorten(error.message, LONGEST_REASON, placeholder=" ...")))
    if not good:
        told = "; ".join(f"line {line.number}: {line.reason}" for line in bad[:5])
        none = f"none of {len(bad)} lines is a prompt" if len(bad) > 1 else "the one line is no prompt"
        raise UsageError(f"{none}: {told}" if bad else "there is no prompt", EXAMPLE)
    return good, bad


def _parse(number: int, text: str, judge: Judge) -> Asking:
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{text[:40]} is no JSON object")
    line = from_dict(Line, content)
    if line.seed is not None and not 0 <= line.seed <= LARGEST_SEED:
        raise UsageError(f"seed is {line.seed}, not from 0 to {LARGEST_SEED}")
    asked = tuple(_asked(thing, judge) for thing in line.objects)
    if line.words is not None:
        _sound(line.words, "words are")
    stated = asked or line.words is not None or line.relation is not None
    return Asking(number, _sound(line.prompt), line.seed, Facts(asked, line.relation, line.words) if stated else None)


def _once(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    """An object whose names are given once: of two values one would be ignored."""
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice!r} is given twice")
    return dict(pairs)


def _sound(text: str, name: str = "prompt is") -> str:
    """Text that is not empty and can be written down: a lone surrogate cannot."""
    if not text.strip():
        raise UsageError(f"the {name} empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the {name} no text: half a character at {error.start}") from error
    return text


def _asked(thing: Thing, judge: Judge) -> Asked:
    _known("concept", thing.concept, judge.concepts)
    if thing.colour:
        _known("colour", thing.colour, tuple(TINTS))
    if thing.style:
        _known("style", thing.style, judge.styles)
    if thing.count is not None and not 1 <= thing.count <= MOST_COUNTED:
        raise UsageError(f"count is {thing.count}, not from 1 to {MOST_COUNTED}")
    return Asked(thing.concept, thing.count, thing.colour, thing.style)


def _known(field: str, name: str, names: Sequence[str]) -> None:
    """Refuse a name that no judge can look for, with the nearest; all are listed where they are few."""
    if name in names:
        return
    nearest = UnknownNameError(field, name, names).nearest
    hint = f"; did you mean {' or '.join(map(repr, nearest))}?" if nearest else f"; known: {', '.join(names)}" if len(names) < 20 else ""
    raise UsageError(f"the judge knows no {field} {name!r}{hint}")
