"""Two models side by side: signs and intervals of paired differences, the figures, and the page that shows them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import resvg_py
import torch

from sfumato.core.errors import NonFiniteError, UsageError
from sfumato.evaluate.compare import _sets, compare
from sfumato.evaluate.evaluate import Examined, examine
from sfumato.evaluate.metrics import Score
from sfumato.evaluate.page import drawings_section, write_page
from sfumato.evaluate.svg import Spot, pareto, radar

from .conftest import Oracle, World, tiny_judge
from .test_evaluate import Perfect, noise


def examined(pipe: Any, world: World, oracle: Oracle, out: Path, **options: Any) -> Examined:
    return examine(pipe, world, oracle, **{"pairs": "test", "count": 8, "out": out, "model": out.name, "weights": 3 << 20, **options})


def test_a_model_against_itself_and_against_noise(world: World, oracle: Oracle, tmp_path: Path) -> None:
    best, twin = (examined(Perfect(world), world, oracle, tmp_path / name) for name in ("best", "twin"))
    worse = examined(noise, world, oracle, tmp_path / "noise")
    same = compare(best, twin, tiny_judge())
    assert all(score.value == score.low == score.high == 0 for score in same.pictures.values()) and same.count == 8
    assert same.apart["equal in every pixel"].value == same.apart["SSIM"].value == 1.0
    assert same.apart["distance in feature maps"].value == pytest.approx(0, abs=1e-9) and "PSNR (dB)" not in same.apart
    assert ("PSNR (dB)", "identical", "") in same.rows()
    assert {row[2] for row in same.rows()} <= {"", "no difference seen"}
    found = compare(best, worse, tiny_judge())
    top = found.pictures["concept top-1"]
    assert top.value > 0.3 and top.low > 0 and dict((r[0], r[2]) for r in found.rows())["difference in concept top-1"] == "best"
    back = compare(worse, best, tiny_judge())
    assert back.pictures["concept top-1"].value == -top.value and back.rows()[0][2] == "best"
    assert found.sets["frechet"].value is None and "not estimable" in found.sets["frechet"].reason
    assert found.sets["cmmd"].value is not None and found.sets["cmmd"].value < 0
    assert found.apart["PSNR (dB)"].count == 8 and found.apart["SSIM"].value < 0.5 and found.apart["equal in every pixel"].value == 0


def test_sets_differ_with_the_jackknifes_spread(oracle: Oracle, tmp_path: Path) -> None:
    """More pictures than features: every measure of sets has a spread, and names the model that is nearer."""
    world = World()
    world.rows = [(*row[:2], "test") for row in world.rows[:8]]
    best = examined(Perfect(world), world, oracle, tmp_path / "best")
    g = torch.Generator().manual_seed(0)
    many = {"features": torch.randn(60, 3, generator=g), "real_features": torch.randn(60, 3, generator=g)}
    distance = replace(
        best.report.distance, **{n: replace(best.report.distance.cmmd, value=1.0) for n in ("frechet", "density", "coverage")}
    )
    report = replace(best.report, distance=distance, prompts=best.report.prompts * 8, model="near")
    wide = replace(best, report=report, places=tuple(range(60)), **many)
    wide = replace(wide, images=best.images[:1].expand(60, -1, -1, -1), real=best.real[:1].expand(60, -1, -1, -1))
    far = replace(wide, features=wide.features + 3, report=replace(report, model="far"))
    found = _sets(wide, far, torch.arange(60), torch.arange(60))
    assert all(e.value is not None and e.spread is not None for e in found.values())
    assert all((found[name].value or 0) < 0 for name in ("frechet", "kernel", "cmmd"))
    assert all((found[name].value or 0) > 0 for name in ("precision", "recall", "density", "coverage"))


def test_what_cannot_be_compared(world: World, oracle: Oracle, tmp_path: Path) -> None:
    def half(prompts: Sequence[str], *, seeds: Sequence[int], **options: Any) -> Any:
        if any(seed % 2 for seed in seeds):
            raise NonFiniteError("holds NaN")
        return SimpleNamespace(images=torch.zeros(len(prompts), 3, 32, 32))

    best, broken = examined(Perfect(world), world, oracle, tmp_path / "best"), examined(half, world, oracle, tmp_path / "half")
    assert compare(best, broken, tiny_judge()).count == 4
    other = examined(Perfect(world), world, oracle, tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match=r"seed 0, .* seed 1"):
        compare(best, other, tiny_judge())
    one = examined(Perfect(world), world, oracle, tmp_path / "one", count=1)
    assert compare(best, one, tiny_judge()).count == 1


class Page(HTMLParser):
    """Collects tags, addresses and whether every tag closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing(world: World, oracle: Oracle, tmp_path: Path) -> None:
    best, worse = examined(Perfect(world), world, oracle, tmp_path / "best"), examined(noise, world, oracle, tmp_path / "<noise>")
    path = tmp_path / "report.html"
    section = drawings_section([best, worse], compare(best, worse, tiny_judge()))
    write_page(path, ["best", "<noise>"], "20 steps", [section])
    content = path.read_text()
    page = Page()
    page.feed(content)
    assert not page.open and len(page.sources) == 3 * 8 and all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "&lt;noise&gt;" in content and "<noise>" not in content and "http" not in content.replace("http://www.w3.org/2000/svg", "")
    for said in ("best against", "concept top-1", "R@1 of 8", "in favour of", "not estimable", "seen as", "judge, held-out"):
        assert said in content, said
    figures = re.findall(r"<svg.*?</svg>", content, re.S)
    assert len(figures) == 3
    for figure in figures:
        ET.fromstring(figure)
        assert bytes(resvg_py.svg_to_bytes(svg_string=figure)).startswith(b"\x89PNG")
    alone = tmp_path / "alone.html"
    write_page(alone, ["best"], "20 steps", [drawings_section([best], None)])
    assert alone.read_text().count("<svg") == 1 and "in favour of" not in alone.read_text()


def test_figures_of_few() -> None:
    score = Score(0.5, 0.4, 0.6, 9)
    assert radar(["a", "b"], {"x": [score, score]}) == "" and pareto([Spot("a", 1.0, score)], "s", "q") == ""
    spots = [Spot("cheap", 1.0, score), Spot("good", 3.0, Score(0.9, 0.8, 1.0, 9)), Spot("beaten", 3.5, Score(0.7, 0.6, 0.8, 9))]
    front = re.search(r'<polyline points="([^"]*)"', pareto(spots, "seconds", "top-1"))
    assert front and len(front[1].split()) == 2
