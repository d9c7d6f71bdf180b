"""Every option of the trainings reaches the recipe, and every field of a recipe, an optimizer and a codec shows."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.cli.train import TrainCodec, TrainCritic, TrainJudge, TrainPerceptual
from sfumato.cli.train_model import TrainModel
from sfumato.codecs.kl import KLConfig, new_autoencoder
from sfumato.core.errors import ConfigError, SfumatoError
from sfumato.evaluate.critic_recipe import CriticRecipe
from sfumato.evaluate.perceptual_recipe import PerceptualRecipe
from sfumato.training.codec_recipe import CodecRecipe
from sfumato.training.loop import TrainConfig
from sfumato.training.optimizers import OptimizerConfig, build
from sfumato.training.recipes import ModelRecipe

OPTIMIZER: dict[str, Any] = {
    "name": "muon", "lr": 2e-3, "muon_lr": 5e-3, "weight_decay": 0.5, "betas": (0.5, 0.9), "warmup": 7, "decay": "cosine",
    "decay_from": 0.5,
}  # fmt: skip


def test_every_field_of_the_optimizer() -> None:
    assert set(OPTIMIZER) == {f.name for f in fields(OptimizerConfig)}

    def shown(config: OptimizerConfig) -> object:
        net = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.Linear(4, 4)])})
        groups = [[(type(o).__name__, {k: v for k, v in g.items() if k != "params"}) for g in o.param_groups] for o in build([net], config)]
        return groups, [round(config.factor(step, 400), 9) for step in range(400)]

    base = OptimizerConfig(name="muon") if hasattr(torch.optim, "Muon") else OptimizerConfig()
    for name, value in OPTIMIZER.items():
        plain = OptimizerConfig() if name == "name" else base
        try:
            assert shown(plain) != shown(replace(plain, **{name: value})), name
        except SfumatoError as error:
            assert name == "name" and "muon" in str(error)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", ["lr", "muon_lr", "weight_decay"])
def test_rates_are_numbers(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        OptimizerConfig(**{name: value})


def test_every_field_of_the_codec() -> None:
    turned: dict[str, Any] = {"channels": (8, 8, 16), "layers": 2, "latent": 8, "groups": 4}
    assert set(turned) == {f.name for f in fields(KLConfig)}

    def shown(config: KLConfig) -> object:
        made = new_autoencoder(config)
        return [(n, tuple(p.shape)) for n, p in made.named_parameters()], made.config["norm_num_groups"]

    plain = KLConfig(channels=(8, 8), latent=4)
    for name, value in turned.items():
        assert shown(plain) != shown(replace(plain, **{name: value})), name


# Fields that other files test: name the test there.
OTHER_TESTS: dict[str, dict[str, str]] = {
    "TrainConfig": dict.fromkeys(
        ("accumulate", "clip", "ema", "precision", "device", "log_every", "sample_every", "checkpoint_seconds"), "tests/training"
    ),
    "CodecRecipe": {"shape": "test_every_field_of_the_codec", "task": "tests/training"},
    "ModelRecipe": dict.fromkeys(("shape", "time_law", "small", "defaults"), "tests/training")
    | {"start": "test_train.py::test_a_model_goes_on_with_scenes_beside_drawings"},
    "CriticRecipe": dict.fromkeys(("net", "task", "scenes", "composed", "held_out", "difficulties"), "tests/evaluate/test_critic.py"),
    "PerceptualRecipe": dict.fromkeys(("net", "task", "held_out"), "tests/evaluate/test_perceptual_recipe.py"),
}

# Options of the trainings that change the recipe: option -> (words, the recipe's field).
TRAIN: dict[str, tuple[Any, str]] = {
    "steps": (7, "train.steps"), "batch": (3, "batch"), "lr": (0.5, "train.optimizer.lr"), "precision": ("fp32", "train.precision"),
    "seed": (9, "train.seed"),
}  # fmt: skip
MODEL = {
    "family": ("UViT", "family"),
    "depth": (2, "shape.depth"), "width": (128, "shape.width"), "heads": (2, "shape.heads"), "forms": ((1.0,), "forms"),
    "optimizer": ("adamw", "train.optimizer.name"), "muon_lr": (0.5, "train.optimizer.muon_lr"),
    "sample_every": (3, "train.sample_every"), "small_steps": (3, "small.steps"), "ema": (0.5, "train.ema"),
    "languages": (("de", "ja"), "languages.codes"), "language_share": (0.5, "languages.share"),
    "scenes": (("s",), "scenes.folders"), "scene_share": (0.25, "scenes.share"), "scene_objects": (2, "scenes.most"),
    "scene_forms": ((1.0, 0.0, 0.0, 0.0), "scenes.forms"),
}  # fmt: skip
# Options that name places or the machine: (where they bite).
PLACES = {
    "data": "test_train.py", "out": "test_train.py", "recipe": "test_train.py", "device": "TrainConfig.device",
    "overwrite": "test_train.py", "quiet": "test_generate_knobs.py", "debug": "test_bad_input.py",
}  # fmt: skip


def test_every_option_of_train() -> None:
    common = set(TRAIN) | set(PLACES)
    assert {f.name for f in fields(TrainCodec)} == common | {"start"}
    assert {f.name for f in fields(TrainJudge)} == common | {"lessons"}
    assert {f.name for f in fields(TrainCritic)} == common
    assert {f.name for f in fields(TrainPerceptual)} == common | {"judge"}
    assert {f.name for f in fields(TrainModel)} == common | set(MODEL) | {"codec", "name", "start", "cache"}
    for verb, recipe in (
        (TrainCodec, CodecRecipe),
        (TrainModel, ModelRecipe),
        (TrainCritic, CriticRecipe),
        (TrainPerceptual, PerceptualRecipe),
    ):
        for name, (value, field) in TRAIN.items():
            turned = verb(data="d", out=Path("o"), **{name: value}).settled(recipe)
            assert at(turned, field) == value != at(recipe(), field), name
    for name, (value, field) in MODEL.items():
        beside = {"scenes": ("s",)} if name.startswith("scene_") else {"languages": ("fr",)} if name == "language_share" else {}
        asked = TrainModel(data="d", out=Path("o"), **beside, **{name: value})  # type: ignore[arg-type]
        assert at(asked._with_own(asked.settled(ModelRecipe)), field) == value != at(ModelRecipe(), field), name


def at(config: Any, field: str) -> Any:
    for part in field.split("."):
        config = getattr(config, part)
    return config


def test_every_field_of_the_recipes_has_a_test() -> None:
    reached = {field.split(".")[0] for _, field in {**TRAIN, **MODEL}.values()} - {"train"}
    for recipe in (CodecRecipe, ModelRecipe, CriticRecipe):
        mine = {f.name for f in fields(recipe)} - {"train"}
        assert mine <= reached | set(OTHER_TESTS[recipe.__name__]), recipe
    trained = {field.split(".")[1] for _, field in {**TRAIN, **MODEL}.values() if field.startswith("train.")}
    assert {f.name for f in fields(TrainConfig)} <= trained | set(OTHER_TESTS["TrainConfig"])
