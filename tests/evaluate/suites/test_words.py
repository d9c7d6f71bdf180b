"""The words suite: words that training never read, which concepts they mean, and rates that stand where a model is right on purpose."""

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
from sfumato.data.sources import open_source
from sfumato.evaluate.judge import Verdict
from sfumato.evaluate.suites.outcome import Outcome
from sfumato.evaluate.suites.paired import paired
from sfumato.evaluate.suites.words import KINDS, Words, WordsReport, shuffled, word_list, words_of
from sfumato.pipelines.folder import assets

from .conftest import WordJudge, judge_of, sit

HERE = Path(__file__)
WORDS = word_list()
CONCEPTS = sorted({concept for word in WORDS for concept in word.concepts})
REAL = HERE.parents[3] / "data" / "emoji"


def test_no_training_caption_holds_a_word_of_the_list() -> None:
    """vocabulary.txt: every word of EmojiWorld's train captions and of the scenes that `make models` makes."""
    heard = words_of([(HERE.parent / "vocabulary.txt").read_text(encoding="utf-8")])
    assert len(heard) > 4000 and {"kitty", "automobile", "noto", "above"} <= heard
    asked = words_of(word.prompt for word in WORDS)
    assert not asked & heard and len(asked) >= 98, "avion and avión are one word to a tokenizer that drops accents"


@pytest.mark.skipif(not (REAL / "manifest.json").is_file(), reason="EmojiWorld is not built here")
def test_the_vocabulary_is_that_of_the_captions() -> None:
    captions = open_source(REAL, split="train", licences=None).column("captions")
    assert words_of(text for row in captions for text in row) <= words_of([(HERE.parent / "vocabulary.txt").read_text(encoding="utf-8")])


def test_the_list() -> None:
    kinds = {kind: [word for word in WORDS if word.kind == kind] for kind in KINDS}
    assert {kind: len(words) for kind, words in kinds.items()} == {"english": 40} | dict.fromkeys(KINDS[1:], 15)
    assert len({(word.kind, word.prompt) for word in WORDS}) == 100
    same = {kind: [word.meaning for word in words] for kind, words in kinds.items() if kind != "english"}
    assert len(set(map(tuple, same.values()))) == 1, "the languages are asked the same"
    known = set(json.loads((assets() / "judge" / "judge.json").read_text(encoding="utf-8"))["concepts"])
    assert set(CONCEPTS) <= known, "the shipped judge can name all of them"


def test_words_are_read_as_the_tokenizer_reads_them() -> None:
    assert words_of(["Schlüssel, avión!", "ハート 犬"]) == {"schlussel", "avion", "ハート", "犬"}


class Drawings:
    """One drawing of each concept, a shade of its own; `captions` of the first."""

    def __init__(self, concepts: Sequence[str] = CONCEPTS, captions: Sequence[str] = ("a cat",), split: str = "train") -> None:
        said = [tuple(captions), *((name,) for name in concepts[1:])]
        self.columns = {"concept": list(concepts), "captions": said, "style": ["noto"] * len(concepts), "split": [split] * len(concepts)}
        foreign = [{"language": "de", "label": "PFERD: Kopf"}, {"language": "en-gb", "label": "doggy"}]
        self.columns["labels"] = [foreign, *[None] * (len(concepts) - 1)]

    def __len__(self) -> int:
        return len(self.columns["concept"])

    def __getitem__(self, i: int) -> Any:
        return SimpleNamespace(image=look(self.columns["concept"][i]))

    def column(self, name: str) -> list[Any]:
        return list(self.columns[name])


def look(concept: str) -> Tensor:
    return torch.full((3, 32, 32), CONCEPTS.index(concept), dtype=torch.uint8)


class Reader(WordJudge):
    """Names a drawing by its shade."""

    def __init__(self, concepts: Sequence[str] = CONCEPTS) -> None:
        other = judge_of(concepts, ("noto",))
        super().__init__(other.net, other.styler, other.config, other.concepts, other.styles, {"held_out": {}})

    def __call__(self, images: Tensor, batch: int = 64) -> Verdict:
        shades = ((images[:, 0, 0, 0] + 1) * 127.5).round().long()
        return Verdict(
            torch.nn.functional.one_hot(shades, len(self.concepts)).float(), torch.zeros(len(images), 1), torch.ones(len(images), 8)
        )


class Linguist:
    """Draws what words of `known` kinds mean, and a dog face of anything else."""

    def __init__(self, *known: str) -> None:
        self.meant = {word.prompt: word.concepts[-1] for word in WORDS if word.kind in known}

    def __call__(self, prompts: Sequence[str], **options: Any) -> Any:
        return SimpleNamespace(images=torch.stack([look(self.meant.get(p, "dog face")) for p in prompts]).float() / 127.5 - 1)


def report_of(outcome: Outcome) -> WordsReport:
    assert isinstance(outcome.report, WordsReport)
    return outcome.report


def test_rates_by_kind_between_two_bounds(tmp_path: Path) -> None:
    outcome = Words.prepare(Drawings(), Reader(), 0, 2).examine(sit(Linguist("english", "german"), tmp_path))
    report = report_of(outcome)
    assert report.count == 200 and report.overall.true.value == 1.0 and not report.skipped
    assert {kind: score.generated.count for kind, score in report.tasks.items()} == {"english": 80} | dict.fromkeys(KINDS[1:], 30)
    assert report.tasks["english"].generated.value == report.tasks["german"].generated.value == 1.0
    # The one dog of fifteen.
    assert report.tasks["japanese"].generated.value == pytest.approx(1 / 15) == report.tasks["french"].generated.value
    assert report.tasks["german"].floor.value == 0.0 and 0 < report.tasks["german"].generated.low < 1
    assert dict(zip(report.prompts, report.named, strict=True))["libro"] == "dog face"
    assert outcome.notes[report.prompts.index("libro")] == "book, taken for dog face" and outcome.notes[0] == ""
    assert report.labels == ("Pferd",) and any(r.startswith("of these words, 1 stand in labels") for r in report.remarks())
    assert "| spanish (30) |" in (tmp_path / "report.md").read_text() and json.loads((tmp_path / "report.json").read_text())["each"] == 2
    assert report.extras()[0].rows[0] == ("pussycat", "english", "cat", "black cat") and report.radar()[0] == KINDS
    assert outcome.reference is not None and outcome.reference.shape == (200, 3, 32, 32)
    other = Words.prepare(Drawings(), Reader(), 0, 2).examine(sit(Linguist("german"), tmp_path / "other"))
    found = paired(outcome, other, judge_of(CONCEPTS, ("noto",))).pictures
    assert found["all words"].value > 0 and found["german"].value == 0.0 and found["english"].value > 0.9


def test_what_cannot_be_asked_is_named(tmp_path: Path) -> None:
    """A word that training read after all, and words of which there is no drawing, or none that the judge knows."""
    some = [name for name in CONCEPTS if name not in ("ghost", "light bulb")]
    drawn = Drawings(some, captions=("ein HUND, arbol",))
    report = report_of(Words.prepare(drawn, Reader(), 0).examine(sit(Linguist("english"), tmp_path)))
    reasons = {one.prompt: one.reason for one in report.skipped}
    assert set(reasons) == {"Hund", "árbol", "phantom", "lightbulb"} and report.count == 96
    assert reasons["Hund"].endswith("hold hund") and "no drawing of ghost" in reasons["phantom"]
    assert any("'Hund' was not asked" in remark for remark in report.remarks())
    held_out = Words.prepare(Drawings(captions=("Hund",), split="test"), Reader(), 0)
    assert not held_out.skipped and not held_out.labels, "captions of the test split were not read"
    with pytest.raises(DataError, match="pussycat: no drawing of cat or cat face or black cat"):
        Words.prepare(Drawings(CONCEPTS[:1]), judge_of(("fox",), ("noto",)), 0)
    with pytest.raises(UsageError, match="0 pictures of each word"):
        Words.prepare(Drawings(), Reader(), 0, 0)


def test_shuffled_asks_for_something_else() -> None:
    cat, kitten, dog = (next(word for word in WORDS if word.prompt == name) for name in ("doggy", "pooch", "toad"))
    assert shuffled([cat, kitten, dog], ["frog", "dog", "dog"]) == [True, False, True]
    assert shuffled([cat, kitten], ["dog", "frog"]) == [None, None]
