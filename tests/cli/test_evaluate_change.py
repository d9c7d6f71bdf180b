"""`sfumato evaluate` draws as it is asked to, and --change measures what one choice costs; what cannot be drawn is said at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfumato.cli.evaluate import Evaluate
from sfumato.cli.places import way_of
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
    assert (first["steps"], second["steps"]) == (1, 2) and first["model"].endswith("), steps 1, solver heun")
    assert second["model"].endswith(f"), solver heun, lora one.safetensors:0.5 ({sha256(one)[:12]})")
    assert told["comparison"]["prompts"]["apart"]["equal in every pixel"]["value"] == 0.0
    second = f"solver-heun-lora-one.safetensors-0.5-{sha256(one)[:12]}"
    page = Path(f"a/steps-1-solver-heun/report-prompts-against-{second}.html")
    assert "1 steps, guidance 4 against 2 steps, guidance 4, seed 0" in page.read_text()


def test_each_way_of_drawing_and_each_suite_has_its_place(own: Callable[..., Ran], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own("--change", "steps=1").code == 0
    drawn: list[int] = []
    call = TextToImage.__call__
    monkeypatch.setattr(TextToImage, "__call__", lambda *a, **k: (drawn.append(k["steps"]), call(*a, **k))[1])
    second = own("--change", "guidance=1")
    assert second.code == 0 and set(drawn) == {2}, second.err  # two steps are the model's own: nothing but the second way is drawn
    drawn.clear()
    assert own("--steps", 1).code == 0 and own().code == 0 and not drawn
    assert own("--steps", 1, "--change", "steps=2").code == 0 and not drawn
    assert own("--against", model).code == 0 and drawn and own("--seed", 3).code == 0
    folder = Path("out/evaluate-tiny")
    told = {"report-prompts", "report-prompts-against-steps-1", "report-prompts-against-guidance-1", "report-prompts-against-tiny"}
    assert {path.stem for path in folder.glob("*.html")} == told
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"prompts", "steps-1", "guidance-1", "against-tiny", "seed-3"}
    assert {path.stem for path in (folder / "steps-1").glob("*.html")} == {"report-prompts", "report-prompts-against-plain"}
    plan = folder / "prompts" / "plan.json"
    plan.write_text(plan.read_text().replace('"guidance": 4.0', '"guidance": 2.5'))
    other = own()
    assert other.code == 2 and "different: guidance (2.5 there, 4.0 now)" in other.err and "--out" in other.err


def test_pictures_that_are_equal_are_called_identical(own: Callable[..., Ran], model: Path, cli: Cli) -> None:
    apart = own("--against", model).lines[0]["comparison"]["prompts"]["apart"]
    assert apart["equal in every pixel"]["value"] == 1.0 and "PSNR (dB)" not in apart
    shown = cli("evaluate", model, "--prompts", "p.txt", "--against", model).out
    assert next(line for line in shown.splitlines() if "PSNR (dB)" in line).count("identical") == 1


def test_a_long_way_has_a_short_name() -> None:
    long = [way_of([f"negative {'a thick outline, ' * 20}{end}"]) for end in "ab"]
    assert (
        long[0] != long[1]
        and max(map(len, long)) <= 100
        and way_of(["", ""]) == ""
        and way_of(["guide interval=0.2/0.8"]) == ("guide-interval=0.2-0.8")
    )


def test_wrong_names_are_said_before_the_judge_is_loaded(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "load", lambda folder: pytest.fail("the judge was loaded"))
    Path("p.txt").write_text("a fox")
    for words, said in (
        (("nosuch", "--prompts", "p.txt"), "unknown model 'nosuch'"),
        ((model, "--prompts", "nosuch"), "cannot read the prompts in nosuch"),
        ((model, "--prompts", "p.txt", "--out", "p.txt"), "p.txt is a file"),
        ((model, "--prompts", "p.txt", "--out", "p.txt/deep/er"), "p.txt is a file"),
    ):
        ran = cli("evaluate", *words)
        assert ran.code in (1, 2) and said in ran.err, ran.err


def test_two_ways_of_one_model_are_told_apart(own: Callable[..., Ran]) -> None:
    found = own("--out", "a", "--steps", 1, "--change", "guidance=2").lines[0]["comparison"]["prompts"]
    assert found["first"].endswith("), steps 1") and found["second"].endswith("), steps 1, guidance 2")
    page = next(Path("a").rglob("report-prompts-against-*.html")).read_text()
    assert all(f'alt="{found[side]}"' in page for side in ("first", "second"))


def test_other_numbers_are_another_way_of_drawing(own: Callable[..., Ran]) -> None:
    first, second = (own("--out", "a", "--steps", 1, "--dtype", name).lines[0]["prompts"] for name in ("float32", "bfloat16"))
    assert first["model"].endswith("), steps 1, float32") and second["model"].endswith("), steps 1, bfloat16")
    assert len(list(Path("a").rglob("000000.png"))) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    {
        ("--change", "steps"): "the change 'steps'",
        ("--change", "stepps=3"): "'steps'",
        ("--change", "steps=few"): "'few' is no value of steps",
        ("--change", "steps="): "a whole number: steps=10",
        ("--change", "steps=2"): "--change steps=2 changes nothing",
        ("--steps", "1", "--change", "steps=1"): "--change steps=1 changes nothing",
        ("--change", "guide=everywhere"): "changes nothing",
        ("--change", "pack=no"): "--change pack=no changes nothing",
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
