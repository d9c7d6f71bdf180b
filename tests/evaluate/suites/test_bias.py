"""Neutral prompts and what is seen in them, on models whose leaning is known and a judge that reads colours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.core.errors import DataError, UsageError
from sfumato.evaluate.judge import Judge, Verdict
from sfumato.evaluate.suites.bias import Bias, BiasReport
from sfumato.evaluate.suites.neutral import ANSWERS, Person, genders, judge_error, people_of, select_neutral
from sfumato.evaluate.suites.outcome import Outcome
from sfumato.evaluate.suites.paired import paired

from .conftest import SHAPE, judge_of, sit

JOBS = ("astronaut", "firefighter", "judge", "pilot")
LABELS = tuple(label for job in JOBS for label in (job, f"man {job}", f"woman {job}"))
STYLES = ("noto", "twemoji")
LEVEL = {"neither": 40, "man": 120, "woman": 200}


class People:
    """Three grey levels a style for each person; `held_out` (label, style) pairs are of the test split, `lies` are drawn as another."""

    def __init__(self, held_out: Sequence[tuple[str, str]] = (), lies: dict[tuple[str, str], str] | None = None) -> None:
        self.rows = [(label, style, "test" if (label, style) in held_out else "train") for style in STYLES for label in LABELS]
        self.lies = lies or {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        label, style, _ = self.rows[i]
        return SimpleNamespace(image=look(self.lies.get((label, style), label)))

    def column(self, name: str) -> list[str]:
        return [row[("concept", "style", "split").index(name)] for row in self.rows]


def look(label: str) -> Tensor:
    """(3, 32, 32) uint8: red says which person, green which of the three."""
    kind = label.split()[0] if label.split()[0] in ("man", "woman") else "neither"
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    picture[0], picture[1] = 50 * (1 + JOBS.index(label.split()[-1])), LEVEL[kind]
    return picture


class Reader(Judge):
    """Names the label whose look is nearest."""

    def __init__(self) -> None:
        tiny = judge_of(LABELS, STYLES)
        super().__init__(tiny.net, tiny.styler, SHAPE, LABELS, STYLES, {})
        self.looks = torch.stack([look(label) for label in LABELS]).float()[:, :2, 0, 0]

    def __call__(self, images: Tensor, batch: int = 64) -> Verdict:
        seen = ((images + 1) * 127.5)[:, :2, 0, 0]
        return Verdict(-torch.cdist(seen, self.looks), torch.zeros(len(images), 2), torch.ones(len(images), 8))


class Leaning:
    """Draws the person asked for as a man in a share of the pictures of a prompt, as a woman in another, else as neither."""

    def __init__(self, men: float, women: float) -> None:
        self.men, self.women = men, women

    def __call__(self, prompts: Sequence[str], *, seeds: Sequence[int], **_: Any) -> Any:
        drawn = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            job = prompt.split(",")[0].split(" ", 1)[1]
            at = seed % 10 / 10
            kind = "man " if at < self.men else "woman " if at < self.men + self.women else ""
            drawn.append(look(kind + job).float() / 127.5 - 1)
        return SimpleNamespace(images=torch.stack(drawn))


def ready(source: People | None = None) -> Bias:
    return Bias.prepare(source or People(), Reader(), 80, 0, 10)


def report_of(outcome: Outcome) -> BiasReport:
    assert isinstance(outcome.report, BiasReport)
    return outcome.report


def test_people_are_found_by_their_labels() -> None:
    labels = [
        "firefighter", "man firefighter", "woman firefighter", "pilot", "man pilot", "person running", "man running", "woman running",
        "person running: facing right", "man running: facing right", "woman running: facing right", "person: beard", "man: beard",
        "woman: beard", "person", "man", "woman", "prince", "man person", "personality",
    ]  # fmt: skip
    assert people_of(labels) == [
        Person("firefighter", "man firefighter", "woman firefighter"),
        Person("person", "man", "woman"),
        Person("person running", "man running", "woman running"),
        Person("person: beard", "man: beard", "woman: beard"),
    ]


def test_only_what_training_saw_in_all_three_ways_is_asked() -> None:
    everything = select_neutral(People(), Reader(), 99, 0)
    assert len(everything) == 8 and everything[:3] == select_neutral(People(), Reader(), 3, 0)
    assert select_neutral(People(), Reader(), 8, 1) != everything and sorted(map(str, everything)) == sorted(
        map(str, select_neutral(People(), Reader(), 8, 1))
    )
    assert {"an astronaut, noto style", "a firefighter, twemoji style"} <= {one.prompt for one in everything}
    fewer = select_neutral(People(held_out=[("woman pilot", "noto")]), Reader(), 99, 0)
    assert len(fewer) == 7 and "a pilot, noto style" not in {one.prompt for one in fewer}
    with pytest.raises(DataError, match="nobody is drawn neutrally"):
        select_neutral(People(held_out=[(f"man {job}", style) for job in JOBS for style in STYLES]), Reader(), 9, 0)
    with pytest.raises(UsageError, match="at least 1"):
        select_neutral(People(), Reader(), 0, 0)
    for count, each in ((5, 6), (5, 0)):
        with pytest.raises(UsageError, match=f"{count} pictures, {each} of each"):
            Bias.prepare(People(), Reader(), count, 0, each)


@pytest.mark.parametrize(
    ("men", "women", "mad", "dropped", "shares"),
    [
        (0.5, 0.5, 0.0, 0.0, (0.5, 0.5)),
        (1.0, 0.0, 0.5, 0.0, (1.0, 0.0)),
        (0.2, 0.0, 0.5, 0.8, (1.0, 0.0)),
        (0.6, 0.2, 0.25, 0.2, (0.75, 0.25)),
    ],
)
def test_a_leaning_is_measured(men: float, women: float, mad: float, dropped: float, shares: tuple[float, float], tmp_path: Path) -> None:
    suite = ready()
    assert (suite.name, suite.pictures) == ("bias", 80)
    outcome = suite.examine(sit(Leaning(men, women), tmp_path))
    report = report_of(outcome)
    assert report.free is not None and report.free.mad.value == pytest.approx(mad) and report.free.dropped == pytest.approx(dropped)
    assert report.free.shares == pytest.approx(shares) and len(report.free.prompts) == 8 and report.recognised.value == 1.0
    assert report.free.excess == pytest.approx(mad - report.free.floor) and report.free.mad.count == 8
    assert report.forced.dropped == 0 and report.count == 80
    assert report.free_even[0] < report.free.floor < report.free_even[1]
    assert (mad > report.free_even[1]) == (mad >= 0.25)
    if dropped == 0:
        assert report.forced == report.free
    assert set(outcome.notes) <= set(ANSWERS) and not outcome.faulty
    assert json.loads((tmp_path / "report.json").read_text())["each"] == 10


def test_a_model_that_names_nobodys_gender_has_no_bias_to_measure(tmp_path: Path) -> None:
    report = report_of(ready().examine(sit(Leaning(0, 0), tmp_path)))
    assert report.free is None and report.forced.mad.value == 0.5  # A forced answer makes a leaning of none.
    rows = {row[0]: row[1:] for row in report.rows()}
    assert rows["gender seen in"] == ("no gender seen", "80 of 80 pictures, 8 of 8 prompts")
    assert "no gender seen" in (tmp_path / "report.md").read_text() and report.extras()[0].rows == []


def test_the_judges_own_confusion_is_told() -> None:
    held_out = [("man pilot", "noto"), ("pilot", "noto"), ("woman pilot", "noto"), ("woman judge", "noto")]
    error = judge_error(People(held_out, {("man pilot", "noto"): "woman pilot", ("woman astronaut", "noto"): "astronaut"}), Reader())
    assert error.unseen == {
        "neither": {"neither": 1, "man": 0, "woman": 0},
        "man": {"neither": 0, "man": 0, "woman": 1},
        "woman": {"neither": 0, "man": 0, "woman": 2},
    }
    assert error.learned["woman"] == {"neither": 1, "man": 0, "woman": 5} and error.learned["man"]["man"] == 7
    assert error.forced["neither"]["man"] == 1 and error.forced["man"]["woman"] == 1
    suite = Bias.prepare(People(held_out, {("man pilot", "noto"): "woman pilot"}), Reader(), 20, 0, 10)
    assert suite.error.unseen == error.unseen


def test_it_is_told_when_the_person_is_not_seen() -> None:
    astronaut, pilot = (Person(job, f"man {job}", f"woman {job}") for job in ("astronaut", "pilot"))
    seen = genders(Reader(), torch.stack([look("man astronaut"), look("man astronaut")]), [astronaut, pilot])
    assert seen.known.tolist() == [True, False] and seen.free == ("man", "man") == seen.forced


def test_two_leanings_side_by_side(tmp_path: Path) -> None:
    suite = ready()
    even, men = (suite.examine(sit(Leaning(share, 1 - share), tmp_path / name)) for share, name in ((0.5, "even"), (1.0, "men")))
    found = paired(even, men, judge_of(LABELS, STYLES))
    assert found.pictures["excess of MAD"].value == pytest.approx(-0.5) and found.pictures["excess of MAD"].count == 8
    assert found.rows()[0][2] == "even"  # Less is better.
    assert paired(men, even, judge_of(LABELS, STYLES)).rows()[0][2] == "even"


def test_another_number_of_pictures_is_another_evaluation(tmp_path: Path) -> None:
    ready().examine(sit(Leaning(0.5, 0.5), tmp_path))
    with pytest.raises(UsageError, match="different: each"):
        Bias.prepare(People(), Reader(), 80, 0, 20).examine(sit(Leaning(0.5, 0.5), tmp_path))
    Bias.prepare(People(), Reader(), 40, 0, 10).examine(sit(Leaning(0.5, 0.5), tmp_path))
