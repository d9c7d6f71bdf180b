"""Stable Diffusion 1, 2 and XL from diffusers folders: the pictures diffusers draws, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.pipelines.peers import SCALED, drawn, euler, relative, saved, sd, sdxl

import sfumato
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.rng import Rows

PROMPTS = ["a red fox in the snow", "a cat under a yellow house"]
DDIM = diffusers.DDIMScheduler(**SCALED, clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction")
SD2 = {"use_linear_projection": True, "attention_head_dim": (2, 4), "upcast_attention": True}


@pytest.mark.parametrize(
    ("make", "made", "call"),
    [
        (sd, {}, {"steps": 6}),
        (sd, {}, {"steps": 1}),
        (sd, {"scheduler": DDIM, **SD2}, {"negative": "snow, a thick outline"}),
        (sd, {"scheduler": euler("trailing"), "sample_size": 64}, {"guidance": 3.0}),
        (sd, {"scheduler": diffusers.DPMSolverMultistepScheduler(**SCALED)}, {"steps": 3}),
        (sdxl, {}, {}),
        (sdxl, {"zeros": False}, {"steps": 2}),
        (sdxl, {"scheduler": euler("trailing")}, {"negative": "a house", "guidance": 2.0}),
        (sdxl, {"scheduler": euler(prediction_type="v_prediction")}, {"guidance": 1.0}),
    ],
)
def test_pictures_are_those_of_diffusers(make: Any, made: dict[str, Any], call: dict[str, Any], tmp_path: Path):
    theirs = make(**made)
    ours = sfumato.load(saved(theirs, tmp_path / "model"))
    pictures = ours(PROMPTS, num=2, seed=3, size=(16, 24), **{"steps": 4, **call})
    negative = {"negative_prompt": [call["negative"]] * 2} if "negative" in call else {}
    reference = drawn(
        theirs, Rows((3, 4, 3, 4)).normal((4, 8, 12), "noise"), prompt=PROMPTS, num_images_per_prompt=2, height=16, width=24,
        num_inference_steps=call.get("steps", 4), guidance_scale=call.get("guidance", ours.defaults.guidance), **negative,
    )  # fmt: skip
    assert relative(pictures.images, reference) <= 1e-4
    assert reference.std() > 0.05 and relative(reference[0], reference[2]) > 1e-3


def test_the_folder_says_how_it_is_drawn(tmp_path: Path):
    pipe, large = sfumato.load(saved(sd(), tmp_path / "sd")), sfumato.load(saved(sdxl(), tmp_path / "xl"))
    assert (pipe.defaults.size, pipe.defaults.steps, pipe.defaults.guidance, pipe.defaults.solver) == ((32, 32), 50, 7.5, "plms")
    assert (large.defaults.size, large.defaults.steps, large.defaults.guidance, large.defaults.solver) == ((32, 32), 50, 5.0, "euler")
    assert [slot.null for slot in pipe.slots] == ["empty"] and [slot.null for slot in large.slots] == ["zeros", "zeros"]
    states = large.encoder.encode(["a cat under a yellow house"])
    assert states.tokens.shape == (1, 24, 20) and states.mask.all() and states.pooled is not None and states.pooled.shape == (1, 8)
    cond = large._conditioning().lanes(["a cat"], "", 5.0, (16, 24), 5.0)[0]["uncond"]
    assert cond.vectors["original_size"].tolist() == cond.vectors["target_size"].tolist() == [[16.0, 24.0]]
    assert cond.vectors["crop"].tolist() == [[0.0, 0.0]] and not cond.vectors["pooled"].any()


@pytest.mark.parametrize(("make", "made"), [(sd, {}), (sd, {"scheduler": DDIM, **SD2}), (sdxl, {}), (sdxl, {"zeros": False})])
def test_diffusers_loads_what_we_save(make: Any, made: dict[str, Any], tmp_path: Path):
    theirs = make(**made)
    ours = sfumato.load(saved(theirs, tmp_path / "model"))
    back = type(theirs).from_pretrained(ours.save(tmp_path / "again", format="diffusers"))
    call = {"prompt": PROMPTS[0], "height": 16, "width": 16, "num_inference_steps": 3}
    noise = Rows((0,)).normal((4, 8, 8), "noise")
    assert torch.equal(drawn(back, noise, **call), drawn(theirs, noise, **call))
    again = sfumato.load(tmp_path / "again")
    assert (again.defaults, again.slots) == (ours.defaults, ours.slots)


def test_numbers_of_the_training_picture_may_be_others(tmp_path: Path):
    theirs = sdxl()
    pipe = sfumato.load(saved(theirs, tmp_path / "model"))
    micro = {"original_size": (500, 400), "crop": (0, 70), "target_size": (20, 30)}
    pictures = pipe(PROMPTS[0], seed=3, size=(16, 24), steps=3, micro=micro)
    reference = drawn(
        theirs, Rows((3,)).normal((4, 8, 12), "noise"), prompt=PROMPTS[0], height=16, width=24, num_inference_steps=3, guidance_scale=5.0,
        original_size=(500, 400), crops_coords_top_left=(0, 70), target_size=(20, 30),
    )  # fmt: skip
    assert relative(pictures.images, reference) <= 1e-4 < relative(pipe(PROMPTS[0], seed=3, size=(16, 24), steps=3).images, reference)
    assert pictures.settings["micro"]["crop"] == [0, 70]
    for wrong in ({"size": (1, 2)}, {"crop": (1,)}, {"aesthetic": (6.0,)}, {"crop": (0.0, float("nan"))}):
        with pytest.raises(UsageError, match=r"micro .*\n.*original_size \(2\), crop \(2\), target_size \(2\)"):
            pipe("a fox", size=(16, 16), micro=wrong)


def edited(folder: Path, file: str, **changes: Any) -> Path:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changes}))
    return folder


def test_a_safety_checker_that_is_not_run_is_said_with_every_picture(tmp_path: Path):
    folder = edited(
        saved(sd(), tmp_path / "model"), "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"]
    )
    pipe = sfumato.load(folder)
    assert "this folder's safety_checker is not run here" in pipe("a fox", size=(16, 16), steps=1).notes
    with pytest.raises(ConfigError, match=r"has a image_encoder"):
        sfumato.load(edited(folder, "model_index.json", image_encoder=["transformers", "CLIPVisionModelWithProjection"]))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"_class_name": "EulerAncestralDiscreteScheduler"}, "EulerAncestralDiscreteScheduler"),
        ({"skip_prk_steps": False}, "skip_prk_steps = False"),
        ({"timestep_spacing": "trailing"}, "timestep_spacing = 'trailing'"),
        ({"prediction_type": "v_prediction"}, "prediction_type = 'v_prediction'"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "linspace"}, "timestep_spacing = 'linspace'"),
        ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}, "use_karras_sigmas = True"),
        ({"_class_name": "EulerDiscreteScheduler", "final_sigmas_type": "sigma_min"}, "final_sigmas_type = 'sigma_min'"),
    ],
)
def test_a_scheduler_that_draws_otherwise_is_refused_by_name(changes: dict[str, Any], told: str, tmp_path: Path):
    folder = edited(saved(sd(), tmp_path / "model"), "scheduler/scheduler_config.json", **changes)
    with pytest.raises(ConfigError, match=told):
        sfumato.load(folder)
