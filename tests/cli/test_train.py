"""`sfumato train`: from a folder of pictures to a pipeline that draws, resumed and refused as it should be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sfumato.backbones.mmdit import MMDiTConfig
from sfumato.codecs.kl import KLConfig
from sfumato.core.config import to_dict
from sfumato.pipelines import Defaults
from sfumato.training.codec import CodecTaskConfig
from sfumato.training.codec_recipe import CodecRecipe
from sfumato.training.loop import TrainConfig
from sfumato.training.recipes import ModelRecipe, Small

from .conftest import Cli

QUICK = TrainConfig(steps=2, precision="fp32", ema=0.5)
CODEC = CodecRecipe(KLConfig(channels=(8, 8, 8, 16), latent=4), CodecTaskConfig(), 2, QUICK)
MODEL = ModelRecipe(
    MMDiTConfig(depth=2, width=32, heads=2, base_grid=2),
    forms=(1.0,),
    small=Small(16, 1, 3),
    batch=2,
    defaults=Defaults(size=(32, 32), steps=2),
    train=QUICK,
)


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    for split, count in (("train", 4), ("validation", 2)):
        folder = tmp_path / "drawings" / split
        folder.mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (32, 32), (60 * i, 100, 200)).save(folder / f"{i}.png")
            (folder / f"{i}.txt").write_text(f"a square of shade {i}")
    return tmp_path / "drawings"


def test_codec_then_model_then_a_picture(cli: Cli, drawings: Path) -> None:
    Path("codec.json").write_text(json.dumps(to_dict(CODEC)))
    Path("model.json").write_text(json.dumps(to_dict(MODEL)))
    codec = ("train", "codec", "--data", drawings, "--out", "codec", "--recipe", "codec.json", "--quiet")
    ran = cli(*codec)
    assert (ran.code, ran.out) == (0, "codec/vae\n"), ran.err
    assert "dB" in ran.err and "a new run in codec" in ran.err
    again = cli(*codec)
    assert again.code == 1 and "codec/vae exists" in again.err

    polished = cli(*codec[:4], "--out", "polished", *codec[6:], "--from", "codec/vae")
    assert polished.code == 0, polished.err

    model = ("train", "model", "--data", drawings, "--codec", "codec/vae", "--out", "model", "--recipe", "model.json", "--quiet")
    ran = cli(*model, "--name", "squares")
    assert (ran.code, ran.out) == (0, "model/pipeline\n"), ran.err
    more = cli(*model, "--name", "squares", "--steps", 3, "--overwrite")
    assert more.code == 0 and "going on from model/step-00000002" in more.err, more.err
    short = cli(*model[:6], "--out", "short", *model[8:], "--steps", 1)
    assert short.code == 2 and "the first 1 steps see 16-pixel pictures" in short.err, short.err
    other = cli(*model, "--lr", 0.5, "--overwrite")
    assert other.code == 2 and "train.optimizer.lr" in other.err

    line = cli("generate", "a square", "--model", "model/pipeline", "--json").lines[0]
    assert line["model"]["name"] == "squares"
    assert cli("generate", "--again", line["path"]).code == 0


def test_judge(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.evaluate import judge_recipe

    seen: list[tuple[Any, ...]] = []

    class Made:
        card: dict[str, Any] = {"held_out": {"count": 0}, "scenes": {"map50": {"value": 0.875}}}  # noqa: RUF012

    def train_judge(*arguments: Any, **options: Any) -> Made:
        seen.append((*arguments, options))
        return Made()

    monkeypatch.setattr(judge_recipe, "train_judge", train_judge)
    ran = cli("train", "judge", "--data", "d", "--out", "o", "--steps", 5, "--quiet")
    assert (ran.code, ran.out) == (0, "o/judge\n") and "0.875" in ran.err, ran.err
    data, out, recipe, run, options = seen[0]
    assert (data, out, run, recipe.train.steps, options["quiet"]) == (Path("d"), Path("o/judge"), Path("o/run"), 5, True)


def test_bad_recipes(cli: Cli, drawings: Path) -> None:
    words = ("train", "codec", "--data", drawings, "--out", "o", "--recipe", "r.json")
    assert cli(*words).code == 2
    for content, said in {
        "[": "cannot read the recipe",
        "[]": "not a JSON object",
        '{"bacth": 3}': "did you mean 'batch'",
        json.dumps(to_dict(replace(CODEC, batch=0))): "batch is 0",
    }.items():
        Path("r.json").write_text(content)
        ran = cli(*words)
        assert ran.code == 2 and said in ran.err, ran.err
    assert cli("train", "codec", "--out", "o").code == 2
    assert not Path("o").exists()
