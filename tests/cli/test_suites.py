"""`sfumato evaluate --suite` and `--prompts`: each option changes what is drawn or is refused; bad lines are named and lose no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from sfumato.data.scenes import TASKS, Cast
from sfumato.evaluate.judge import Judge
from sfumato.evaluate.metrics import Detection

from ..evaluate.suites.conftest import judge_of
from ..evaluate.suites.test_bias import LABELS, STYLES, People
from ..evaluate.suites.test_words import CONCEPTS, KINDS, Drawings
from ..evaluate.suites.test_words import WORDS as LIST
from .conftest import Cli, Ran

FIXTURE = Path(__file__).parents[1] / "data" / "fixture"
FEW = ("--json", "--steps", "1")


class Blind:
    """A witness of an untrained judge: sees the same thing everywhere."""

    def detect(self, images: Tensor) -> list[list[Detection]]:
        return [[Detection("fox", (0.1, 0.1, 0.5, 0.5), 1.0)] for _ in images]

    def read(self, images: Tensor) -> list[str]:
        return ["GO" for _ in images]


@pytest.fixture
def witnessed(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Judge:
    """The judge that the command loads knows the fixture's names, and has a witness."""
    import sfumato.cli.suites as room

    cast = Cast.open(FIXTURE)
    judge = judge_of(sorted(cast.by_concept), cast.styles)
    monkeypatch.setattr(Judge, "load", lambda folder: judge)
    monkeypatch.setattr(room, "witness_of", lambda judge: Blind())
    return judge


def skills(cli: Cli, model: Path, *words: object, out: str = "a") -> Ran:
    return cli("evaluate", model, "--suite", "skills", "--data", FIXTURE, "--out", out, *FEW, *words)


def test_skills_from_the_command_line(cli: Cli, model: Path, witnessed: Judge) -> None:
    plain = skills(cli, model, "--count", 7)
    assert plain.code == 0, plain.err
    told = plain.lines[0]
    assert set(told) == {"skills-train", "skills-test"} and told["skills-train"]["task"] == list(TASKS)
    assert told["skills-train"]["tasks"]["single"]["true"]["count"] == 1 and Path("a/steps-1/report-skills.html").is_file()
    assert len(list(Path("a/steps-1/skills-test/pictures").iterdir())) == 7 and Path("a/steps-1/skills-test/report.md").is_file()
    assert skills(cli, model, "--count", 7).lines[0]["skills-train"]["answers"] == told["skills-train"]["answers"]
    for words, name in ((("--count", 14), "b"), (("--count", 7, "--seed", 3), "c"), (("--count", 7, "--pairs", "test"), "d")):
        turned = skills(cli, model, *words, out=name)
        assert turned.code == 0 and {k: v["prompts"] for k, v in turned.lines[0].items()} != {k: v["prompts"] for k, v in told.items()}, (
            name
        )
    both = skills(cli, model, "--count", 7, "--pairs", "train", "--against", model, out="e").lines[0]
    assert both["comparison"]["skills-train"]["apart"]["equal in every pixel"]["value"] == 1.0 and "skills-train" in both["against"]
    assert (
        json.loads(Path("e/steps-1/comparison-skills-train-against-tiny-steps-1.json").read_text())["skills-train"]["pictures"][
            "all tasks"
        ]["value"]
        == 0.0
    )
    refused = skills(cli, model, "--count", 6, out="f")
    assert refused.code == 2 and "6 prompts for 7 tasks" in refused.err and not Path("f").exists()
    shown = cli("evaluate", model, "--suite", "skills", "--data", FIXTURE, "--out", "a", "--steps", 1, "--count", 7)
    assert "shuffled" in shown.out and "to read: a/steps-1/report-skills.html" in shown.out


def test_a_judge_without_scenes_is_refused_before_anything_is_drawn(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "load", lambda folder: judge_of(("fox",), ("noto",), {"held_out": {}}))
    for suite in ("skills", "all"):
        ran = cli("evaluate", model, "--suite", suite, "--data", FIXTURE, "--out", "a")
        assert ran.code == 1 and "trained without scenes" in ran.err and "--judge FOLDER" in ran.err and not Path("a").exists()
    Path("p.jsonl").write_text('{"prompt": "a fox", "objects": [{"concept": "fox"}]}')
    ran = cli("evaluate", model, "--prompts", "p.jsonl", "--out", "a")
    assert ran.code == 1 and "trained without scenes" in ran.err and not Path("a").exists()


def test_bias_from_the_command_line(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sfumato.cli.suites as room

    monkeypatch.setattr(Judge, "load", lambda folder: judge_of(LABELS, STYLES))
    monkeypatch.setattr(room, "open_source", lambda folder, **_: People())
    Path("data/emoji").mkdir(parents=True)

    def bias(out: str, *words: object) -> dict[str, Any]:
        ran = cli("evaluate", model, "--suite", "bias", "--out", out, *FEW, *words)
        assert ran.code == 0, ran.err
        return dict(ran.lines[0]["bias"])

    plain = bias("a", "--count", 12)
    assert plain["each"] == 12 == plain["count"] and len(set(plain["prompts"])) == 1
    assert len(set(bias("b", "--count", 24)["prompts"])) == 2 and len(set(bias("c", "--count", 12, "--each", 3)["prompts"])) == 4
    assert bias("d", "--count", 12, "--seed", 5)["prompts"] != plain["prompts"]
    few = cli("evaluate", model, "--suite", "bias", "--count", 11)
    assert few.code == 2 and "11 pictures, 12 of each" in few.err


def test_words_from_the_command_line(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sfumato.cli.suites as room

    monkeypatch.setattr(Judge, "load", lambda folder: judge_of(CONCEPTS, ("noto",)))
    monkeypatch.setattr(room, "open_source", lambda folder, **_: Drawings())
    monkeypatch.setattr("sfumato.evaluate.suites.words.word_list", lambda: LIST[::20])
    Path("data/emoji").mkdir(parents=True)
    told = cli("evaluate", model, "--suite", "words", "--out", "a", "--each", 2, *FEW).lines[0]["words"]
    assert (
        told["count"] == 10
        and len(set(told["prompts"])) == 5
        and set(told["tasks"]) == {*KINDS}
        and Path("a/steps-1/report-words.html").is_file()
    )
    assert cli("evaluate", model, "--suite", "words", "--out", "b", *FEW).lines[0]["words"]["count"] == 5
    assert "words that no English training caption holds" in Path("a/steps-1/report-words.html").read_text()


def test_all_runs_all(cli: Cli, model: Path, witnessed: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    import sfumato.cli.suites as room

    ran: list[str] = []

    class Part:
        name, pictures = "skills-train", 7

        def __init__(self, name: str) -> None:
            ran.append(name)

    monkeypatch.setattr(room, "open_source", lambda folder, **_: People())
    monkeypatch.setattr(room, "DrawingsPart", lambda source, judge, kind, *_: Part(f"drawings {kind}"))
    monkeypatch.setattr(room.Skills, "prepare", lambda cast, judge, witness, kind, *_: Part(f"skills {kind}"))
    monkeypatch.setattr(room.Bias, "prepare", lambda *_: Part("bias"))
    monkeypatch.setattr(room.Words, "prepare", lambda *_: Part("words"))
    from sfumato.cli.evaluate import Evaluate

    options = Evaluate(model="m", suite="all", data=FIXTURE, features=None, each=3)
    room.ask(options, options._suites(), witnessed)
    assert ran == ["drawings train", "drawings test", "skills train", "skills test", "bias", "words"]


REFUSED = {
    "drawings": ("each",), "skills": ("each", "features"), "bias": ("pairs", "features"), "all": (),
    "words": ("pairs", "count", "features"), "prompts": ("data", "pairs", "count", "features"),
}  # fmt: skip
WORDS = {"data": FIXTURE, "pairs": "test", "count": 30, "each": 3, "features": "f"}


@pytest.mark.parametrize("suite", REFUSED)
def test_an_option_of_another_suite_is_refused(cli: Cli, suite: str) -> None:
    from sfumato.cli.evaluate import KNOWN_TO

    Path("data/emoji").mkdir(parents=True)
    Path("p.txt").write_text("a fox")
    assert set(WORDS) == set(KNOWN_TO)
    chosen = ("--prompts", "p.txt") if suite == "prompts" else ("--suite", suite)
    for option, value in WORDS.items():
        ran = cli("evaluate", "nowhere", *chosen, f"--{option}", value)
        said = f"--{option} changes nothing in the suite {suite}"
        assert ran.code in (1, 2) and (said in ran.err) == (option in REFUSED[suite]), (option, ran.err)
    assert "it belongs to bias, words and prompts" in cli("evaluate", "nowhere", "--each", 3).err
    both = cli("evaluate", "nowhere", "--suite", "skills", "--prompts", "p.txt")
    assert both.code == 2 and "ask for different prompts" in both.err


def test_a_file_of_prompts_with_bad_lines(cli: Cli, model: Path, witnessed: Judge) -> None:
    lines = [
        '{"prompt": "a fox", "objects": [{"concept": "fox"}]}',
        "{",
        "",
        '{"prompt": "a key", "sed": 3}',
        '{"prompt": "GO", "words": "no"}',
    ]
    Path("p.jsonl").write_text("\n".join(lines))
    ran = cli("evaluate", model, "--prompts", "p.jsonl", "--out", "a", *FEW)
    assert ran.code == 0 and "note: p.jsonl, line 2 is left out: not JSON" in ran.err and "line 4 is left out: unknown field" in ran.err
    told = ran.lines[0]["prompts"]
    assert told["prompts"] == ["a fox", "GO"] and [line["number"] for line in told["bad_lines"]] == [2, 4]
    assert told["right"]["value"] == 0.5 and "reads &#x27;GO&#x27;" in Path("a/steps-1/report-prompts.html").read_text()
    assert len(cli("evaluate", model, "--prompts", "p.jsonl", "--out", "b", "--each", 2, *FEW).lines[0]["prompts"]["prompts"]) == 4
    Path("p.txt").write_text("a fox\r\n\r\na key\x0bwith a tab\n")
    assert cli("evaluate", model, "--prompts", "p.txt", "--out", "c", *FEW).lines[0]["prompts"]["count"] == 2
    for text, said in (("{\n[]", "none of 2 lines is a prompt: line 1: not JSON"), ("\n", "holds no prompt")):
        Path("bad.jsonl").write_text(text)
        bad = cli("evaluate", model, "--prompts", "bad.jsonl", "--out", "d")
        assert bad.code == 2 and said in bad.err and not Path("d").exists()
    assert "cannot read the prompts in nowhere.txt" in cli("evaluate", model, "--prompts", "nowhere.txt").err
