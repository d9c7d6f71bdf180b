"""Two models on one suite: paired differences over the prompts or pictures that both have, as `compare.py` has them for drawings."""

from __future__ import annotations

import torch

from ...core.errors import UsageError
from ..compare import Comparison, apart
from ..features import JudgeFeatures
from ..judge import Judge
from ..metrics import Score
from .outcome import Outcome


def paired(first: Outcome, second: Outcome, judge: Judge) -> Comparison:
    """`first` minus `second`. Raises `UsageError` when they were asked for other prompts or seeds, or share no whole picture."""
    a, b = first.report, second.report
    if a.seed != b.seed:
        raise UsageError(f"{a.model} drew with seed {a.seed}, {b.model} with seed {b.seed}", "ask the same")
    shared = sorted(set(first.places) & set(second.places))
    if not shared:
        raise UsageError(f"{a.model} and {b.model} share no whole picture", "nothing can be compared")
    here, there = (torch.tensor([side.places.index(place) for place in shared]) for side in (first, second))
    if [a.prompts[i] for i in here] != [b.prompts[i] for i in there]:
        raise UsageError(f"{a.model} and {b.model} were asked for other prompts", "evaluate both on the same data and count")
    differences = {}
    for title, values in first.values.items():
        others = second.values.get(title, {})
        units = sorted(set(values) & set(others))
        if units:
            differences[title] = Score.mean(torch.tensor([values[unit] - others[unit] for unit in units], dtype=torch.float64))
    distances = apart(first.images[here], second.images[there], JudgeFeatures(judge))
    return Comparison(a.model, b.model, len(shared), differences, {}, distances, first.lower)
