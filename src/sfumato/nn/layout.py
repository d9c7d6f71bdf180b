"""A network's layout as a word: stages from fine to coarse, each a run of block kinds, as in "CCCT-CCTT-CTTT" (AsCAN, arXiv 2411.04967)."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import ConfigError, UnknownNameError

SEPARATOR = "-"


def parse_layout(text: str, kinds: Sequence[str], strict: bool = True) -> tuple[str, ...]:
    """The stages of `text`. `kinds`: letters in the order they may stand in a stage; `strict`: insist on it.

    Raises `UnknownNameError` on another letter and `ConfigError` on an empty stage or, when strict, on kinds out of order.
    """
    stages = tuple(text.split(SEPARATOR))
    for number, stage in enumerate(stages):
        if not stage:
            raise ConfigError(f"stage {number} of the layout {text!r} is empty", f"one letter a block, stages parted by {SEPARATOR!r}")
        for letter in stage:
            if letter not in kinds:
                raise UnknownNameError("block kind", letter, kinds)
        ordered = "".join(sorted(stage, key=list(kinds).index))
        if strict and stage != ordered:
            raise ConfigError(
                f"stage {number} of the layout {text!r} is {stage!r}, where {' comes before '.join(kinds)}",
                f"{ordered!r}, or strict = False",
            )
    return stages


def asymmetric(stages: Sequence[str]) -> bool:
    """Whether some stage has several kinds and not equally many of each; all of one kind, or even, is what the paper calls symmetric."""
    counts = [{letter: stage.count(letter) for letter in stage} for stage in stages]
    return any(len(set(count.values())) > 1 for count in counts)
