"""FLUX.1 dev and schnell from diffusers folders: the pictures diffusers draws, and back."""

from pathlib import Path

import diffusers
import pytest
from tests.pipelines.peers import drawn, flux, relative, saved
from torch import Tensor

import sfumato
from sfumato.core.errors import UsageError
from sfumato.core.rng import Rows
from sfumato.nn.embeddings import pack

PROMPTS = ["a red fox in the snow", "a cat under a yellow house"]


def noise(seeds: tuple[int, ...], height: int, width: int) -> Tensor:
    """Packed, as their pipeline wants it."""
    return pack(Rows(seeds).normal((4, height // 2, width // 2), "noise"), 2)


@pytest.mark.parametrize(
    ("guided", "call"),
    [
        (True, {}),
        (True, {"guidance": 1.5, "steps": 2}),
        (True, {"cfg": 2.5, "negative": "snow, a thick outline"}),
        (True, {"cfg": 3.0}),
        (False, {}),
        (False, {"guidance": 2.0, "negative": "a house"}),
    ],
)
def test_pictures_are_those_of_diffusers(guided: bool, call: dict, tmp_path: Path):
    theirs = flux(guided)
    ours = sfumato.load(saved(theirs, tmp_path / "model"), text_tokens=20)
    pictures = ours(PROMPTS, num=2, seed=3, size=(16, 24), **{"steps": 4, **call})
    # Their guidance_scale is what the network is told; true_cfg_scale is classifier-free guidance.
    weight = call.get("cfg", 1.0) if guided else call.get("guidance", 1.0)
    reference = drawn(
        theirs, noise((3, 4, 3, 4), 16, 24), prompt=PROMPTS, num_images_per_prompt=2, height=16, width=24,
        num_inference_steps=call.get("steps", 4), guidance_scale=call.get("guidance", 3.5), true_cfg_scale=weight,
        negative_prompt=[call.get("negative", "")] * 2, max_sequence_length=20,
    )  # fmt: skip
    assert relative(pictures.images, reference) <= 1e-4
    assert reference.std() > 0.05 and relative(reference[0], reference[2]) > 1e-3


def test_the_folders_say_how_they_are_drawn(tmp_path: Path):
    dev, schnell = (sfumato.load(saved(flux(guided), tmp_path / str(guided))) for guided in (True, False))
    assert (dev.defaults.size, dev.defaults.steps, dev.defaults.guidance, dev.defaults.layout.scaling) == ((256, 256), 28, 3.5, "tokens")
    assert (schnell.defaults.steps, schnell.defaults.guidance, schnell.defaults.shift) == (4, 1.0, 1.0)
    # The original's own lengths; diffusers reads 512 for both.
    assert (dev.encoder.max_tokens, schnell.encoder.max_tokens) == (512, 256)
    # mu = 1.15 at 4096 tokens, which 256 x 256 is with a codec of f2 and patches of 2.
    assert dev.defaults.own_shift((256, 256), 4) == pytest.approx(3.158193, rel=1e-6)


def test_the_guidance_that_a_network_is_told_is_not_guidance(tmp_path: Path):
    dev = sfumato.load(saved(flux(), tmp_path / "dev"), text_tokens=20)
    draw = {"size": (16, 16), "steps": 2}
    plain = dev("a fox", **draw)
    assert plain.settings["cfg"] == 1.0 and plain.settings["guidance"] == 3.5
    for options in ({"guidance": 1.0}, {"cfg": 2.0}, {"shift": 1.0}):
        assert relative(dev("a fox", **draw, **options).images, plain.images) > 1e-4
    with pytest.raises(UsageError, match="cfg is 1"):
        dev("a fox", negative="snow", **draw)
    with pytest.raises(UsageError, match="guidance is -1"):
        dev("a fox", guidance=-1.0, **draw)


@pytest.mark.parametrize("guided", [True, False])
def test_diffusers_loads_what_we_save(guided: bool, tmp_path: Path):
    theirs = flux(guided)
    ours = sfumato.load(saved(theirs, tmp_path / "model"))
    back = diffusers.FluxPipeline.from_pretrained(ours.save(tmp_path / "again", format="diffusers"))
    call = {"prompt": PROMPTS[0], "height": 16, "width": 16, "num_inference_steps": 2, "max_sequence_length": 20}
    # A reloaded pipeline of theirs differs in its last bits from itself.
    assert relative(drawn(back, noise((0,), 16, 16), **call), drawn(theirs, noise((0,), 16, 16), **call)) <= 1e-6
    assert sfumato.load(tmp_path / "again").defaults == ours.defaults
