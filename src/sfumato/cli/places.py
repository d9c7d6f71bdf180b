"""Where an evaluation lies: each way of drawing has a folder of its own, and each suite and comparison a page, so that nothing is written
over and what was drawn before is gone on with.

    OUT/[WAY/]PART/                                     pictures and numbers, as OUT/steps-10/bias
    OUT/against-MODEL/[WAY/]PART/                       those of another model
    OUT/[WAY/]report-SUITE[-against-OTHER].html         and comparison-... .json beside it
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .jobs import LONGEST_NAME


@dataclass(frozen=True)
class Seen:
    """What was seen of one model, by part; `root` holds all its ways of drawing, `way` is the folder of this one, "" = as the model is
    drawn by itself."""

    model: str
    root: Path
    way: str
    parts: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.root / self.way


def way_of(words: Sequence[str]) -> str:
    """A folder's name for what is told of a way of drawing: readable, and another where a long one is cut. "" for nothing."""
    told = " ".join(filter(None, words))
    name = re.sub(r"[^\w.=+]+", "-", told).strip("-.").lower()
    if len(name.encode()) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(told.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}-{mark}"


def page_of(asked: str, models: Sequence[Seen]) -> str:
    """What the files of a page are called after, for what was `asked` of one model or two."""
    if len(models) < 2:
        return asked
    first, second = models
    other = [] if second.root == first.root else [second.model]
    return "-".join([asked, "against", *other, *([second.way] if second.way else [] if other else ["plain"])])
