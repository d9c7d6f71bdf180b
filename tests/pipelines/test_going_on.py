"""Pictures that go on from a picture or from another model: Stable Diffusion XL's refiner by hand-over and by SDEdit, as diffusers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.pipelines.peers import drawn, euler, refiner, relative, saved, sd, sdxl
from torch import Tensor

import sfumato
from sfumato.core.errors import ConflictError, UsageError
from sfumato.core.rng import Rows
from sfumato.pipelines import Refined, TextToImage, redraw
from sfumato.sampling.policies.attention_maps import AttentionRecorder

PROMPTS = ["a red fox in the snow", "a cat under a yellow house"]
SEEDS = (3, 4, 3, 4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: saved(made, root / name) for name, made in {"base": sdxl(), "refiner": refiner(), "sd": sd()}.items()}


@pytest.fixture
def pipes(folders: dict[str, Path]) -> dict[str, TextToImage]:
    return {name: sfumato.load(folder) for name, folder in folders.items()}


@pytest.mark.parametrize(("steps", "negative"), [(8, ""), (5, "a thick outline")])
def test_the_refiner_goes_on_where_the_base_left_off(steps: int, negative: str, pipes: dict[str, TextToImage]):
    pictures = Refined(pipes["base"], pipes["refiner"], at=0.8)(PROMPTS, num=2, seed=3, size=(16, 24), steps=steps, negative=negative)
    base, second = sdxl(), refiner()
    base.set_progress_bar_config(disable=True)
    call: dict[str, Any] = {"prompt": PROMPTS, "num_images_per_prompt": 2, "num_inference_steps": steps, "guidance_scale": 5.0}
    call |= {"negative_prompt": [negative] * 2} if negative else {}
    noise = Rows(SEEDS).normal((4, 8, 12), "noise")
    latents = base(latents=noise, height=16, width=24, denoising_end=0.8, output_type="latent", **call).images
    second.set_progress_bar_config(disable=True)
    # Their second pipeline repeats latents for every picture of a prompt: it is told each prompt as often as there are pictures.
    call |= {"prompt": [p for p in PROMPTS for _ in range(2)], "num_images_per_prompt": 1}
    call |= {"negative_prompt": [negative] * 4} if negative else {}
    reference = 2 * second(image=latents, denoising_start=0.8, output_type="pt", **call).images - 1
    assert relative(pictures.images, reference) <= 1e-4
    assert relative(pictures.images, drawn(base, noise, height=16, width=24, **call)) > 1e-3
    assert pictures.settings["refiner"]["at"] == 0.8 and pictures.seeds == SEEDS


@pytest.mark.parametrize(("name", "strength"), [("refiner", 0.3), ("refiner", 1.0), ("base", 0.55)])
def test_a_picture_redrawn_is_that_of_diffusers(
    name: str, strength: float, pipes: dict[str, TextToImage], folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    pipe, picture = pipes[name], torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pictures = redraw(pipe, PROMPTS, picture, strength, num=2, seed=3, steps=10)
    latents = pipe.codec.encode(picture[None])
    kind = diffusers.StableDiffusionXLImg2ImgPipeline
    theirs = refiner() if name == "refiner" else kind(**sdxl().components, requires_aesthetics_score=False, add_watermarker=False)
    module = __import__(kind.__module__, fromlist=["randn_tensor"])

    def noise(shape: Any, **others: Any) -> Tensor:
        return Rows(SEEDS).normal(tuple(shape[1:]), "noise")

    monkeypatch.setattr(module, "randn_tensor", noise)
    theirs.set_progress_bar_config(disable=True)
    call = {"prompt": PROMPTS, "num_images_per_prompt": 2, "num_inference_steps": 10, "guidance_scale": 5.0}
    reference = 2 * theirs(image=latents.repeat(2, 1, 1, 1), strength=strength, output_type="pt", **call).images - 1
    assert relative(pictures.images, reference) <= 1e-4
    assert pictures.settings["strength"] == strength and pictures.images.shape == (4, 3, 16, 24)


def test_the_folder_of_a_refiner(pipes: dict[str, TextToImage], tmp_path: Path):
    pipe = pipes["refiner"]
    assert [slot.null for slot in pipe.slots] == ["empty", "empty"] and pipe.denoiser.net.slots >= {"aesthetic", "pooled"}
    lanes = pipe.conditions(["a cat"], "", 5.0)[0]
    assert {lane: cond.vectors["aesthetic"].tolist() for lane, cond in lanes.items()} == {"cond": [[6.0]], "uncond": [[2.5]]}
    back = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(
        pipe.save(tmp_path / "again", format="diffusers"), text_encoder=None, tokenizer=None
    )
    assert back.config.requires_aesthetics_score and not back.config.force_zeros_for_empty_prompt
    assert all(torch.equal(p, back.unet.state_dict()[n]) for n, p in refiner().unet.state_dict().items())


def test_a_refiner_that_draws_from_noise_alone_says_so(pipes: dict[str, TextToImage]):
    def said(pictures: Any) -> bool:
        return any("this model refines" in note for note in pictures.notes)

    assert said(pipes["refiner"]("a fox", size=(16, 16), steps=1)) and not said(pipes["base"]("a fox", size=(16, 16), steps=1))
    assert not said(Refined(pipes["base"], pipes["refiner"])("a fox", size=(16, 16), steps=5))
    assert not said(redraw(pipes["refiner"], "a fox", torch.zeros(3, 16, 16), steps=2))


def test_what_does_not_fit_is_refused(pipes: dict[str, TextToImage]):
    both, picture = Refined(pipes["base"], pipes["refiner"]), torch.zeros(3, 16, 16)
    for act, told in (
        (lambda: Refined(pipes["base"], pipes["refiner"], at=1.0), "goes on at 1.0"),
        (lambda: both("a fox", steps=1), "1 steps, of which"),
        (lambda: both("a fox", policies=[AttentionRecorder()]), "policies for two models"),
        (lambda: redraw(pipes["sd"], "a fox", picture, strength=0.0), "strength is 0.0"),
        (lambda: redraw(pipes["sd"], "a fox", torch.zeros(3, 3, 16, 16)), r"shape \(3, 3, 16, 16\) for 1"),
        (lambda: redraw(pipes["sd"], "a fox", torch.zeros(3, 15, 16)), "size 16x15"),
        (lambda: redraw(pipes["sd"], "a fox", picture, size=(16, 32)), "size 32x16 of a picture of 16x16"),
        (lambda: redraw(pipes["sd"], "a fox", picture, binned=True), "binned, and a picture"),
        (lambda: redraw(pipes["sd"], "a fox", picture, stepz=3), "did you mean 'steps'"),
        (lambda: both("a fox", steps=8, micro={"size": (1, 2)}), "two models 'size'"),
        (lambda: both("a fox", steps=8, micro={"target_size": (1,)}), "micro target_size = 1"),
        (lambda: both("a fox", steps=8, then={"micro": {"target_size": (1, 2)}}), "aesthetic"),
    ):
        with pytest.raises(UsageError, match=told):
            act()
    with pytest.raises(ConflictError, match="the first model stops at"):
        second = sfumato.pipelines.Refined(pipes["base"], pipes["refiner"])
        second.refiner.defaults = type(second.refiner.defaults)(layout=euler_layout())
        second("a fox", steps=8, size=(16, 16))


def euler_layout() -> Any:
    from sfumato.pipelines.published.schedulers import read

    return read({"_class_name": "EulerDiscreteScheduler", **dict(euler("trailing").config)}).layout


def test_what_the_refiner_has_otherwise(pipes: dict[str, TextToImage]):
    both, call = Refined(pipes["base"], pipes["refiner"]), {"steps": 8, "size": (16, 16), "seed": 3}
    plain = both("a fox", **call)
    other = both("a fox", **call, then={"guidance": 2.0, "micro": {"aesthetic": (3.0,)}})
    assert (other.settings["guidance"], other.settings["refiner"]["guidance"]) == (5.0, 2.0)
    assert "micro" not in other.settings and other.settings["refiner"]["micro"] == {"aesthetic": [3.0]}
    assert relative(other.images, plain.images) > 1e-4
    split = both("a fox", **call, micro={"aesthetic": (3.0,), "target_size": (8, 8)})
    assert split.settings["micro"] == {"target_size": [8, 8]} and split.settings["refiner"]["micro"] == {"aesthetic": [3.0]}
