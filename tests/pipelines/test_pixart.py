"""PixArt-alpha and -Sigma from diffusers folders: the pictures diffusers draws, and back."""

import json
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.pipelines.peers import drawn, pixart, relative, saved

import sfumato
from sfumato.core.errors import ConfigError
from sfumato.core.rng import Rows
from sfumato.core.weights import WEIGHTS
from sfumato.sampling.schedules import Layout

PROMPTS = ["A red Fox in the snow", "a cat under a yellow house"]
SCHEDULERS = {
    "published": diffusers.DPMSolverMultistepScheduler(),
    "trailing": diffusers.DPMSolverMultistepScheduler(timestep_spacing="trailing", final_sigmas_type="sigma_min"),
    "ddim": diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
}


@pytest.mark.parametrize(
    ("kind", "scheduler", "call"),
    [
        ("Alpha", "published", {}),
        ("Alpha", "published", {"guidance": 1.0}),
        ("Alpha", "trailing", {"negative": "Snow, a thick outline", "guidance": 2.5, "steps": 3}),
        ("Sigma", "published", {"negative": "a house"}),
        ("Sigma", "ddim", {"steps": 6}),
    ],
)
def test_pictures_are_those_of_diffusers(kind: str, scheduler: str, call: dict, tmp_path: Path):
    theirs = pixart(kind, SCHEDULERS[scheduler])
    ours = sfumato.load(saved(theirs, tmp_path / "model"))
    size, seeds = (16, 24), (3, 4, 3, 4)
    pictures = ours(PROMPTS, num=2, seed=3, size=size, **{"steps": 4, **call})
    reference = drawn(
        theirs, Rows(seeds).normal((4, 8, 12), "noise"), prompt=PROMPTS, num_images_per_prompt=2, height=16, width=24,
        num_inference_steps=call.get("steps", 4), guidance_scale=call.get("guidance", 4.5), negative_prompt=call.get("negative", ""),
        use_resolution_binning=False, clean_caption=False,
    )  # fmt: skip
    assert relative(pictures.images, reference) <= 1e-4
    assert reference.std() > 0.05 and relative(reference[0], reference[2]) > 1e-3


def test_the_folder_says_how_it_is_drawn(tmp_path: Path):
    pipe = sfumato.load(saved(pixart("Alpha"), tmp_path / "model"))
    own = pipe.defaults
    assert (own.size, own.steps, own.guidance, own.solver) == ((256, 256), 20, 4.5, "dpm++2m")
    assert own.layout.kind == "linspace" and own.layout.spare and pipe.denoiser.meaning.prediction == "eps"
    assert pipe.identity["name"] == "model" and len(pipe.identity["sha256"]) == 64


def test_the_original_steps_are_a_layout(tmp_path: Path):
    """PixArt's own DPM-Solver takes fractional steps down to the first one; the folder's scheduler says otherwise and is followed."""
    pipe = sfumato.load(saved(pixart("Sigma"), tmp_path / "model"))
    plain, original = (pipe("a fox", size=(8, 8), steps=5, layout=layout).images for layout in (None, Layout("uniform", end="first")))
    assert 1e-4 < relative(original, plain) < 1.0


def test_folders_of_the_former_class(tmp_path: Path):
    """PixArt-alpha's first folders name the class that several networks once shared, in both places where a class stands."""
    theirs = pixart("Alpha")
    plain, call = sfumato.load(saved(theirs, tmp_path / "model")), {"prompt": "a fox", "size": (16, 16), "steps": 2}
    drawn = plain(**call).images
    former = diffusers.Transformer2DModel(**{**theirs.transformer.config, "sample_size": 128}).eval()
    former.load_state_dict(theirs.transformer.state_dict())
    former.save_pretrained(tmp_path / "model" / "transformer")
    index, weights = tmp_path / "model" / "model_index.json", tmp_path / "model" / "transformer" / WEIGHTS
    index.write_text(index.read_text().replace("PixArtTransformer2DModel", "Transformer2DModel"))
    save_file({**load_file(weights), "caption_projection.y_embedding": torch.ones(120, 16)}, weights)
    config = json.loads((weights.parent / "config.json").read_text())
    assert config["_class_name"] == "Transformer2DModel" and config["double_self_attention"] is False
    again = sfumato.load(tmp_path / "model")
    assert torch.equal(again(**call).images, drawn) and again.defaults == plain.defaults
    (weights.parent / "config.json").write_text(json.dumps({**config, "norm_type": "ada_norm_zero"}))
    with pytest.raises(ConfigError, match="is of a DiTTransformer2DModel"):
        sfumato.load(tmp_path / "model")


def test_the_stride_of_diffusers_ddim(tmp_path: Path):
    """7 steps do not divide 1000: with "trailing", diffusers lands elsewhere than the paper, and so does the layout that says so."""
    theirs = pixart("Sigma", diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing"))
    pipe = sfumato.load(saved(theirs, tmp_path / "model"))
    fixed = replace(pipe.defaults.layout, stride="fixed")
    ours, paper = (pipe("a fox", size=(16, 16), steps=7, layout=layout).images for layout in (fixed, None))
    reference = drawn(
        theirs, Rows((0,)).normal((4, 8, 8), "noise"), prompt="a fox", height=16, width=16, num_inference_steps=7, guidance_scale=4.5,
        use_resolution_binning=False, clean_caption=False,
    )  # fmt: skip
    assert relative(ours, reference) <= 1e-4 < relative(paper, reference)
    pipe.defaults = replace(pipe.defaults, layout=fixed)
    again = sfumato.load(pipe.save(tmp_path / "again", format="diffusers"))
    assert again.defaults.layout == replace(fixed, stride="next")


@pytest.mark.parametrize("kind", ["Alpha", "Sigma"])
def test_diffusers_loads_what_we_save(kind: str, tmp_path: Path):
    theirs = pixart(kind)
    ours = sfumato.load(saved(theirs, tmp_path / "model"))
    again = ours.save(tmp_path / "again", format="diffusers")
    back = getattr(diffusers, f"PixArt{kind}Pipeline").from_pretrained(again)
    call = {
        "prompt": PROMPTS[0],
        "height": 16,
        "width": 16,
        "num_inference_steps": 2,
        "use_resolution_binning": False,
        "clean_caption": False,
    }
    noise = Rows((0,)).normal((4, 8, 8), "noise")
    assert torch.equal(drawn(back, noise, **call), drawn(theirs, noise, **call))
    assert sfumato.load(again).defaults == ours.defaults
