"""`sfumato evaluate` draws as it is asked to, and --change measures what one choice costs; what cannot be drawn is said at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfumato.cli.evaluate import Evaluate
from sfumato.core.errors import SfumatoError
from sfumato.core.files import sha256
from sfumato.evaluate.judge import Judge
from sfumato.pipelines import TextToImage, load

from ..evaluate.suites.conftest import judge_of
from .conftest import Cli, Ran


@pytest.fixture
def own(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Two prompts of one's own, drawn and judged."""
    monkeypatch.setattr(Judge, "load", lambda folder: judge_of(("fox",), ("noto",)))
    Path("p.txt").write_text("a fox\na key\n")
    return lambda *words: cli("evaluate", model, "--prompts", "p.txt", "--json", *words)


def test_one_choice_changed_is_measured(own: Callable[..., Ran], made: Callable[..., Path]) -> None:
    one = made("one.safetensors")
    ran = own("--out", "a", "--steps", 1, "--solver", "heun", "--change", "steps=2", "--change", f"lora={one}:0.5")
    assert ran.code == 0 and "one.safetensors: diffusers naming, changes" in ran.err, ran.err
    told = ran.lines[0]
    first, second = told["prompts"], told["against"]["prompts"]
    assert (first["steps"], second["steps"]) == (1, 2) and first["model"].endswith("), solver heun")
    assert second["model"] == f"{first['model']}, lora one.safetensors:0.5 ({sha256(one)[:12]})"
    assert told["comparison"]["prompts"]["apart"]["equal in every pixel"]["value"] == 0.0
    assert "1 steps, guidance 4 against 2 steps, guidance 4, seed 0" in Path("a/report.html").read_text()
    same = own("--out", "b", "--steps", 2, "--change", "solver=euler").lines[0]
    assert same["comparison"]["prompts"]["apart"]["equal in every pixel"]["value"] == 1.0
    other = own("--out", "a", "--steps", 1, "--solver", "euler")
    assert other.code == 2 and "holds another evaluation; different: model" in other.err


@pytest.mark.parametrize(
    ("words", "said"),
    {
        ("--change", "steps"): "the change 'steps'",
        ("--change", "stepps=3"): "'steps'",
        ("--change", "steps=few"): "'few' is no value of steps",
        ("--change", "steps=0"): "steps",
        ("--change", "pack=maybe"): "yes or no",
        ("--change", "steps=1", "--change", "steps=2"): "changed twice",
        ("--change", "guide=interval=2/3"): "interval",
        ("--change", "lora=nowhere.safetensors"): "there is no LoRA nowhere.safetensors",
        ("--change", "cfg=2"): "cfg",
        ("--cfg", "2"): "cfg",
        ("--solver", "eular"): "euler",
        ("--lora-partial",): "none was named",
        ("--against", "nowhere"): "unknown model 'nowhere'",
    }.items(),
)
def test_what_cannot_be_drawn_is_said_before_anything_is(
    own: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("something was drawn")

    monkeypatch.setattr(TextToImage, "__call__", never)
    ran = own("--out", "a", *words)
    assert ran.code in (1, 2) and said in ran.err and "Traceback" not in ran.err and not Path("a").exists(), ran.err


@pytest.mark.parametrize("side", ["model", "--against"])
def test_a_model_of_another_size_is_refused_before_anything_is_drawn(
    own: Callable[..., Ran], cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    wide = load(model).save("wide")
    facts = json.loads((wide / "sfumato.json").read_text())
    facts["defaults"]["size"] = [32, 48]
    (wide / "sfumato.json").write_text(json.dumps(facts))
    monkeypatch.setattr(TextToImage, "__call__", lambda *_, **__: pytest.fail("something was drawn"))
    ran = cli("evaluate", "wide", "--prompts", "p.txt", "--out", "a") if side == "model" else own("--against", "wide", "--out", "a")
    assert ran.code == 2 and "wide draws 48x32, and the judge looks at 32x32" in ran.err and not Path("a").exists(), ran.err


def test_changes_replace_and_keep(made: Callable[..., Path]) -> None:
    plain = Evaluate(model="m", steps=5, solver="heun", lora=("x",), pack=True)
    changed: Any = plain.changed(("lora=a:1", "lora=b", "pack=no", "lora-partial=yes", "guidance=2.5", "negative=a=b"))
    assert (changed.steps, changed.solver, changed.guidance, changed.negative) == (5, "heun", 2.5, "a=b")
    assert changed.lora == ("a:1", "b") and (changed.pack, changed.lora_partial) == (False, True)
    assert plain.changed(()) == plain
    with pytest.raises(SfumatoError):
        Evaluate(model="m", lora=("nowhere.safetensors",)).told()
    assert json.dumps(Evaluate(model="m").told()) == '""'
