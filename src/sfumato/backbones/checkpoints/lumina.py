"""What the two Lumina formats share: MLP widths, which their configs give by a rule, and the conventions of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.denoiser import Meaning

# Their t is 0 at noise and 1 at data, and they predict data - noise; their pipelines turn both round.
MEANING = Meaning("velocity", time_map="reversed")
MULTIPLE = 256


def hidden(theirs: Mapping[str, Any], inner: int) -> int:
    """An MLP's hidden width: `inner`, times a factor if there is one, rounded up to a multiple."""
    factor, multiple = theirs.get("ffn_dim_multiplier"), theirs.get("multiple_of", MULTIPLE)
    wanted = inner if factor is None else int(factor * inner)
    return int(multiple * -(-wanted // multiple))


def hidden_rule(width: int, inner: int) -> dict[str, Any]:
    """The rule that gives `width`: the published one where it does, else a factor."""
    if width == hidden({}, inner):
        return {"multiple_of": MULTIPLE, "ffn_dim_multiplier": None}
    return {"multiple_of": 1, "ffn_dim_multiplier": (width + 0.5) / inner}  # half a channel, for the factor is rounded down
