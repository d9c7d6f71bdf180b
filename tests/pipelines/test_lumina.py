"""Lumina-Next and Lumina-Image 2.0 from diffusers folders: the pictures diffusers draws, the originals' own where they differ, and back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests.builders import mmdit
from tests.pipelines.peers import drawn, lumina, lumina2, relative, saved
from torch import Tensor

import sfumato
from sfumato.core.errors import ConfigError, UnknownNameError, UsageError
from sfumato.core.rng import Rows
from sfumato.pipelines import TextToImage
from sfumato.sampling.guidance import Guide
from sfumato.sampling.policies.extrapolation import Extrapolation

PROMPTS = ["A red Fox in the snow", "a cat under a yellow house"]


def theirs_and_ours(
    theirs: Any, ours: TextToImage, size: tuple[int, int], call: dict, prompts: list[str], **options: Any
) -> tuple[Tensor, Tensor]:
    """Prompts of one length: with several pictures of each, diffusers gives prompts of Sana and Lumina each other's masks."""
    settings = {"steps": 3, **call}
    pictures = ours(prompts, num=2, seed=3, size=size, **settings).images
    height, width = size
    reference = drawn(
        theirs, Rows((3, 4, 3, 4)).normal((4, height // 8, width // 8), "noise"), prompt=prompts, num_images_per_prompt=2, height=height,
        width=width, num_inference_steps=settings["steps"], guidance_scale=call.get("guidance", 4.0),
        negative_prompt=[call.get("negative", "")] * 2, **options,
    )  # fmt: skip
    assert reference.std() > 0.05 and relative(reference[0], reference[2]) > 1e-3
    return pictures, reference


@pytest.mark.parametrize(
    ("made", "size", "call"),
    [
        ({}, (64, 64), {}),
        ({"shift": 4.0}, (96, 128), {"negative": "snow, a house", "guidance": 2.5}),
        ({"num_kv_heads": 4}, (32, 64), {"steps": 2}),
        ({"patch_size": 2, "norm_eps": 1e-4}, (64, 96), {"guidance": 1.0}),
    ],
)
def test_pictures_of_lumina_next_are_those_of_diffusers(made: dict, size: tuple[int, int], call: dict, tmp_path: Path):
    theirs = lumina(**made)
    ours = sfumato.load(saved(theirs, tmp_path / "model"), ways="diffusers")
    pictures, reference = theirs_and_ours(theirs, ours, size, call, PROMPTS, clean_caption=False)
    assert relative(pictures, reference) <= 1e-4


def test_lumina_next_by_its_own_code(tmp_path: Path):
    """Capitals stay; positions are stretched for larger pictures only, by interpolation above t = 0.7, a watershed of 0.3 there."""
    theirs = lumina()
    ours = sfumato.load(saved(theirs, tmp_path / "model"))
    lower = [prompt.lower() for prompt in PROMPTS]
    for size in ((96, 128), (64, 64)):
        pictures = ours(lower, num=2, seed=3, size=size, steps=4)
        noise = Rows((3, 4, 3, 4)).normal((4, size[0] // 8, size[1] // 8), "noise")
        call = {"prompt": lower, "num_images_per_prompt": 2, "height": size[0], "width": size[1], "num_inference_steps": 4}
        reference = drawn(theirs, noise, **call, scaling_watershed=0.3, clean_caption=False)
        assert relative(pictures.images, reference) <= 1e-4
    assert relative(ours("a Fox", steps=2).images, ours("a fox", steps=2).images) > 1e-4


def test_a_model_draws_other_sizes_in_its_own_way_unless_told_otherwise(tmp_path: Path):
    ours = sfumato.load(saved(lumina(), tmp_path / "model"))
    assert ours.defaults.guide == Guide(channels=3) and ours.encoder.max_tokens == 256
    net: Any = ours.denoiser.net
    draw = {"size": (96, 96), "steps": 2}
    own = ours("a fox", **draw)
    assert own.sessions == () and own.settings["guide"]["channels"] == 3
    told = ours("a fox", **draw, policies=[Extrapolation(net.rotary, 4, "switched", sharpen="proportional")])
    assert torch.equal(own.images, told.images) and len(told.sessions) == 1
    other = replace(ours, denoiser=replace(ours.denoiser, net=mmdit()))
    assert other._own_policies(other.settle(size=(64, 64))) == ()
    with pytest.raises(UsageError, match="without rotary"):
        other._own_policies(other.settle(size=(96, 96)))
    none = replace(ours, defaults=replace(ours.defaults, other_sizes=None))("a fox", **draw)
    everywhere = ours("a fox", **draw, guide=Guide())
    assert relative(none.images, own.images) > 1e-4 and relative(everywhere.images, own.images) > 1e-4


@pytest.mark.parametrize(
    ("made", "size", "call", "options"),
    [
        ({}, (64, 64), {}, {}),
        ({"shift": 1.0}, (32, 96), {"negative": "snow, a house", "guidance": 2.5}, {}),
        ({"num_kv_heads": 4}, (64, 32), {"guidance": 1.0, "steps": 1}, {}),
        ({}, (64, 32), {"guide": Guide()}, {"cfg_normalization": False}),
        # Three steps at shift 6: guidance in the first alone. Theirs counts steps, ours asks for the time.
        ({}, (64, 32), {"guide": Guide((0.95, 1.0), renorm="rows")}, {"cfg_trunc_ratio": 0.4}),
    ],
)
def test_pictures_of_lumina_image_2_are_those_of_diffusers(made: dict, size: tuple[int, int], call: dict, options: dict, tmp_path: Path):
    theirs = lumina2(**made)
    ours = sfumato.load(saved(theirs, tmp_path / "model"), ways="diffusers")
    lower = [prompt.lower() for prompt in PROMPTS]
    pictures, reference = theirs_and_ours(theirs, ours, size, call, lower, **options)
    assert relative(pictures, reference) <= 1e-4


def test_lumina_image_2_has_a_system_prompt_and_a_guidance_of_its_own(tmp_path: Path):
    theirs = lumina2()
    folder = saved(theirs, tmp_path / "model")
    ours = sfumato.load(folder)
    assert (ours.defaults.shift, ours.defaults.layout.kind, ours.defaults.guide.renorm) == (6.0, "paper", "picture")
    spans = ours.encoder.encode(["a fox"]).words[0]
    assert [span.text for span in spans] == ["a", "fox"] and spans[0].start > 20
    plain = ours(PROMPTS[0], steps=2).images
    assert relative(sfumato.load(folder, ways="diffusers")(PROMPTS[0], steps=2).images, plain) > 1e-4
    short = sfumato.load(folder, ways="diffusers", instruction="Draw. <Prompt Start> ")
    noise = Rows((0,)).normal((4, 8, 8), "noise")
    reference = drawn(theirs, noise, prompt=PROMPTS[0], num_inference_steps=2, system_prompt="Draw.")
    assert relative(short(PROMPTS[0], steps=2).images, reference) <= 1e-4


def test_what_is_not_computed_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="use_dynamic_shifting"):
        sfumato.load(saved(lumina2(dynamic=True), tmp_path / "dynamic"))
    folder = saved(lumina(), tmp_path / "model")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("LuminaPipeline", "LuminaText2ImgPipeline"))
    assert sfumato.load(folder).encoder.name == "LuminaPipeline"
    with pytest.raises(UsageError, match="instruction"):
        sfumato.load(folder, instruction="Draw. ")
    with pytest.raises(UnknownNameError, match="'originals'"):
        sfumato.load(folder, ways="originals")


@pytest.mark.parametrize("made", [lumina, lumina2])
def test_diffusers_loads_what_we_save(made: Any, tmp_path: Path):
    theirs = made()
    ours = sfumato.load(saved(theirs, tmp_path / "model"))
    again = ours.save(tmp_path / "again", format="diffusers")
    back = type(theirs).from_pretrained(again)
    call: dict[str, Any] = {"prompt": PROMPTS[0], "num_inference_steps": 2}
    call |= {"clean_caption": False} if isinstance(theirs, diffusers.LuminaPipeline) else {}
    noise = Rows((0,)).normal((4, 8, 8), "noise")
    assert relative(drawn(back, noise, **call), drawn(theirs, noise, **call)) <= 1e-6
    assert sfumato.load(again).defaults == ours.defaults
