"""Every option of `sfumato evaluate` reaches the evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sfumato.cli.evaluate import Evaluate
from sfumato.pipelines import TextToImage
from sfumato.surgery import is_packed

from .conftest import Cli


def test_every_option_reaches_the_evaluation(cli: Cli, model: Path, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import sfumato.cli.suites as room
    import sfumato.evaluate.compare as comparing
    import sfumato.evaluate.page as page
    from sfumato.evaluate.judge import Judge

    seen: list[dict[str, Any]] = []

    class Stand:
        """A judge, a report and a comparison with nothing in them."""

        config = type("Config", (), {"size": 32})
        model, steps, guidance, seed = "stand", 1, 1.0, 0

        @property
        def report(self) -> Stand:
            return self

        def table(self) -> str:
            return "the table"

    def judged(drawing: partial[TextToImage], source: object, judge: object, **options: Any) -> Stand:
        options.pop("progress")
        asked = {**drawing.keywords, "loras": [lora.record() for lora in drawing.keywords["loras"]]}
        found = {**options, **asked, "dtype": drawing.func.dtype, "packed": is_packed(drawing.func.denoiser.net)}  # type: ignore[attr-defined]
        seen[-1].setdefault(options["pairs"], []).append(found)
        return Stand()

    monkeypatch.setattr(room, "examine", judged)
    monkeypatch.setattr(comparing, "compare", lambda *sides: (seen[-1].update(compared=True), Stand())[1])
    monkeypatch.setattr(page, "drawings_section", lambda *what: [])
    monkeypatch.setattr(room, "load_features", lambda folder, device: folder)
    monkeypatch.setattr(room, "open_source", lambda spec, **_: seen[-1].update(data=spec))
    monkeypatch.setattr(Judge, "load", lambda folder: (seen.append({"judge": folder}), Stand())[1])
    monkeypatch.setattr("sfumato.cli.evaluate.to_dict", lambda report: {})
    Path("data/emoji").mkdir(parents=True)
    Path("other").mkdir()
    turned: dict[str, tuple[object, ...]] = {
        "data": ("--data", "other"), "pairs": ("--pairs", "test"), "count": ("--count", 7), "steps": ("--steps", 7),
        "guidance": ("--guidance", 2), "seed": ("--seed", 7), "batch": ("--batch", 7), "judge": ("--judge", "j"),
        "dtype": ("--dtype", "bfloat16"), "out": ("--out", "elsewhere"), "against": ("--against", model), "features": ("--features", "f"),
        "change": ("--change", "solver=heun"), "solver": ("--solver", "heun"), "shift": ("--shift", 2), "negative": ("--negative", "a dog"),
        "guide": ("--guide", "interval=0.2/0.8"), "layout": ("--layout", "released"), "pack": ("--pack",),
        "lora": ("--lora", made("one.safetensors")),
    }  # fmt: skip
    shown = {"model", "device", "json", "quiet", "debug", "cfg", "lora_partial"}  # the last two: below
    suites = {"suite", "prompts", "each"}  # test_suites.py
    assert set(turned) | shown | suites == {f.name for f in fields(Evaluate)}
    plain = cli("evaluate", model)
    assert plain.code == 0 and "the table" in plain.out, plain.err
    assert seen[0]["train"][0]["count"] == 300 and Path("out/evaluate-tiny/report-drawings.html").is_file()
    assert cli("evaluate", model, "--json").out.startswith("{")
    assert cli("evaluate", model, "--suite", "drawings").code == 0 and seen[0] == seen[-1]
    for name, words in turned.items():
        assert cli("evaluate", model, *words).code == 0, name
        assert seen[0] != seen[-1], name
    assert cli("evaluate", "nowhere").code == 2 and cli("evaluate", model, "--device", "warp").code == 2
    assert "comparison" in cli("evaluate", model, "--against", model, "--json").lines[0]
    assert "sfumato data emoji --out missing" in cli("evaluate", model, "--data", "missing").err
