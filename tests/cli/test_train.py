"""`sfumato train`: from a folder of pictures to a pipeline that draws, resumed and refused as it should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sfumato.backbones.mmdit import MMDiTConfig
from sfumato.codecs.kl import KLConfig
from sfumato.core.config import to_dict
from sfumato.core.files import read_tensors
from sfumato.core.task import Phase
from sfumato.core.weights import WEIGHTS
from sfumato.data.scenes.build import build_scenes
from sfumato.pipelines import Defaults, load
from sfumato.training import precompute
from sfumato.training.codec import CodecTaskConfig
from sfumato.training.codec_recipe import CodecRecipe
from sfumato.training.diffusion import DiffusionTask
from sfumato.training.loop import TrainConfig
from sfumato.training.recipes import ModelRecipe, Small

from .conftest import Cli

FIXTURE = Path(__file__).parents[1] / "data" / "fixture"
QUICK = TrainConfig(steps=2, precision="fp32", ema=0.5)
CODEC = CodecRecipe(KLConfig(channels=(8, 8, 8, 16), latent=4), CodecTaskConfig(), 2, QUICK)
MODEL = ModelRecipe(
    shape=MMDiTConfig(depth=2, width=32, heads=2, base_grid=2),
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


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scenes of one or two of the fixture's drawings."""
    folder = tmp_path_factory.mktemp("scenes") / "few"
    build_scenes(folder, FIXTURE, count=10, difficulty=2, size=32, workers=1, progress=False)
    return folder


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What every step of a training sees: the network's weights, the batch, the draws, and the loss that follows."""
    seen: list[tuple[Any, ...]] = []
    own = DiffusionTask.loss

    def loss(task: DiffusionTask, phase: Any, batch: Any, carry: Any, draws: Any) -> Any:
        found = own(task, phase, batch, carry, draws)
        seen.append(({n: t.detach().clone() for n, t in task.net.state_dict().items()}, batch, draws, float(found.total.detach())))
        return found

    monkeypatch.setattr(DiffusionTask, "loss", loss)
    return seen


def mixing(**fields: Any) -> dict[str, Any]:
    """A recipe that says nothing of shape and sampling: they are the model's."""
    recipe = to_dict(ModelRecipe(forms=(1.0,), small=Small(16, 1, 6), batch=4, train=QUICK))
    return {name: value for name, value in recipe.items() if name not in ("shape", "defaults")} | fields


def weights(folder: str) -> dict[str, Any]:
    return read_tensors(Path(folder) / "pipeline" / "transformer" / WEIGHTS)


def test_a_model_goes_on_with_scenes_beside_drawings(
    cli: Cli, drawings: Path, model: Path, scenes: Path, begun: list[tuple[Any, ...]]
) -> None:
    Path("mix.json").write_text(json.dumps(mixing()))
    words = ("train", "model", "--data", drawings, "--quiet", "--recipe")
    ran = cli(*words, "mix.json", "--out", "on", "--from", model, "--scenes", scenes)
    assert ran.code == 0 and "2 drawings and 2 scenes a step, of 4 and " in ran.err, ran.err

    trained, (first, batch, draws, loss) = load(model), begun[0]
    before = trained.denoiser.net.state_dict()
    assert first.keys() == before.keys() and all(torch.equal(first[n], before[n]) for n in before)
    # With gradients on, as in the run: without, attention takes another kernel and its last bits differ.
    task = DiffusionTask(trained.denoiser.net.requires_grad_(True), slots=trained.slots)
    assert float(task.loss(Phase("denoise", ("net",)), batch, {}, draws).total.detach()) == loss
    assert [tuple(batch["latents"].shape) for _, batch, *_ in begun[:2]] == [(6, 4, 2, 2), (4, 4, 4, 4)]

    recipe = json.loads(Path("on/recipe.json").read_text())
    assert recipe["start"] == {"model": str(model), "sha256": trained.identity["sha256"]}
    assert recipe["scenes"]["folders"] == [str(scenes)] and recipe["shape"] == to_dict(trained.denoiser.net.config)
    made = load("on/pipeline")
    assert made.card["pictures"] == 4 and made.card["scenes"] > 0 and made.defaults == trained.defaults
    assert any(not torch.equal(t, before[n]) for n, t in made.denoiser.net.state_dict().items())

    other = cli(*words, "mix.json", "--out", "on", "--from", model, "--scenes", scenes, "--scene-share", 0.25, "--overwrite")
    assert other.code == 2 and "scenes.share differ" in other.err
    assert cli(*words, "on/recipe.json", "--out", "again").code == 0, "recipe.json alone makes the run again"
    assert all(torch.equal(tensor, weights("again")[name]) for name, tensor in weights("on").items())

    large = cli(*words, "mix.json", "--out", "large", "--from", model, "--scenes", scenes, "--small-steps", 0, "--ema", 0)
    assert large.code == 0 and {tuple(batch["latents"].shape) for _, batch, *_ in begun[-2:]} == {(4, 4, 4, 4)}
    Path("moved.json").write_text(json.dumps(recipe | {"start": {"model": str(model), "sha256": "0123456789abcdef"}}))
    moved = cli(*words, "moved.json", "--out", "moved")
    assert moved.code == 2 and "began with other weights" in moved.err and not Path("moved").exists()


SHAPES: dict[str, dict[str, Any]] = {
    "PixArt": {"depth": 2, "width": 48, "heads": 2, "span": 2.0, "variance": False, "sizes": True},
    "UViT": {"depth": 2, "width": 32, "heads": 2, "grid": 2, "words": 60},
    "MMDiT": {"depth": 2, "width": 32, "heads": 2, "base_grid": 2, "positions": "span"},
}


@pytest.fixture(scope="module")
def encoded_once() -> Iterator[None]:
    """The fixture's captions go through MiniLM once for all runs: most of their time."""
    own, tables = precompute.encode_captions, dict[tuple[str, ...], Any]()

    def encode(captions: Any, encoder: Any, batch: int) -> Any:
        key = tuple(captions)
        if key not in tables:
            tables[key] = own(captions, encoder, batch)
        return tables[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precompute, "encode_captions", encode)
        yield


@pytest.mark.parametrize("family", SHAPES)
def test_any_family_trains_resumes_draws_and_goes_on(cli: Cli, model: Path, family: str, encoded_once: None) -> None:
    own = {"family": family, "shape": SHAPES[family], "small": {"size": 16, "steps": 1, "batch": 2}, "batch": 2}
    recipe = {**own, "defaults": {"size": [32, 32], "steps": 2}, "train": to_dict(QUICK)}
    Path("net.json").write_text(json.dumps(recipe))
    words = ("train", "model", "--data", FIXTURE, "--codec", model, "--quiet", "--recipe", "net.json", "--out")
    ran = cli(*words, "one", "--depth", 4)
    assert ran.code == 0, ran.err
    more = cli(*words, "one", "--depth", 4, "--steps", 3, "--overwrite")
    assert more.code == 0 and "going on from one/step-00000002" in more.err, more.err
    assert cli(*words, "whole", "--depth", 4, "--steps", 3, "--cache", "kept").code == 0
    assert sorted(p.name for p in Path("kept").iterdir()) == sorted(p.name for p in Path("one").glob("*-*.safetensors"))
    assert all(torch.equal(tensor, weights("one")[name]) for name, tensor in weights("whole").items())

    made = load("one/pipeline")
    net = made.denoiser.net
    assert type(net).__name__ == family and {s.name for s in made.slots} == net.slots & {"text", "pooled"}
    held = json.loads(Path("one/recipe.json").read_text())
    assert held["family"] == family and held["shape"] == to_dict(net.config) and held["shape"]["channels"] == 4 == held["shape"]["depth"]
    drawn = cli("generate", "a fox", "--model", "one/pipeline", "--json").lines[0]
    assert cli("generate", "--again", drawn["path"]).code == 0

    on = ("train", "model", "--data", FIXTURE, "--quiet", "--from", "one/pipeline", "--out", "on", "--steps", 1, "--small-steps", 0)
    ran = cli(*on, "--family", family, "--batch", 2, "--precision", "fp32")
    assert ran.code == 0, ran.err
    assert load("on/pipeline").denoiser.net.config == net.config
    other = cli(*on, "--family", "Sana", "--overwrite")
    assert other.code == 2 and f"the family Sana was asked for, and one/pipeline is of {family}" in other.err


def test_a_run_on_other_data_or_of_fewer_steps_is_refused(cli: Cli, drawings: Path, model: Path) -> None:
    Path("plain.json").write_text(json.dumps(to_dict(MODEL)))
    words = ("--codec", model, "--out", "one", "--recipe", "plain.json", "--quiet", "--overwrite")
    assert cli("train", "model", "--data", drawings, *words).code == 0
    shutil.copytree(drawings, "other")
    assert cli("train", "model", "--data", "other", *words).code == 0, "the same data in another place"
    next(Path("other").rglob("*.txt")).write_text("something else")
    ran = cli("train", "model", "--data", "other", *words)
    assert ran.code == 2 and f"holds a run on other data, {Path('other')}" in ran.err, ran.err
    longer = cli("train", "model", "--data", drawings, *words, "--steps", 4)
    assert longer.code == 0 and "its learning rates are those of a run of 4" in longer.err, longer.err
    short = cli("train", "model", "--data", drawings, *words, "--steps", 3)
    assert short.code == 2 and "has reached step 4, and 3 were asked for" in short.err, short.err


def test_a_run_of_before_a_field_existed_goes_on(cli: Cli, drawings: Path, model: Path) -> None:
    Path("plain.json").write_text(json.dumps(to_dict(MODEL)))
    words = ("train", "model", "--data", drawings, "--codec", model, "--out", "old", "--recipe", "plain.json", "--quiet", "--overwrite")
    assert cli(*words).code == 0
    saved = json.loads(Path("old/recipe.json").read_text())
    Path("old/recipe.json").write_text(
        json.dumps({name: value for name, value in saved.items() if name not in ("scenes", "start", "family")})
    )
    assert "going on from" in cli(*words, "--steps", 3).err
    assert cli(*words, "--scenes", "s").code == 1 and cli(*words, "--from", model).code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scenes", "drawings"), "drawings is no folder of scenes"),
        (("--scenes", "nowhere"), "there is no nowhere"),
        (("--scenes", "SCENES", "SCENES"), "named twice"),
        (("--scenes", "SCENES", "--scene-share", "1"), "share is 1.0"),
        (("--scenes", "SCENES", "--scene-share", "0"), "share is 0.0"),
        (("--scenes", "SCENES", "--scene-share", "0.1"), "is 0 scenes"),
        (("--scenes", "SCENES", "--scene-forms", "0", "0", "0", "0"), "not all 0"),
        (("--language-share", "0.2"), "name them: --languages"),
        (("--languages", "de", "ja", "de"), "--languages names de twice"),
        (("--depth", "0"), "--depth 0\n  at least 1"),
        (("--lr", "nan"), "lr is nan"),
        (("--muon-lr", "inf"), "muon_lr is inf"),
        (("--languages", "de", "--language-share", "1"), "more than 0 and less than 1"),
        (("--scenes", "SCENES", "--scene-objects", "0"), "at least 1"),
        (("--scene-share", "0.5"), "--scenes FOLDER"),
        (("--from", "MODEL", "--width", "64"), "width 64 was asked for, and MODEL has width 32"),
        (("--from", "MODEL", "--recipe", "emoji-pixart"), "the family PixArt was asked for, and MODEL is of MMDiT"),
        (("--recipe", "emoji-mmdot"), "did you mean 'emoji-mmdit'"),
        (("--recipe", "nowhere.json"), "cannot read the recipe nowhere.json"),
        (("--family", "PixArt"), "--family PixArt beside a recipe of MMDiT"),
        (("--recipe", "emoji-flux", "--depth", "3"), "--depth for a Flux"),
        (("--recipe", "emoji-uvit", "--depth", "3"), "depth is 3"),
        (("--from", "MODEL", "--codec", "emoji-mmdit"), "leave --codec out"),
        (("--from", "emoji-mmdot"), "did you mean 'emoji-mmdit'"),
    ],
)
def test_mixtures_and_models_that_cannot_be(cli: Cli, drawings: Path, model: Path, scenes: Path, words: tuple[str, ...], said: str) -> None:
    Path("mix.json").write_text(json.dumps(mixing(small=to_dict(Small(steps=0)))))
    names = {"SCENES": str(scenes), "MODEL": str(model)}
    chosen = [names.get(word, word) for word in words]
    ran = cli("train", "model", "--data", drawings, "--out", "o", "--recipe", "mix.json", "--quiet", *chosen)
    assert ran.code != 0 and said.replace("MODEL", str(model)) in ran.err, ran.err
    assert not Path("o").exists()


def test_judge(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.evaluate import judge_recipe

    seen: list[tuple[Any, ...]] = []

    class Made:
        card: dict[str, Any] = {"held_out": {"count": 0}, "scenes": {"map50": {"value": 0.875}}}  # noqa: RUF012

    def train_judge(*arguments: Any, **options: Any) -> Made:
        seen.append((*arguments, options))
        return Made()

    monkeypatch.setattr(judge_recipe, "train_judge", train_judge)
    Path("d").mkdir()
    ran = cli("train", "judge", "--data", "d", "--out", "o", "--steps", 5, "--lessons", "l", "--quiet")
    assert (ran.code, ran.out) == (0, "o/judge\n") and "0.875" in ran.err, ran.err
    data, out, recipe, run, lessons, options = seen[0]
    assert lessons == Path("l") and (data, out, run, recipe.train.steps, options["quiet"]) == (
        Path("d"),
        Path("o/judge"),
        Path("o/run"),
        5,
        True,
    )


def test_critic(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.evaluate import critic_recipe

    seen: list[tuple[Any, ...]] = []

    class Made:
        card: dict[str, Any] = {  # noqa: RUF012
            "held_out": {"drawings": {"preferred": {"count": 8, "value": 0.875}}, "scenes": {"preferred": {"count": 0}}}
        }

    def train_critic(*arguments: Any, **options: Any) -> Made:
        seen.append((*arguments, options))
        return Made()

    monkeypatch.setattr(critic_recipe, "train_critic", train_critic)
    Path("d").mkdir()
    ran = cli("train", "critic", "--data", "d", "--out", "o", "--steps", 5, "--quiet")
    assert (ran.code, ran.out) == (0, "o/critic\n") and "87.5% of 8 pairs of drawings" in ran.err and "scenes" not in ran.err, ran.err
    data, out, recipe, run, options = seen[0]
    assert (data, out, run, recipe.train.steps, options["quiet"]) == (Path("d"), Path("o/critic"), Path("o/run"), 5, True)
    assert recipe.train.seed == 1  # the judge's is 0


def test_perceptual(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.evaluate import perceptual_recipe

    seen: list[tuple[Any, ...]] = []

    class Made:
        card: dict[str, Any] = {  # noqa: RUF012
            "held_out": {"taught": {"perceptual": {"agreement": {"value": 0.5}}, "mse": {"agreement": {"value": 0.25}}}}
        }

    def train_perceptual(*arguments: Any, **options: Any) -> Made:
        seen.append((*arguments, options))
        return Made()

    monkeypatch.setattr(perceptual_recipe, "train_perceptual", train_perceptual)
    Path("d").mkdir()
    ran = cli("train", "perceptual", "--data", "d", "--out", "o", "--steps", 5, "--quiet")
    assert (ran.code, ran.out) == (0, "o/perceptual\n") and "distortions taught cost the judge: perceptual 0.500, mse 0.250" in ran.err, (
        ran.err
    )
    data, out, recipe, run, judge, options = seen[0]
    assert (data, out, run, recipe.train.steps, options["quiet"]) == (Path("d"), Path("o/perceptual"), Path("o/run"), 5, True)
    assert recipe.train.seed == 2 and judge.concepts  # the judge's seed is 0, the critic's 1
    assert cli("train", "perceptual", "--data", "d", "--out", "o2", "--judge", "nowhere").code == 1


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


@pytest.mark.parametrize("kind", ["codec", "model", "judge", "critic", "perceptual"])
def test_data_that_are_not_there_are_missed_before_a_run_begins(cli: Cli, kind: str) -> None:
    ran = cli("train", kind, "--data", "nosuch", "--out", "o", "--quiet")
    assert ran.code == 1 and "nosuch" in ran.err and "a new run" not in ran.err and not Path("o").exists(), ran.err
