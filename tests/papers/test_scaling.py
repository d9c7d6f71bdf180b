"""Laws through the best runs, and timings in turn."""

from __future__ import annotations

import pytest

from sfumato.core.errors import UsageError
from sfumato.papers.scaling import frontier, image_nouns, power_law
from sfumato.papers.timing import in_turn, ratio


def test_the_frontier_rises() -> None:
    assert frontier([(3, 0.5), (1, 0.4), (2, 0.3), (2, 0.6), (4, 0.6)]) == [(1, 0.4), (2, 0.6)]


def test_a_law_and_how_sure_it_is() -> None:
    exact = power_law([(x, 3.0 * x**-0.5) for x in (1.0, 2.0, 4.0, 8.0)])
    assert exact.exponent == pytest.approx(-0.5) and exact(16.0) == pytest.approx(0.75) and exact.r2 == pytest.approx(1.0)
    loose = power_law([(1.0, 1.0), (2.0, 2.2), (4.0, 3.6), (8.0, 8.5)])
    assert loose.interval[0] < loose.exponent < loose.interval[1] and 0.9 < loose.r2 < 1
    for points in ([(1.0, 1.0), (1.0, 2.0)], [(1.0, 0.0), (2.0, 1.0)]):
        with pytest.raises(UsageError, match="power law through 2 points"):
            power_law(points)


def test_nouns_count_once_an_image() -> None:
    nouns = {"cat", "mat", "dog"}
    assert image_nouns([("red cat", "a cat on a mat"), ("Dog",), ("nothing",)], nouns) == 3


def test_runs_are_timed_in_turn() -> None:
    order: list[str] = []
    seconds = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3 and [len(s) for s in seconds.values()] == [2, 2]
    assert ratio({"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0, 6.0]}, "a", "b") == (0.5, (0.5, 0.5))
