"""The skills suite between its bounds: an oracle on true scenes, wrong witnesses, wrong models, prompts of another picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.core.errors import DataError, UsageError
from sfumato.data.scenes import TASKS, Cast, facts_of, split_of_scenes
from sfumato.evaluate.metrics import Detection
from sfumato.evaluate.suites.items import seen_truly, skills_items
from sfumato.evaluate.suites.outcome import Outcome
from sfumato.evaluate.suites.paired import paired
from sfumato.evaluate.suites.skills import Skills, SkillsReport

from .conftest import Oracle, WordJudge, judge_of, painter, sit

COUNT = 35


def suite(cast: Cast, judge: WordJudge, pairs: str = "train", witness: Any = None, count: int = COUNT) -> Skills:
    items = skills_items(cast, judge, pairs, count, 0)  # type: ignore[arg-type]
    return Skills.prepare(cast, judge, witness or Oracle(items), pairs, count, 0)  # type: ignore[arg-type]


def report_of(outcome: Outcome) -> SkillsReport:
    assert isinstance(outcome.report, SkillsReport)
    return outcome.report


@pytest.mark.parametrize("pairs", ["train", "test"])
def test_prompts_take_turns_and_keep_to_their_split(cast: Cast, judge: WordJudge, pairs: Any) -> None:
    items = skills_items(cast, judge, pairs, COUNT, 0)
    assert [item.posed.task for item in items] == list(TASKS) * 5
    assert [i.posed for i in skills_items(cast, judge, pairs, 21, 0)] == [i.posed for i in items[:21]]
    assert [i.posed.prompt for i in skills_items(cast, judge, pairs, 21, 1)] != [i.posed.prompt for i in items[:21]]
    for item in items:
        splits = [cast.figures[thing.drawing].split for thing in item.posed.scene.objects]
        assert split_of_scenes([item.posed.scene]) == pairs
        assert "test" in splits if pairs == "test" else set(splits) == {"train"}
        assert tuple(item.picture.shape) == (3, 32, 32)


def test_what_a_task_asks_is_what_its_prompt_says(cast: Cast, judge: WordJudge) -> None:
    for item in skills_items(cast, judge, "train", COUNT, 0):
        facts, task = item.facts, item.posed.task
        assert len(facts.objects) == (2 if task in ("two", "position", "binding") else 1)
        assert all((asked.count is not None) == (task == "count") for asked in facts.objects)
        assert all(bool(asked.colour) == (task in ("colour", "binding")) and not asked.style for asked in facts.objects)
        assert (facts.words is not None) == (task == "text") and (facts.relation is not None) == (task == "position")
        if task == "position":
            # "a X above a Y": the second object is X, which lies so to Y.
            first, second = (item.posed.prompt.index(facts.objects[k].concept) for k in (1, 0))
            assert first < second and facts.relation is not None and facts.relation in item.posed.prompt
        found, asked, _ = seen_truly(item)
        assert asked == facts and {d.concept for d in found} == {g.concept for g in facts_of(item.posed.scene).groups}


def test_a_faultless_model_under_a_faultless_witness_is_always_right(cast: Cast, judge: WordJudge, tmp_path: Path) -> None:
    ready = suite(cast, judge)
    assert (ready.name, ready.pictures) == ("skills-train", COUNT)
    outcome = ready.examine(sit(painter(ready.items), tmp_path / "best"))
    report = report_of(outcome)
    assert report.overall.generated.value == report.overall.true.value == 1.0 and report.overall.generated.count == COUNT
    assert all(s.generated.value == s.true.value == 1.0 and s.generated.count == 5 for s in report.tasks.values())
    # The pictures show what other prompts ask for hardly ever.
    assert report.overall.floor.value < 0.15 and report.overall.floor.count == COUNT
    assert set(outcome.notes) == {""} and report.overall.generated.low == pytest.approx(0.901, abs=1e-3)
    written = json.loads((tmp_path / "best" / "report.json").read_text())
    assert written["tasks"]["count"]["generated"]["value"] == 1.0 and len(written["answers"]) == len(written["prompts"]) == COUNT
    markdown = (tmp_path / "best" / "report.md").read_text()
    assert "| measure | generated | shuffled prompts | true scenes |" in markdown and "mAP50 71.0% [70.0%, 72.0%]" in markdown
    assert "| position (5) | 100.0% [56.6%, 100.0%] |" in markdown and "words 90.0%" in markdown


def test_what_is_drawn_wrong_is_judged_wrong_with_its_reason(cast: Cast, judge: WordJudge, tmp_path: Path) -> None:
    ready = suite(cast, judge)
    bad = {item.posed.prompt for item in ready.items if item.posed.task in ("colour", "text")}
    blank = painter(ready.items, change=lambda picture, prompt: torch.zeros_like(picture) if prompt in bad else picture)
    outcome = ready.examine(sit(blank, tmp_path))
    tasks = report_of(outcome).tasks
    assert {name for name, score in tasks.items() if score.generated.value < 1} == {"colour", "text"}
    assert tasks["text"].generated.value == 0 and tasks["text"].true.value == 1.0
    noted = {item.posed.task: note for item, note in zip(ready.items, outcome.notes, strict=True) if note}
    assert noted["colour"].startswith("no ") and noted["text"].startswith("reads ''")


class Mistaken(Oracle):
    """Tells everything as it is but for one kind of fact."""

    def __init__(self, items: Any, fault: str) -> None:
        super().__init__(items)
        self.fault = fault

    def detect(self, images: Tensor) -> list[list[Detection]]:
        changes: dict[str, Any] = {
            "colour": lambda d: replace(d, colour="cyan" if d.colour else ""),
            "position": lambda d: replace(d, box=(0.4, 0.4, 0.6, 0.6)),
            "count": lambda d: replace(d, score=0.5),
        }
        change = changes.get(self.fault, lambda d: d)
        return [[change(d) for d in found] for found in super().detect(images)]

    def read(self, images: Tensor) -> list[str]:
        return ["OTHER" if self.fault == "text" else word for word in super().read(images)]


@pytest.mark.parametrize(
    ("fault", "failing"),
    [("colour", {"colour", "binding"}), ("position", {"position"}), ("count", {"count"}), ("text", {"text"}), ("none", set())],
)
def test_the_upper_bound_shows_what_the_witness_cannot_see(
    cast: Cast, judge: WordJudge, fault: str, failing: set[str], tmp_path: Path
) -> None:
    items = skills_items(cast, judge, "train", COUNT, 0)
    ready = suite(cast, judge, witness=Mistaken(items, fault))
    tasks = report_of(ready.examine(sit(painter(items), tmp_path))).tasks
    assert {name for name, score in tasks.items() if score.true.value < 1} == failing
    assert all(score.true.value == 0 for name, score in tasks.items() if name in failing)
    assert {name: s.generated for name, s in tasks.items()} == {name: s.true for name, s in tasks.items()}


def test_a_model_that_draws_the_next_prompts_picture_is_at_the_floor(cast: Cast, judge: WordJudge, tmp_path: Path) -> None:
    ready = suite(cast, judge)
    before = {item.posed.prompt: ready.items[k - len(TASKS)] for k, item in enumerate(ready.items)}
    assert len(before) == COUNT
    right = report_of(ready.examine(sit(painter(ready.items), tmp_path / "right")))
    pipe = painter(ready.items)
    pipe.looks = {prompt: other.picture for prompt, other in before.items()}
    wrong = report_of(ready.examine(sit(pipe, tmp_path / "wrong")))
    # Two prompts may ask for the same in two styles: the floor asks such a picture for something else.
    alike = sum(before[item.posed.prompt].facts == item.facts for item in ready.items)
    assert wrong.overall.generated.value == pytest.approx(right.overall.floor.value + alike / COUNT)


class Agreeable(Oracle):
    """Sees everything in every picture."""

    def detect(self, images: Tensor) -> list[list[Detection]]:
        names = sorted({d.concept for found in self.found.values() for d in found})
        return [[Detection(name, (0.4, 0.4, 0.6, 0.6), 1.0) for name in names] for _ in images]


def test_the_floor_gives_an_agreeable_witness_away(cast: Cast, judge: WordJudge, tmp_path: Path) -> None:
    items = skills_items(cast, judge, "train", COUNT, 0)
    tasks = report_of(suite(cast, judge, witness=Agreeable(items)).examine(sit(painter(items), tmp_path))).tasks
    assert all(tasks[name].generated.value == tasks[name].floor.value == 1.0 for name in ("single", "two"))


def test_stopped_it_goes_on_and_leaves_broken_pictures_out(cast: Cast, judge: WordJudge, tmp_path: Path) -> None:
    ready = suite(cast, judge, "test", count=14)
    nan = ready.items[3].posed.prompt
    broken = painter(ready.items, change=lambda picture, prompt: picture * torch.nan if prompt == nan else picture)
    first = ready.examine(sit(broken, tmp_path))
    report = report_of(first)
    assert report.count == 13 == report.overall.generated.count and 3 not in first.places and len(broken.asked) == 14
    assert "1 of 14 pictures are left out: 3 (" in report.markdown() and report.kind_title().endswith("never seen in its style")
    again = painter(ready.items)
    healed = report_of(ready.examine(sit(again, tmp_path)))
    assert again.asked == [(nan, 3)] and healed.count == 14 and not healed.left_out
    with pytest.raises(UsageError, match="different: guidance"):
        ready.examine(sit(again, tmp_path, guidance=1.0))
    with pytest.raises(UsageError, match=r"another evaluation; different: pairs .*, prompts"):
        suite(cast, judge, "train", count=14).examine(sit(again, tmp_path))


def test_two_models_side_by_side(cast: Cast, judge: WordJudge, tmp_path: Path) -> None:
    ready = suite(cast, judge)
    counts = {item.posed.prompt for item in ready.items if item.posed.task == "count"}
    best = ready.examine(sit(painter(ready.items), tmp_path / "best"))
    blank = painter(ready.items, change=lambda picture, prompt: torch.zeros_like(picture) if prompt in counts else picture)
    worse = ready.examine(sit(blank, tmp_path / "worse"))
    found = paired(best, worse, judge)
    assert found.count == COUNT and found.pictures["count"].value == 1.0 and found.pictures["two"].value == 0.0
    assert found.pictures["all tasks"].value == pytest.approx(1 / 7) and found.apart["equal in every pixel"].value == pytest.approx(6 / 7)
    favoured = {row[0]: row[2] for row in found.rows()}
    assert favoured["difference in count"] == "best" and favoured["difference in two"] == "no difference seen"
    other = ready.examine(sit(painter(ready.items), tmp_path / "other", seed=1))
    with pytest.raises(UsageError, match="seed 0, other with seed 1"):
        paired(best, other, judge)
    few = suite(cast, judge_of(sorted(cast.by_concept), ("noto",)), count=14)
    with pytest.raises(UsageError, match="other prompts"):
        paired(best, few.examine(sit(painter(few.items), tmp_path / "few")), judge)


def test_what_cannot_be_asked(cast: Cast, judge: WordJudge) -> None:
    with pytest.raises(UsageError, match="6 prompts for 7 tasks"):
        skills_items(cast, judge, "train", 6, 0)
    with pytest.raises(DataError, match="0 drawings of the train split"):
        skills_items(cast, judge_of(("unicorn",), ("noto",)), "train", 7, 0)
    narrow = judge_of([c for c in cast.by_concept if c < "m"], ("noto", "fluent flat"))
    for item in skills_items(cast, narrow, "train", 21, 0):
        assert all(t.concept in narrow.concept_index and t.style in narrow.style_index for t in item.posed.scene.objects)


def test_a_pipe_that_draws_another_size_is_refused(cast: Cast, judge: WordJudge, tmp_path: Path) -> None:
    def large(prompts: Any, **options: Any) -> Any:
        return SimpleNamespace(images=torch.zeros(len(prompts), 3, 64, 64))

    with pytest.raises(UsageError, match="32 x 32"):
        suite(cast, judge, count=7).examine(sit(large, tmp_path))
    with pytest.raises(UsageError, match="batch is 0"):
        suite(cast, judge, count=7).examine(sit(large, tmp_path, batch=0))
