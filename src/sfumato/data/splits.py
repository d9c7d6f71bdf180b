"""Which split a drawing belongs to: a pure function of its names, so nobody can leak by accident (shared rule of EmojiWorld)."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def split_of(concept: str, style: str) -> Split:
    """The split of `concept` drawn in `style`: h = sha256("concept|style") mod 100; h < 5 test, h < 8 validation, else train.

    A test concept was never seen in this style, though it may be seen in others.
    """
    h = int(hashlib.sha256(f"{concept}|{style}".encode()).hexdigest(), 16) % 100
    if h < 5:
        return "test"
    return "validation" if h < 8 else "train"
