"""`sfumato train codec | judge | critic | perceptual` and what all trainings share: the recipes of `training/` and
`evaluate/` with a user's changes.

A run lives in its folder: recipe.json says what was asked for, checkpoints let the same command go on where it stopped, and a folder
that holds another recipe's run is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from tyro import conf

from ..core.config import from_dict, to_dict
from ..core.errors import ConfigError, DataError, UsageError
from ..core.files import refuse_overwrite, sha256, write_json
from .verb import Verb, make_folder, note, pick_device, unset

if TYPE_CHECKING:
    from ..data.sources import Source
    from ..training.loop import TrainConfig

R = TypeVar("R")

# What a run may change when it goes on: of what a step computes it changes the learning rate alone, by the length of the run.
CHANGEABLE = {"train.steps", "train.device", "train.log_every", "train.sample_every", "train.checkpoint_seconds"}


@dataclass(frozen=True, kw_only=True)
class Train(Verb):
    """Options that every training has; an option left out is as in the recipe that made the shipped weights."""

    # EmojiWorld, a folder of pictures with captions, a parquet or Arrow file or folder, or a hub data set.
    data: str
    # The run's folder: checkpoints, logs, samples, results. The same command goes on where a run stopped.
    out: Path
    # A recipe file to start from, as recipe.json of an earlier run.
    recipe: Annotated[str | None, unset("the shipped weights' recipe", "FILE.json")] = None
    # Optimizer steps.
    steps: Annotated[int | None, unset("the recipe's")] = None
    # Pictures in a step.
    batch: Annotated[int | None, unset("the recipe's")] = None
    # Peak learning rate of AdamW.
    lr: Annotated[float | None, unset("the recipe's")] = None
    # Arithmetic: bf16 autocast or plain fp32.
    precision: Annotated[Literal["bf16", "fp32"] | None, unset("the recipe's")] = None
    # Decides the initial weights, the order of the data and the noise.
    seed: Annotated[int | None, unset("the recipe's")] = None
    # cpu, cuda or cuda:1, say.
    device: Annotated[str, unset("the GPU where there is one")] = "auto"
    # Replace the result of a finished run.
    overwrite: bool = False
    # No progress bar.
    quiet: bool = False

    def stated(self) -> Mapping[str, Any]:
        """What the recipe that was asked for says, and nothing of the defaults. Raises `UsageError`, `ConfigError` for what is none."""
        return {} if self.recipe is None else read_recipe(Path(self.recipe))

    def settled(self, kind: type[R]) -> R:
        """The recipe of this run: the file's or the default, with the options given."""
        recipe: Any = from_dict(kind, self.stated())
        trained: TrainConfig = recipe.train
        if self.lr is not None:
            trained = replace(trained, optimizer=replace(trained.optimizer, lr=self.lr))
        changed = {name: getattr(self, name) for name in ("steps", "precision", "seed") if getattr(self, name) is not None}
        trained = replace(trained, device=pick_device(self.device), **changed)
        batch = recipe.batch if self.batch is None else self.batch
        if batch < 1:
            raise UsageError(f"batch is {batch}", "at least 1")
        settled: R = replace(recipe, batch=batch, train=trained)
        return settled

    def check_world(self) -> None:
        """Raise `DataError` unless the data are a folder, as EmojiWorld is."""
        if not Path(self.data).is_dir():
            raise DataError(f"there is no folder {self.data}", f"to build it: sfumato data emoji --out {self.data}")

    def open_run(self, recipe: Any, result: Path, checkpoints: Path | None = None, source: Source | None = None) -> None:
        """Refuse a folder that holds a finished result or another run; otherwise write recipe.json and say where the run begins.

        The data must have been found before.
        """
        from ..training.checkpoints import existing

        refuse_overwrite(result, self.overwrite)
        make_folder(self.out)
        path, folder = self.out / "recipe.json", checkpoints or self.out
        found = existing(folder)
        if found and path.is_file():
            # Through the class, so that a run of before a field existed has that field's default.
            begun = to_dict(from_dict(type(recipe), read_recipe(path)))
            differing = sorted(_differing(begun, to_dict(recipe)) - CHANGEABLE)
            if differing:
                raise UsageError(f"{self.out} holds a run of another recipe: {', '.join(differing)} differ", "choose another folder")
            self._check_steps(begun["train"]["steps"], recipe.train.steps, int(found[-1].name.removeprefix("step-")))
        self._claim_data(bool(found), source)
        write_json(path, to_dict(recipe))
        note(f"going on from {found[-1]}" if found else f"a new run in {self.out}")

    def _check_steps(self, planned: int, steps: int, reached: int) -> None:
        """Refuse a run shorter than it already is; of one whose length changes, say what that does."""
        if steps < reached:
            raise UsageError(f"{self.out} has reached step {reached}, and {steps} were asked for", f"--steps {reached} or more")
        if steps != planned:
            note(f"this run was planned for {planned} steps: from step {reached} on its learning rates are those of a run of {steps}")

    def _claim_data(self, going_on: bool, source: Source | None) -> None:
        """Write down which data the run learns from, or make sure that they are the same."""
        manifest, path = Path(self.data) / "manifest.json", self.out / "data.json"
        rows = [] if source is None else list(zip(source.column("id"), source.column("captions"), strict=True))
        mark = sha256(manifest) if manifest.is_file() else hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        if going_on and path.is_file() and (begun := read_recipe(path)).get("sha256") != mark:
            raise UsageError(f"{self.out} holds a run on other data, {begun.get('data')}", "choose another folder")
        write_json(path, {"data": str(self.data), "sha256": mark})


@dataclass(frozen=True, kw_only=True)
class TrainCodec(Train):
    """Train the autoencoder between pixels and latents. The result is OUT/vae, a diffusers AutoencoderKL folder, and OUT/card.json."""

    # A codec whose decoder alone is trained on, so that its latents keep their meaning.
    start: Annotated[str | None, conf.arg(name="from", metavar="CODEC", help_behavior_hint="(default: none)")] = None

    def run(self) -> int:
        from ..codecs.kl import KLCodec
        from ..data.sources import open_source
        from ..pipelines.components import save_codec
        from ..pipelines.folder import load_codec
        from ..training.codec_recipe import CodecRecipe, train_codec

        recipe = self.settled(CodecRecipe)
        source, held_out = (open_source(self.data, split=split) for split in ("train", "validation"))
        self.open_run(recipe, self.out / "vae", source=source)
        start = None if self.start is None else load_codec(self.start)
        if not (start is None or isinstance(start, KLCodec)):
            raise UsageError(f"--from {self.start} is a {type(start.autoencoder).__name__}", "a KL codec is what is trained here")
        codec = train_codec(source, held_out, self.out, recipe, start, self.quiet)
        measured = json.loads((self.out / "card.json").read_text())["held_out"]
        print(save_codec(codec, self.out / "vae", self.overwrite))
        note(f"{measured['psnr']:.2f} dB on {measured['pictures']} pictures held out")
        return 0


@dataclass(frozen=True, kw_only=True)
class TrainJudge(Train):
    """Train the judge that names drawings, finds things in scenes and reads signs. The result is OUT/judge (`sfumato evaluate --judge`)."""

    # A folder of further icon sets to learn concepts from (sfumato data emoji --styles "noto v1" ...).
    lessons: Annotated[Path | None, unset("none")] = None

    def run(self) -> int:
        from ..evaluate.judge_recipe import JudgeRecipe, train_judge

        recipe = self.settled(JudgeRecipe)
        self.check_world()
        run = self.out / "run"
        self.open_run(recipe, self.out / "judge", run)
        judge = train_judge(Path(self.data), self.out / "judge", recipe, run, self.lessons, quiet=self.quiet)
        print(self.out / "judge")
        measured = judge.card["held_out"]
        if measured["count"]:
            note(f"names {measured['concept_top1']['value']:.1%} of {measured['count']} held-out drawings")
        note(f"finds things in held-out scenes with a mAP50 of {judge.card['scenes']['map50']['value']:.3f}")
        return 0


@dataclass(frozen=True, kw_only=True)
class TrainCritic(Train):
    """Train the critic that chooses among pictures, so that the judge may rate them. The result is OUT/critic (`--scorer OUT/critic`)."""

    def run(self) -> int:
        from ..evaluate.critic_recipe import CriticRecipe, train_critic

        recipe = self.settled(CriticRecipe)
        self.check_world()
        run = self.out / "run"
        self.open_run(recipe, self.out / "critic", run)
        critic = train_critic(Path(self.data), self.out / "critic", recipe, run, quiet=self.quiet)
        print(self.out / "critic")
        for kind, found in critic.card["held_out"].items():
            if found["preferred"]["count"]:
                note(f"prefers the true caption in {found['preferred']['value']:.1%} of {found['preferred']['count']} pairs of {kind}")
        return 0


@dataclass(frozen=True, kw_only=True)
class TrainPerceptual(Train):
    """Train the network that says how unlike two pictures look, for losses. The result is OUT/perceptual."""

    # The judge that its agreement is measured with; it teaches nothing.
    judge: Annotated[Path | None, unset("the one that ships")] = None

    def run(self) -> int:
        from ..evaluate.judge import Judge
        from ..evaluate.perceptual_recipe import PerceptualRecipe, train_perceptual

        recipe, judge = self.settled(PerceptualRecipe), Judge.load(self.judge)
        self.check_world()
        run = self.out / "run"
        self.open_run(recipe, self.out / "perceptual", run)
        made = train_perceptual(Path(self.data), self.out / "perceptual", recipe, run, judge, quiet=self.quiet)
        print(self.out / "perceptual")
        for group, scores in made.card["held_out"].items():
            found = ", ".join(f"{name} {score['agreement']['value']:.3f}" for name, score in scores.items())
            note(f"agreement with what distortions {group} cost the judge: {found}")
        return 0


def read_recipe(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the recipe {path}: {error}", "a JSON file like recipe.json in a run's folder") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the recipe {path} is not a JSON object")
    return content


def _differing(a: Any, b: Any, at: str = "") -> set[str]:
    """Dotted names of the fields in which two nested configs differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return set().union(*(_differing(a.get(k), b.get(k), f"{at}.{k}".lstrip(".")) for k in a.keys() | b.keys()))
    return set() if a == b else {at}
