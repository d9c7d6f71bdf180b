"""Sana from diffusers folders: the pictures diffusers draws, the original's own where they differ, and back."""

from pathlib import Path

import diffusers
import pytest
import torch
from tests.pipelines.peers import drawn, relative, sana, saved

import sfumato
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.rng import Rows

PROMPTS = ["A red Fox in the snow", "a cat under a yellow house"]
SCHEDULERS = {
    "published": None,
    "first order": diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.5, solver_order=1
    ),
    "euler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
}
PLAIN = {"use_resolution_binning": False}


@pytest.mark.parametrize(
    ("scheduler", "shape", "call"),
    [
        ("published", {}, {}),
        ("published", {"qk_norm": "rms_norm_across_heads", "patch_size": 2}, {"guidance": 1.0, "steps": 1}),
        ("published", {"interpolation_scale": 0.5}, {"negative": "Snow, a thick outline", "guidance": 2.5}),
        ("first order", {}, {"negative": "a house"}),
        ("euler", {}, {"steps": 3}),
    ],
)
def test_pictures_are_those_of_diffusers(scheduler: str, shape: dict, call: dict, tmp_path: Path):
    theirs = sana(SCHEDULERS[scheduler], **shape)
    ours = sfumato.load(saved(theirs, tmp_path / "model"), ways="diffusers", text_tokens=20)
    pictures = ours(PROMPTS, num=2, seed=3, size=(32, 64), **{"steps": 4, **call})
    reference = drawn(
        theirs, Rows((3, 4, 3, 4)).normal((4, 8, 16), "noise"), prompt=PROMPTS, num_images_per_prompt=2, height=32, width=64,
        num_inference_steps=call.get("steps", 4), guidance_scale=call.get("guidance", 4.5), max_sequence_length=20,
        negative_prompt=call.get("negative", ""), **PLAIN,
    )  # fmt: skip
    assert relative(pictures.images, reference) <= 1e-4
    assert reference.std() > 0.05 and relative(reference[0], reference[2]) > 1e-3


def test_the_nearest_trained_size_is_drawn_as_in_diffusers(tmp_path: Path):
    theirs = sana(levels=6, sample_size=16)
    ours = sfumato.load(saved(theirs, tmp_path / "model"), ways="diffusers", text_tokens=20)
    assert ours.defaults.bins == 512
    pictures = ours(PROMPTS[0], seed=3, size=(150, 256), steps=2)
    reference = drawn(
        theirs, Rows((3,)).normal((4, 12, 20), "noise"), prompt=PROMPTS[0], height=150, width=256, num_inference_steps=2,
        guidance_scale=4.5, max_sequence_length=20,
    )  # fmt: skip
    assert pictures.images.shape[2:] == (150, 256) and pictures.settings["binned"] and relative(pictures.images, reference) <= 1e-4


def test_an_instruction_of_ones_own_or_none(tmp_path: Path):
    theirs = sana()
    folder = saved(theirs, tmp_path / "model")
    call = {"height": 32, "width": 32, "num_inference_steps": 2, "max_sequence_length": 20, **PLAIN}
    noise, seen = Rows((0,)).normal((4, 8, 8), "noise"), []
    for instruction, lines in (("", None), ("Draw this:\nplease, ", ["Draw this:", "please, "])):
        ours = sfumato.load(folder, ways="diffusers", text_tokens=20, instruction=instruction)
        seen.append(ours(PROMPTS[0], steps=2).images)
        reference = drawn(theirs, noise, prompt=PROMPTS[0], complex_human_instruction=lines, **call)
        assert relative(seen[-1], reference) <= 1e-4
    assert relative(seen[0], seen[1]) > 1e-3
    # Asked for again by its own length: words after the instruction are read, and counted where their states lie.
    states = ours.encoder.encode(["a red fox " * 9])
    assert states.tokens.shape[1] == 20 and states.words[0][0].text == "a" and states.words[0][0].start == 1
    assert states.dropped[0][-1] == "fox" and ours.encoder.bare.encode([""]).tokens.shape[1] == 1


def test_the_originals_own_ways(tmp_path: Path):
    """The prompt keeps its capitals, and the network is told its time to the last digit."""
    folder = saved(sana(), tmp_path / "model")
    original, theirs = sfumato.load(folder), sfumato.load(folder, ways="diffusers")
    assert (original.defaults, original.defaults.steps, original.defaults.shift) == (theirs.defaults, 20, 3.0)
    assert (original.defaults.size, original.defaults.layout.kind, original.defaults.solver) == ((32, 32), "late", "dpm++2m")
    assert original.encoder.max_tokens == 300
    times = original.defaults.layout.times(3, 3.0)
    assert times[0] == pytest.approx(3 * 0.999 / (1 + 2 * 0.999)) and times[-1] == 0
    assert (original.denoiser.meaning.time_map, theirs.denoiser.meaning.time_map) == ("identity", "whole")
    assert theirs.denoiser.meaning.network_time(torch.tensor([0.9996, 0.5])).tolist() == pytest.approx([0.999, 0.5])
    lower, upper = (original("a red fox", steps=2).images, original("a red Fox", steps=2).images)
    assert relative(lower, upper) > 1e-4


def test_what_is_not_computed_is_refused(tmp_path: Path):
    late = diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", final_sigmas_type="sigma_min")
    with pytest.raises(ConfigError, match="final_sigmas_type = 'sigma_min'"):
        sfumato.load(saved(sana(late), tmp_path / "late"))
    with pytest.raises(ConfigError, match="its scheduler"):
        sfumato.load(saved(sana(diffusers.DPMSolverMultistepScheduler()), tmp_path / "discrete"))
    folder = saved(sana(), tmp_path / "model")
    pipe = sfumato.load(folder)
    with pytest.raises(UsageError, match="noise"):
        pipe.codec.encode(torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 2, 2))
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("SanaPipeline", "SanaSprintPipeline"))
    with pytest.raises(ConfigError, match="SCM"):
        sfumato.load(folder)


@torch.no_grad()
def test_the_codec_is_that_of_diffusers(tmp_path: Path):
    from sfumato.pipelines.folder import load_codec

    theirs = sana()
    codec = load_codec(saved(theirs, tmp_path / "model"))
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = theirs.vae.encode(images).latent
    torch.testing.assert_close(codec.encode(images), z * 0.41407)
    torch.testing.assert_close(codec.decode(codec.encode(images)), theirs.vae.decode(z).sample, rtol=1e-4, atol=1e-5)
    assert (codec.factor, codec.latent_channels) == (4, 4)


@pytest.mark.parametrize("shape", [{}, {"interpolation_scale": 0.5, "guidance_embeds": False}])
def test_diffusers_loads_what_we_save(shape: dict, tmp_path: Path):
    theirs = sana(**shape)
    ours = sfumato.load(saved(theirs, tmp_path / "model"), ways="diffusers")
    again = ours.save(tmp_path / "again", format="diffusers")
    back = diffusers.SanaPipeline.from_pretrained(again)
    call = {"prompt": PROMPTS[0], "height": 32, "width": 32, "num_inference_steps": 2, "max_sequence_length": 20, **PLAIN}
    noise = Rows((0,)).normal((4, 8, 8), "noise")
    assert torch.equal(drawn(back, noise, **call), drawn(theirs, noise, **call))
    assert sfumato.load(again).defaults == ours.defaults
