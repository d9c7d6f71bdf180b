"""Every knob bites: each option of the command line and each field of the configs, set to another value, changes the plan, the output or
the files, or is refused. A new field without a line in a table here fails the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sfumato.backbones import backbones
from sfumato.backbones.dit import DiTConfig
from sfumato.backbones.flux import FluxConfig
from sfumato.backbones.lumina2 import Lumina2Config
from sfumato.backbones.mmdit import MMDiTConfig
from sfumato.backbones.nextdit import NextDiTConfig
from sfumato.backbones.pixart import PixArtConfig
from sfumato.backbones.sana import SanaConfig
from sfumato.backbones.uvit import UViTConfig
from sfumato.cli.data import Emoji
from sfumato.cli.evaluate import Evaluate
from sfumato.cli.generate import Generate
from sfumato.cli.reproduce import Reproduce
from sfumato.cli.train import TrainCodec, TrainCritic, TrainJudge
from sfumato.cli.train_model import TrainModel
from sfumato.codecs.kl import KLConfig, new_autoencoder
from sfumato.core.errors import ConfigError, SfumatoError
from sfumato.evaluate.critic_recipe import CriticRecipe
from sfumato.pipelines import Defaults, TextToImage, load
from sfumato.pipelines.settings import Draw
from sfumato.sampling.guidance import Guide
from sfumato.sampling.schedules import Layout
from sfumato.surgery import fresh
from sfumato.training.codec_recipe import CodecRecipe
from sfumato.training.loop import TrainConfig
from sfumato.training.optimizers import OptimizerConfig, build
from sfumato.training.recipes import ModelRecipe

from .conftest import Cli, Ran, small_judge


@dataclass(frozen=True)
class Knob:
    """`words` set the option; `bites(plain, turned)` says whether that showed."""

    words: tuple[str, ...]
    bites: Callable[[Ran, Ran], bool]


def pixels(ran: Ran) -> list[bytes]:
    found = []
    for line in ran.lines:
        with Image.open(line["path"]) as picture:
            found.append(picture.tobytes())
    return found


def redrawn(field: str) -> Callable[[Ran, Ran], bool]:
    """The record names the change and the pixels are others."""
    return lambda plain, turned: plain.lines[0][field] != turned.lines[0][field] and pixels(plain) != pixels(turned)


def refused(said: str, code: int = 2) -> Callable[[Ran, Ran], bool]:
    return lambda plain, turned: turned.code == code and said in turned.err


PLAIN = ("--json", "--out")
GENERATE = {
    "prompt": Knob(("a dog",), lambda plain, turned: len(turned.lines) == 2),
    "prompts": Knob(("--prompts", "more.txt"), lambda plain, turned: [x["prompt"] for x in turned.lines] == ["a cat", "a bird"]),
    "model": Knob(("--model", "nowhere"), refused("unknown model 'nowhere'")),
    "num": Knob(("--num", "2"), lambda plain, turned: [x["seed"] for x in turned.lines] == [0, 1]),
    "seed": Knob(("--seed", "5"), redrawn("seed")),
    "steps": Knob(("--steps", "3"), redrawn("steps")),
    "guidance": Knob(("--guidance", "2"), redrawn("guidance")),
    "negative": Knob(("--negative", "a dog"), redrawn("negative")),
    "size": Knob(("--size", "48x32"), redrawn("size")),
    "solver": Knob(("--solver", "heun"), redrawn("solver")),
    "shift": Knob(("--shift", "3"), redrawn("shift")),
    "device": Knob(("--device", "meta:9"), lambda plain, turned: turned.code != 0),
    "dtype": Knob(("--dtype", "bfloat16"), redrawn("dtype")),
    "batch": Knob(("--batch", "2", "--num", "2"), lambda plain, turned: [x["frame"][0] for x in turned.lines] == [2, 2]),
    "best_of": Knob(("--best-of", "4", "--scorer", "eye"), lambda plain, turned: turned.lines[0]["chosen"]["of"] == 4),
    "scorer": Knob(("--scorer", "judge"), refused("has nothing to choose from")),
    "lora": Knob(("--lora", "style.safetensors:0.5"), redrawn("loras")),
    "lora_partial": Knob(("--lora-partial",), refused("none was named")),
    "out": Knob((), lambda plain, turned: plain.lines[0]["path"] != turned.lines[0]["path"]),
    "sheet": Knob(("--sheet", "all.png"), lambda plain, turned: Path("all.png").is_file()),
    "again": Knob(("--again", "x.png"), refused("takes no a prompt")),
    "json": Knob((), lambda plain, turned: turned.out.startswith("{")),
    "overwrite": Knob(("--overwrite",), lambda plain, turned: turned.code == 0),
    "quiet": Knob(("--quiet",), lambda plain, turned: turned.code == 0),
    "debug": Knob(("--debug", "--model", "nowhere"), refused("Traceback")),
}


def test_every_option_of_generate(cli: Cli, model: Path) -> None:
    assert set(GENERATE) == {f.name for f in fields(Generate)}
    Path("more.txt").write_text("a bird")
    small_judge().save(Path("eye"))
    style(model)
    plain = cli("generate", "a cat", *PLAIN, "plain", "--model", model)
    assert plain.code == 0
    for name, knob in GENERATE.items():
        chosen = () if "--model" in knob.words else ("--model", model)
        turned = cli("generate", "a cat", *knob.words, *PLAIN, name, *chosen)
        assert knob.bites(plain, turned), (name, turned)
    assert cli("generate", "a cat", *PLAIN, "plain", "--model", model).code == 1  # what --overwrite is for
    assert cli("generate", "a cat", *PLAIN, "plain", "--model", model, "--overwrite").code == 0


def style(model: Path) -> None:
    """style.safetensors, a LoRA of the model."""
    pipe = load(model)
    lora = fresh(pipe.denoiser.net, 2)
    for delta in lora.deltas.values():
        torch.nn.init.normal_(delta.up, std=0.3)
    pipe.save_lora(lora, "style.safetensors")


def test_quiet_hides_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    from sfumato.cli.verb import progress_bars

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for quiet in (True, False):
        with progress_bars(quiet, pictures=2) as update:
            update("pictures", 1, 2)
        assert ("pictures" in capsys.readouterr().err) is not quiet


# How each field of a config shows: in the network's weights, the optimizer's groups, the learning rate, or in what is drawn.
MMDIT: dict[str, Any] = {
    "depth": 4,
    "width": 48,
    "heads": 4,
    "channels": 8,
    "patch": 1,
    "text_width": 16,
    "pooled_width": 8,
    "mlp_ratio": 2,
    "qk_norm": False,
    "base_grid": 8,
    "positions": "span",
    "table_grid": 9,
    "dual": (1,),
}
PIXART: dict[str, Any] = {
    "depth": 4, "width": 48, "heads": 4, "channels": 8, "patch": 1, "text_width": 16, "mlp_ratio": 2, "span": 8.0, "sizes": True,
    "variance": False, "compress": (1,), "ratio": 1,
}  # fmt: skip
FLUX: dict[str, Any] = {
    "dual": 1, "single": 2, "width": 32, "heads": 2, "channels": 8, "patch": 1, "axes": (4, 8, 4), "text_width": 16, "pooled_width": 8,
    "mlp_ratio": 2, "guided": False,
}  # fmt: skip
UVIT: dict[str, Any] = {
    "depth": 4, "width": 64, "heads": 1, "channels": 8, "patch": 1, "grid": 2, "words": 9, "text_width": 16, "mlp_ratio": 2,
    "skips": False, "time_mlp": True, "smooth": False,
}  # fmt: skip
NEXTDIT: dict[str, Any] = {
    "depth": 1, "width": 48, "heads": 2, "kv_heads": 1, "hidden": 32, "channels": 8, "patch": 1, "text_width": 16, "qk_norm": False,
    "variance": False, "eps": 0.1,
}  # fmt: skip
LUMINA2: dict[str, Any] = {
    "depth": 1, "refiners": 0, "width": 48, "heads": 2, "kv_heads": 1, "hidden": 32, "channels": 8, "patch": 1, "text_width": 16,
    "axes": (4, 2, 2), "eps": 0.1,
}  # fmt: skip
DIT: dict[str, Any] = {
    "depth": 1, "width": 48, "heads": 4, "classes": 9, "channels": 8, "patch": 1, "mlp_ratio": 2, "span": 8.0, "variance": False,
    "bias": False, "gelu": "none", "eps": 0.1, "affine": True, "closed": True,
}  # fmt: skip
SANA: dict[str, Any] = {
    "depth": 1, "width": 48, "heads": 4, "cross_heads": 4, "hidden": 16, "channels": 8, "patch": 1, "text_width": 16, "bias": True,
    "qk_norm": True, "affine": True, "eps": 0.1, "span": 4.0, "time_scale": 1.0, "guided": False, "guidance_scale": 1.0,
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "size": (48, 32),
    "steps": 3,
    "guidance": 2.0,
    "solver": "heun",
    "shift": 3.0,
    "layout": Layout("released"),
    "guide": Guide(channels=2),
}


@pytest.mark.parametrize(
    ("plain", "knobs"),
    [
        (MMDiTConfig(depth=3, width=32, heads=2, channels=4, text_width=12, pooled_width=6, base_grid=4), MMDIT),
        (FluxConfig(dual=2, single=1, width=16, heads=1, channels=4, axes=(4, 6, 6), text_width=12, pooled_width=6), FLUX),
        (UViTConfig(depth=2, width=32, heads=2, channels=4, grid=4, words=8, text_width=12), UVIT),
        (PixArtConfig(depth=3, width=24, heads=2, channels=4, text_width=12, span=4.0, compress=(0,)), PIXART),
        (DiTConfig(depth=2, width=24, heads=2, classes=5, span=4.0), DIT),
        (SanaConfig(depth=2, width=24, heads=2, cross_heads=2, hidden=32, channels=4, patch=2, text_width=12, guided=True), SANA),
        (NextDiTConfig(depth=2, width=32, heads=4, kv_heads=2, hidden=48, text_width=12), NEXTDIT),
        (Lumina2Config(depth=2, refiners=1, width=32, heads=4, kv_heads=2, hidden=48, channels=4, text_width=12, axes=(2, 2, 4)), LUMINA2),
    ],
)
def test_every_field_of_a_network(plain: Any, knobs: dict[str, Any]) -> None:
    assert {f.name for f in fields(plain)} == set(knobs)
    for name, value in knobs.items():
        try:
            turned = replace(plain, **{name: value})
        except ConfigError:  # Sizes that belong together are refused one by one.
            assert (type(plain), name) in {(c, n) for c in (FluxConfig, Lumina2Config) for n in ("width", "heads")}
            continue
        assert _answer(plain) != _answer(turned), name


def _answer(config: Any) -> tuple[Any, ...]:
    """The shapes of the weights and what the network says, every weight drawn from its place in the list."""
    from sfumato.core.conditions import Conditions, Tokens
    from sfumato.core.state import Stream

    net = next(f for f in map(backbones.get, backbones) if f.config is type(config)).network(config)
    with torch.no_grad():
        for index, parameter in enumerate(net.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) * 0.2)
        tokens = Tokens(torch.ones(1, 3, getattr(config, "text_width", 1)), torch.ones(1, 3, dtype=torch.bool))
        widths = {"pooled": getattr(config, "pooled_width", 0), "sizes": 3}
        cond = Conditions(
            {"text": tokens} if "text" in net.slots else {}, {n: torch.ones(1, w) for n, w in widths.items() if n in net.slots}
        )
        scalars = {"guidance": torch.ones(1), "class": torch.ones(1, dtype=torch.long)}
        cond = replace(cond, scalars={n: v for n, v in scalars.items() if n in net.slots})
        out = net({"image": Stream(torch.ones(1, config.channels, 4, 4), t=torch.tensor([0.5]))}, cond).pred["image"]
    return tuple(sorted((n, tuple(p.shape)) for n, p in net.named_parameters())), out.flatten()[:4].tolist()


def _known_elsewhere(kind: type, name: str) -> bool:
    return name in OTHER_TESTS.get(kind.__name__, ())


# Fields that other files test: name the test there.
OTHER_TESTS: dict[str, dict[str, str]] = {
    "Defaults": {"cfg": "tests/pipelines/test_flux.py", "other_sizes": "tests/pipelines/test_lumina.py"},
    "Draw": {
        "weight": "tests/pipelines/test_flux.py",
        "policies": "tests/contract",
        "loras": "tests/pipelines/test_lora.py",
        "frame": "test_generate.py::test_again_is_bit_for_bit_even_out_of_a_batch",
    },
    "TrainConfig": dict.fromkeys(
        ("accumulate", "clip", "ema", "precision", "device", "log_every", "sample_every", "checkpoint_seconds"), "tests/training"
    ),
    "CodecRecipe": {"shape": "test_every_field_of_the_codec", "task": "tests/training"},
    "ModelRecipe": dict.fromkeys(("shape", "time_law", "small", "defaults"), "tests/training")
    | {"start": "test_train.py::test_a_model_goes_on_with_scenes_beside_drawings"},
    "CriticRecipe": dict.fromkeys(("net", "task", "scenes", "composed", "held_out", "difficulties"), "tests/evaluate/test_critic.py"),
}


def test_every_field_of_defaults_and_draw(model: Path) -> None:
    pipe = load(model)
    assert set(DEFAULTS) == {f.name for f in fields(Defaults)} - set(OTHER_TESTS["Defaults"])
    settings = {f.name for f in fields(Draw)}
    assert settings - set(DEFAULTS) == set(OTHER_TESTS["Draw"])
    plain = drawn(pipe)
    for name, value in DEFAULTS.items():
        assert plain != drawn(pipe, **{name: value}), name
        pipe.defaults = replace(load_defaults(pipe), **{name: value})
        assert plain != drawn(pipe), name
        pipe.defaults = Defaults(size=(32, 32), steps=2)


def load_defaults(pipe: TextToImage) -> Defaults:
    return Defaults(size=pipe.defaults.size, steps=pipe.defaults.steps)


def drawn(pipe: TextToImage, **options: Any) -> list[float]:
    return list(pipe("a cat", **options).images.flatten().tolist())


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


def test_every_field_of_the_codec() -> None:
    turned: dict[str, Any] = {"channels": (8, 8, 16), "layers": 2, "latent": 8, "groups": 4}
    assert set(turned) == {f.name for f in fields(KLConfig)}

    def shown(config: KLConfig) -> object:
        made = new_autoencoder(config)
        return [(n, tuple(p.shape)) for n, p in made.named_parameters()], made.config["norm_num_groups"]

    plain = KLConfig(channels=(8, 8), latent=4)
    for name, value in turned.items():
        assert shown(plain) != shown(replace(plain, **{name: value})), name


# Options of the trainings that change the recipe: option -> (words, the recipe's field).
TRAIN: dict[str, tuple[Any, str]] = {
    "steps": (7, "train.steps"), "batch": (3, "batch"), "lr": (0.5, "train.optimizer.lr"), "precision": ("fp32", "train.precision"),
    "seed": (9, "train.seed"),
}  # fmt: skip
MODEL = {
    "depth": (2, "shape.depth"), "width": (128, "shape.width"), "heads": (2, "shape.heads"), "forms": ((1.0,), "forms"),
    "optimizer": ("adamw", "train.optimizer.name"), "muon_lr": (0.5, "train.optimizer.muon_lr"),
    "sample_every": (3, "train.sample_every"), "small_steps": (3, "small.steps"), "ema": (0.5, "train.ema"),
    "scenes": (("s",), "scenes.folders"), "scene_share": (0.25, "scenes.share"), "scene_objects": (2, "scenes.most"),
    "scene_forms": ((1.0, 0.0, 0.0, 0.0), "scenes.forms"),
}  # fmt: skip
# Options that name places or the machine: (where they bite).
PLACES = {
    "data": "test_train.py", "out": "test_train.py", "recipe": "test_train.py", "device": "TrainConfig.device",
    "overwrite": "test_train.py", "quiet": "test_quiet_hides_the_bar", "debug": "test_bad_input.py",
}  # fmt: skip


def test_every_option_of_train() -> None:
    common = set(TRAIN) | set(PLACES)
    assert {f.name for f in fields(TrainCodec)} == common | {"start"}
    assert {f.name for f in fields(TrainJudge)} == common | {"lessons"}
    assert {f.name for f in fields(TrainCritic)} == common
    assert {f.name for f in fields(TrainModel)} == common | set(MODEL) | {"codec", "name", "start"}
    for verb, recipe in ((TrainCodec, CodecRecipe), (TrainModel, ModelRecipe), (TrainCritic, CriticRecipe)):
        for name, (value, field) in TRAIN.items():
            turned = verb(data="d", out=Path("o"), **{name: value}).settled(recipe)
            assert at(turned, field) == value != at(recipe(), field), name
    for name, (value, field) in MODEL.items():
        beside = {"scenes": ("s",)} if name.startswith("scene_") else {}
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


def test_every_option_reaches_the_builder(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.data import emoji

    seen: list[dict[str, Any]] = []

    def build(out: Path, **options: Any) -> emoji.Report:
        seen.append({"out": out, **options})
        return emoji.Report(out, {"noto": {"train": 1}}, {}, 0, 0, 1, 0)

    monkeypatch.setattr(emoji, "build_emoji", build)
    turned: dict[str, tuple[object, ...]] = {
        "out": (), "size": ("--size", 64), "styles": ("--styles", "noto", "fxemoji"), "skin_tones": ("--skin-tones",),
        "packages": ("--packages", "p"), "workers": ("--workers", 1), "overwrite": ("--overwrite",),
    }  # fmt: skip
    assert set(turned) | {"quiet", "debug"} == {f.name for f in fields(Emoji)}
    assert cli("data", "emoji", "--out", "plain").code == 0
    for name, words in turned.items():
        assert cli("data", "emoji", "--out", name, *words).code == 0
        assert seen[0][name] != seen[-1][name], name


def test_every_option_reaches_the_evaluation(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    def judged(pipe: TextToImage, source: object, judge: object, **options: Any) -> Stand:
        options.pop("progress")
        seen[-1][options["pairs"]] = {**options, "dtype": pipe.dtype}
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
    }  # fmt: skip
    shown = {"model", "device", "json", "quiet", "debug"}
    suites = {"suite", "prompts", "each"}  # test_suites.py
    assert set(turned) | shown | suites == {f.name for f in fields(Evaluate)}
    plain = cli("evaluate", model)
    assert plain.code == 0 and "the table" in plain.out, plain.err
    assert seen[0]["train"]["count"] == 300 and Path("out/evaluate-tiny/report.html").is_file()
    assert cli("evaluate", model, "--json").out.startswith("{")
    assert cli("evaluate", model, "--suite", "drawings").code == 0 and seen[0] == seen[-1]
    for name, words in turned.items():
        assert cli("evaluate", model, *words).code == 0, name
        assert seen[0] != seen[-1], name
    assert cli("evaluate", "nowhere").code == 2 and cli("evaluate", model, "--device", "warp").code == 2
    assert "comparison" in cli("evaluate", model, "--against", model, "--json").lines[0]
    assert "sfumato data emoji --out missing" in cli("evaluate", model, "--data", "missing").err


HEAT, TIME = ("--heatmap", "a cat"), ("--profile", "--steps", "1")
# Option -> (the command it turns, the words that turn it, how it shows in the numbers printed; None: they differ).
INSPECT: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[Ran, Ran], bool] | None]] = {
    "against": ((), ("--against", "nowhere"), refused("--overwrite means nothing to the LoRA")),
    "heatmap": (HEAT, ("--heatmap", "a dog"), None),
    "profile": ((), ("--profile",), lambda plain, turned: "shares" in turned.lines[0]),
    "steps": (HEAT, ("--steps", "3"), None),
    "guidance": (HEAT, ("--guidance", "2"), None),
    "seed": (HEAT, ("--seed", "5"), None),
    "size": ((), ("--size", "48x32"), None),
    "tokens": ((), ("--tokens", "20"), None),
    "blocks": (HEAT, ("--blocks", "0"), None),
    "out": ((), ("--out", "here"), lambda plain, turned: Path("here/anatomy.svg").is_file()),
    "json": ((), (), lambda plain, turned: turned.out.startswith("{")),
    "overwrite": (TIME, ("--overwrite",), lambda plain, turned: turned.code == 0),
    "device": ((), ("--device", "warp"), refused("device 'warp'")),
    "dtype": ((), ("--dtype", "bfloat16"), None),
    "quiet": ((), ("--quiet",), lambda plain, turned: turned.code == 0),
    "debug": ((), ("--debug", "--tokens", "1"), refused("Traceback")),
}


def test_every_option_of_inspect(cli: Cli, model: Path) -> None:
    from sfumato.cli.inspect import Inspect

    assert set(INSPECT) | {"model"} == {f.name for f in fields(Inspect)}
    assert refused("unknown model 'nowhere'")(Ran(0, "", ""), cli("inspect", "nowhere"))
    plain: dict[tuple[str, ...], Ran] = {}
    for name, (command, words, bites) in INSPECT.items():
        if command not in plain:
            plain[command] = cli("inspect", model, *command, "--json", "--overwrite")
            assert plain[command].code == 0, plain[command].err
        turned = cli(
            "inspect", model, *command, *words, "--json", *(() if "--overwrite" in words or "--out" in words else ("--overwrite",))
        )
        assert bites(plain[command], turned) if bites else plain[command].lines != turned.lines, (name, turned)
    assert cli("inspect", model, *TIME).code == 1  # what --overwrite is for
    assert not cli("inspect", model).out.startswith("{")


def test_every_option_reaches_the_check(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.papers import claims

    seen: list[tuple[Any, ...]] = []
    passed = [True]

    def check(*arguments: Any, **options: Any) -> claims.Report:
        seen.append((*arguments, options))
        finding = claims.Finding("two and two", 4.0, 4.0 if passed[0] else 5.0, passed[0])
        return claims.Report("sd3-mmdit", "smoke", "not yet", "so", (finding,), (), (), "", {}, 0.1)

    monkeypatch.setattr(claims, "reproduce", check)
    turned: dict[str, tuple[object, ...]] = {
        "budget": ("--budget", "cpu"), "out": ("--out", "o"), "data": ("--data", "d"), "model": ("--model", "m"),
        "judge": ("--judge", "j"), "work": ("--work", "w"),
    }  # fmt: skip
    assert set(turned) | {"slug", "list", "markdown", "json", "debug"} == {f.name for f in fields(Reproduce)}
    assert "two and two" in cli("reproduce", "sd3-mmdit").out
    for name, words in turned.items():
        assert cli("reproduce", "sd3-mmdit", *words).code == 0
        assert seen[0] != seen[-1], name
    assert cli("reproduce", "sd3-mmdit", "--json").lines[0]["verdict"] == "not yet"
    passed[0] = False
    assert cli("reproduce", "sd3-mmdit").code == 1 and cli("reproduce", "sd3-mmdit", "--budget", "cpu").code == 0
    assert "sd3-mmdit" in cli("reproduce", "--list").out
    assert cli("reproduce", "--list", "--markdown", "claims.md").code == 0 and "# Claims" in Path("claims.md").read_text()
    for words in ((), ("--markdown", "x.md"), ("sd3-mmdit", "--list")):
        assert cli("reproduce", *words).code == 2
    monkeypatch.undo()
    assert "did you mean" in cli("reproduce", "sd3-mmdi").err
