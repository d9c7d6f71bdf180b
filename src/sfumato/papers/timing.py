"""Speed compared: several runs timed in turn, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any

import torch

from ..evaluate.metrics import student


def in_turn(runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every run in each round, after one that is not counted: of this process' processors, or by the clock where a GPU works."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            started = clock()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(clock() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], run: str, against: str) -> tuple[float, tuple[float, float]]:
    """Mean of `run` over `against`, round by round, and its 95% interval."""
    ratios = [a / b for a, b in zip(seconds[run], seconds[against], strict=True)]
    return mean(ratios), student(torch.tensor(ratios, dtype=torch.float64))
