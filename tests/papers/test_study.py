"""Studies: cells are run once, compared at equal means, in pairs; and their plot."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import scipy

from sfumato.core.errors import ConfigError
from sfumato.papers.plots import Line, Panel, chart
from sfumato.papers.study import Cell, Metric, Study

METRICS = (Metric("distance", "distance"), Metric("hits", "hits", "higher", "share"))


def study(**changes: Any) -> Study:
    settings: dict[str, Any] = {"name": "s", "arms": {"new": {"a": 1}, "old": {"a": 2}}, "seeds": (0, 1, 2), "equal": "images"}
    settings |= {"metrics": METRICS, "setting": {"n": 3}}
    return Study(**(settings | changes))


def cell(arm: str, seed: int, folder: Path) -> Cell:
    """The seeds matter more than the arms; the arms' order is the same for every seed."""
    return Cell({"distance": 10.0 * seed + (1.0 if arm == "new" else 2.0 + 0.1 * seed), "hits": None if arm == "old" else 0.5}, 100)


def test_a_stopped_study_goes_on(tmp_path: Path) -> None:
    ran: list[tuple[str, int]] = []

    def stopping(arm: str, seed: int, folder: Path) -> Cell:
        ran.append((arm, seed))
        if len(ran) == 2:
            raise KeyboardInterrupt
        return cell(arm, seed, folder)

    with pytest.raises(KeyboardInterrupt):
        study().run(stopping, tmp_path)
    results = study().run(stopping, tmp_path)
    # The cell that was cut short is run again, the finished one is not.
    assert ran == [("new", 0), ("old", 0), ("old", 0), ("new", 1), ("old", 1), ("new", 2), ("old", 2)]
    whole = study().run(cell, tmp_path / "other")
    assert results.cells == whole.cells
    kept = json.loads((results.folders["new"][1] / "result.json").read_text())
    assert kept["arm"] == "new" and kept["seed"] == 1 and kept["config"] == {"a": 1} and kept["spent"] == 100


def test_another_setting_is_another_cell(tmp_path: Path) -> None:
    ran: list[str] = []

    def counting(arm: str, seed: int, folder: Path) -> Cell:
        ran.append(arm)
        return cell(arm, seed, folder)

    study(seeds=(0,)).run(counting, tmp_path)
    study(seeds=(0,)).run(counting, tmp_path)
    assert ran == ["new", "old"]
    study(seeds=(0,), setting={"n": 4}).run(counting, tmp_path)
    study(seeds=(0,), arms={"new": {"a": 1}, "old": {"a": 3}}).run(counting, tmp_path)
    assert ran == ["new", "old", "new", "old", "old"]


def test_comparisons_are_paired(tmp_path: Path) -> None:
    results = study().run(cell, tmp_path)
    mean = results.mean("new", "distance")
    gain = results.difference("new", "old", "distance")
    assert mean is not None and mean[0] == pytest.approx(11.0)
    assert mean[1] == pytest.approx(scipy.stats.t.interval(0.95, 2, 11.0, 10.0 / math.sqrt(3)))
    assert gain is not None and gain[0] == pytest.approx(-1.1) and gain[0] - gain[1][0] == pytest.approx(gain[1][1] - gain[0])
    assert gain[1][1] - gain[1][0] < 0.02 * (mean[1][1] - mean[1][0]), "of the differences, not of the values"
    assert results.mean("old", "hits") is None and results.difference("new", "old", "hits") is None
    assert results.mean_ranks(["distance", "hits"]) == {"new": 1.0, "old": 2.0} and results.mean_ranks(["hits"]) is None
    shown = {f.name: f for f in results.findings()}
    assert shown["hits: old"].found == "not estimable" and shown["distance: new"].interval == mean[1] and shown["hits: new"].unit == "share"


def test_ranks_follow_the_better_way_and_share_ties(tmp_path: Path) -> None:
    def equal(arm: str, seed: int, folder: Path) -> Cell:
        return Cell({"distance": 1.0, "hits": 0.9 if arm == "old" else 0.1}, 1)

    results = study(seeds=(0,)).run(equal, tmp_path)
    assert results.mean_ranks(["distance"]) == {"new": 1.5, "old": 1.5} and results.mean_ranks(["hits"]) == {"new": 2.0, "old": 1.0}


def test_unequal_means_and_missing_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"equal images, but at seed 0 the arms spent new 100, old 150"):
        study().run(lambda arm, seed, folder: Cell({"distance": 1.0, "hits": 1.0}, 150 if arm == "old" else 100), tmp_path / "a")
    with pytest.raises(ConfigError, match="lacks hits"):
        study().run(lambda arm, seed, folder: Cell({"distance": 1.0}, 1), tmp_path / "b")


def test_the_chart_is_an_svg_with_every_line(tmp_path: Path) -> None:
    lines = [Line("new & shiny", [(1.0, 0.5, 1.5), None, (2.0, float("nan"), float("nan"))]), Line("old", [None, None, None])]
    path = chart([Panel("title", ["5", "10", "25"], "steps", lines), Panel("empty", ["1"], "t", [Line("new", [None])])], tmp_path / "c.svg")
    text = path.read_text()
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and "nan" not in text and text.count("<circle") == 2 and "● new &amp; shiny" in text
    again = chart(
        [Panel("title", ["5", "10", "25"], "steps", lines), Panel("empty", ["1"], "t", [Line("new", [None])])], tmp_path / "d.svg"
    )
    assert again.read_bytes() == path.read_bytes()


def test_apart_means_the_whole_interval(tmp_path: Path) -> None:
    results = study().run(cell, tmp_path)
    gain = results.difference("new", "old", "distance")
    assert gain is not None
    below = results.apart("gain", "new", "old", "distance")
    assert below.passed and below.found == gain[0] and below.interval == gain[1] and below.expected == "below 0, interval too"
    assert results.apart("gain", "new", "old", "distance", most=gain[0]).passed is False
    assert results.apart("loss", "old", "new", "distance", "above", 1.0).passed is False
    assert results.apart("loss", "old", "new", "distance", "above", 0.5).passed
    missing = results.apart("hits", "new", "old", "hits")
    assert (missing.found, missing.passed) == ("not estimable", False)
    alone = study(seeds=(0,)).run(cell, tmp_path / "alone").apart("gain", "new", "old", "distance")
    assert alone.passed is False, "one seed tells no chance"
