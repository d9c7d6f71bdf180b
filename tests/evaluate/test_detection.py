"""Average precision by hand, and against the definition on random detections."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.evaluate.metrics.detection import average_precision, matches, mean_average_precision, overlap
from sfumato.evaluate.metrics.tasks import Detection

A, B, FAR = (0.0, 0.0, 0.4, 0.4), (0.0, 0.0, 0.4, 0.3), (0.6, 0.6, 0.9, 0.9)


def test_a_thing_is_found_once_by_the_surest() -> None:
    found = [Detection("cat", B, 0.5), Detection("cat", A, 0.9), Detection("dog", A, 0.99), Detection("cat", FAR, 0.8)]
    assert overlap(found[0], found[1]) == pytest.approx(0.75)
    assert matches(found, [Detection("cat", A, 1.0)]) == [False, True, False, False]
    assert matches(found, [Detection("cat", A, 1.0), Detection("cat", A, 1.0)]) == [True, True, False, False]
    assert matches(found, []) == [False] * 4


def test_average_precision_by_hand() -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    # right, wrong, right, wrong of 3 things: precision 1 at recall 1/3, 2/3 at 2/3.
    right = torch.tensor([True, False, True, False])
    assert average_precision(scores, right, 3) == pytest.approx(1 / 3 + (1 / 3) * (2 / 3))
    assert average_precision(scores[:0], right[:0], 3) == 0.0
    assert average_precision(scores, torch.ones(4, dtype=torch.bool), 4) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.integers(0, 5))
def test_average_precision_is_the_area_under_the_best_precision_at_each_recall(rows: list[tuple[float, bool]], missed: int) -> None:
    scores, right = (torch.tensor(column) for column in zip(*rows, strict=True))
    truths = int(right.sum()) + missed
    if not truths:
        return
    ordered = [bool(right[k]) for k in scores.argsort(descending=True, stable=True)]
    precisions = [sum(ordered[: n + 1]) / (n + 1) for n in range(len(ordered))]
    area = sum(max(precisions[n:]) / truths for n, hit in enumerate(ordered) if hit)
    assert average_precision(scores, right, truths) == pytest.approx(area, abs=1e-6)
    twice = average_precision(scores, right, 2 * truths, torch.full((len(rows),), 2))
    assert twice == pytest.approx(area, abs=1e-6)


def test_the_mean_is_over_concepts_that_are_there() -> None:
    truth = [[Detection("cat", A, 1.0), Detection("dog", FAR, 1.0)], [Detection("cat", FAR, 1.0)]]
    found = [[Detection("cat", A, 0.9), Detection("bird", FAR, 0.9)], []]
    score = mean_average_precision(found, truth, rounds=50)
    assert score.value == pytest.approx((0.5 + 0.0) / 2) and score.count == 2 and score.low <= score.value <= score.high
    assert mean_average_precision(truth, truth, rounds=5).value == 1.0
    assert math.isnan(mean_average_precision([[]], [[]], rounds=5).value)
