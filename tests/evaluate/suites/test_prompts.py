"""The user's own prompts: seeds, alignment beside that with other prompts, and what a line states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.core.errors import UsageError
from sfumato.data.scenes import Cast
from sfumato.evaluate.judge import Verdict
from sfumato.evaluate.suites.items import Item, skills_items
from sfumato.evaluate.suites.lines import Asking, BadLine
from sfumato.evaluate.suites.outcome import Outcome
from sfumato.evaluate.suites.paired import paired
from sfumato.evaluate.suites.prompts import Prompts, PromptsReport

from .conftest import Oracle, Painter, WordJudge, judge_of, painter, sit


class Knowing(WordJudge):
    """Embeds a picture where its prompt lies."""

    def __init__(self, items: Sequence[Item]) -> None:
        other = judge_of(("fox",), ("noto",))
        super().__init__(other.net, other.styler, other.config, other.concepts, other.styles, other.card)
        self.prompts = {item.picture.numpy().tobytes(): item.posed.prompt for item in items}

    def __call__(self, images: Tensor, batch: int = 64) -> Verdict:
        keys = [((image + 1) * 127.5).round().to(torch.uint8).numpy().tobytes() for image in images]
        said = [self.prompts.get(key, "nothing at all") for key in keys]
        return Verdict(torch.zeros(len(said), 1), torch.zeros(len(said), 1), self.embed_captions(said))


@pytest.fixture(scope="module")
def items(cast: Cast) -> list[Item]:
    return skills_items(cast, judge_of(sorted(cast.by_concept), cast.styles), "train", 7, 0)


def ready(items: Sequence[Item], **options: Any) -> Prompts:
    lines = [Asking(k, item.posed.prompt, 100 if k == 2 else None, item.facts if k % 2 else None) for k, item in enumerate(items)]
    return Prompts(**{"file": "mine.jsonl", "asked": lines, "bad": [], "judge": Knowing(items), "witness": Oracle(items), **options})


def report_of(outcome: Outcome) -> PromptsReport:
    assert isinstance(outcome.report, PromptsReport)
    return outcome.report


def test_pictures_that_fit_and_pictures_that_do_not(items: list[Item], tmp_path: Path) -> None:
    suite = ready(items)
    best = suite.examine(sit(painter(items), tmp_path / "best"))
    report = report_of(best)
    assert report.aligned.value == pytest.approx(1.0) and report.others is not None and report.others.value < 0.6
    assert report.right is not None and (report.right.value, report.right.count) == (1.0, 3) and report.count == 7
    assert [answer is None for answer in report.answers] == [True, False] * 3 + [True]
    grey = Painter(painter(items).looks, change=lambda picture, prompt: torch.zeros_like(picture))
    worse = suite.examine(sit(grey, tmp_path / "worse"))
    told = report_of(worse)
    assert told.right is not None and told.right.value == 0 and told.aligned.value < 0.7
    assert [bool(note) for note in worse.notes] == [False, True] * 3 + [False]
    found = paired(best, worse, judge_of(("fox",), ("noto",)))
    assert found.pictures["what is stated"].value == 1.0 and found.pictures["what is stated"].count == 3
    assert found.pictures["alignment"].value > 0.3 and found.pictures["alignment"].count == 7
    assert "| shows what is stated (3) | 100.0% " in (tmp_path / "best" / "report.md").read_text()
    assert json.loads((tmp_path / "best" / "report.json").read_text())["file"] == "mine.jsonl"


def test_seeds_are_the_lines_own_or_counted_up(items: list[Item], tmp_path: Path) -> None:
    pipe = painter(items)
    suite = ready(items, each=2)
    outcome = suite.examine(sit(pipe, tmp_path, seed=10))
    assert suite.pictures == 14 and [seed for _, seed in pipe.asked] == [10, 11, 12, 13, 100, 101, *range(16, 24)]
    assert [prompt for prompt, _ in pipe.asked[:3]] == [items[0].posed.prompt] * 2 + [items[1].posed.prompt]
    report = report_of(outcome)
    assert report.right is not None and report.right.count == 6 and report.kind_title() == "14 pictures of 7 prompts in mine.jsonl"
    assert report.others is not None and report.others.value < 0.6
    # A line with another seed is another picture, which must not be taken for the old one.
    moved = [Asking(a.number, a.prompt, 7 if a.number == 2 else a.seed, a.facts) for a in suite.asked]
    with pytest.raises(UsageError, match="different: prompts"):
        ready(items, asked=moved, each=2).examine(sit(pipe, tmp_path, seed=10))
    again = painter(items)
    ready(items, each=2).examine(sit(again, tmp_path, seed=10))
    assert not again.asked


def test_bad_lines_are_named_in_the_report(items: list[Item], tmp_path: Path) -> None:
    bad = [BadLine(n, f"no JSON {n}") for n in range(9, 16)]
    report = report_of(ready(items, bad=bad).examine(sit(painter(items), tmp_path)))
    assert report.bad_lines == tuple(bad)
    assert "7 lines of mine.jsonl are left out: line 9: no JSON 9; " in report.markdown() and "; ..." in report.markdown()
    assert report.extras()[0].rows[6] == ("15", "no JSON 15")


def test_without_facts_no_witness_is_needed(items: list[Item], tmp_path: Path) -> None:
    lines = [Asking(1, items[0].posed.prompt)]
    report = report_of(ready(items, asked=lines, witness=None).examine(sit(painter(items), tmp_path)))
    assert report.right is None and report.others is None and report.answers == (None,) and report.quality() is None
    assert [row[2] for row in report.rows()] == ["only one prompt"]
    with pytest.raises(UsageError, match=r"line 1 of mine.jsonl says what"):
        ready(items, witness=None)
    with pytest.raises(UsageError, match="at least 1"):
        ready(items, each=0)


def test_a_broken_picture_is_left_out(items: list[Item], tmp_path: Path) -> None:
    nan = items[1].posed.prompt
    pipe = painter(items, change=lambda picture, prompt: picture * torch.nan if prompt == nan else picture)
    report = report_of(ready(items).examine(sit(pipe, tmp_path)))
    assert report.count == 6 and report.right is not None and report.right.count == 2 and report.left_out[0].prompt == nan
