"""Two models on one suite: paired differences over the prompts or pictures that both have, as `compare.py` has them for drawings."""

from __future__ import annotations

import torch

from ..compare import Comparison, apart, both_drew
from ..features import JudgeFeatures
from ..judge import Judge
from ..metrics import Score
from .outcome import Outcome


def paired(first: Outcome, second: Outcome, judge: Judge) -> Comparison:
    """`first` minus `second`. Raises `UsageError` when they were asked for other prompts or seeds, or share no whole picture."""
    here, there = both_drew(first, second)
    differences = {}
    for title, values in first.values.items():
        others = second.values.get(title, {})
        units = sorted(set(values) & set(others))
        if units:
            differences[title] = Score.mean(torch.tensor([values[unit] - others[unit] for unit in units], dtype=torch.float64))
    distances = apart(first.images[here], second.images[there], JudgeFeatures(judge))
    return Comparison(first.report.model, second.report.model, len(here), differences, {}, distances, first.lower)
