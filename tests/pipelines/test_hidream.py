"""HiDream-I1 from diffusers folders, under each scheduler of its releases: the pictures diffusers draws, and back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_flow_match_lcm
from tests.pipelines.peers import drawn, hidream, relative, saved

import sfumato
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.rng import Rows
from sfumato.pipelines.published.kinds import kind

PROMPTS = ["a red fox in the snow", "a cat under a yellow house"]


def full(shift: float = 3.0) -> Any:
    return diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def renoised(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' stochastic scheduler draws our numbers."""

    def numbers() -> Iterator[torch.Tensor]:
        step = 0
        while True:
            yield rows.normal((4, 8, 8), "renoise", step)
            step += 1

    drawing = numbers()
    monkeypatch.setattr(scheduling_flow_match_lcm, "randn_tensor", lambda *shape, **options: next(drawing))


@pytest.mark.parametrize(
    ("scheduler", "size", "call"),
    [
        (full(), (16, 16), {}),
        (full(1.0), (12, 20), {"negative": "snow, a thick outline", "guidance": 3.0}),
        (diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), (20, 12), {"guidance": 1.0, "steps": 1}),
    ],
)
def test_pictures_are_those_of_diffusers(scheduler: Any, size: tuple[int, int], call: dict, tmp_path: Path):
    theirs = hidream(scheduler)
    ours = sfumato.load(saved(theirs, tmp_path / "model"), text_tokens=20)
    pictures = ours(PROMPTS, num=2, seed=3, size=size, **{"steps": 4, **call})
    height, width = size
    reference = drawn(
        theirs, Rows((3, 4, 3, 4)).normal((4, height // 2, width // 2), "noise"), prompt=PROMPTS, num_images_per_prompt=2,
        height=height, width=width, num_inference_steps=call.get("steps", 4), guidance_scale=call.get("guidance", 5.0),
        negative_prompt=[call.get("negative", "")] * 2, max_sequence_length=20,
    )  # fmt: skip
    assert relative(pictures.images, reference) <= 1e-4
    assert reference.std() > 0.05 and relative(reference[0], reference[2]) > 1e-3


def test_distilled_pictures_are_those_of_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    theirs = hidream(diffusers.FlowMatchLCMScheduler(shift=6.0))
    ours = sfumato.load(saved(theirs, tmp_path / "model"), text_tokens=20)
    assert (ours.defaults.steps, ours.defaults.guidance, ours.defaults.solver) == (28, 1.0, "renoise")
    rows = Rows((3, 4))
    pictures = ours(PROMPTS, seeds=rows.seeds, size=(16, 16), steps=3)
    renoised(rows, monkeypatch)
    call = {"prompt": PROMPTS, "height": 16, "width": 16, "num_inference_steps": 3, "guidance_scale": 0.0, "max_sequence_length": 20}
    assert relative(pictures.images, drawn(theirs, rows.normal((4, 8, 8), "noise"), **call)) <= 1e-4


def test_the_folder_says_how_it_is_drawn(tmp_path: Path):
    pipe = sfumato.load(saved(hidream(full()), tmp_path / "model"), text_tokens=20)
    own = pipe.defaults
    assert (own.size, own.steps, own.guidance, own.shift, own.solver) == ((256, 256), 50, 5.0, 3.0, "unipc")
    states = pipe.encoder.encode([PROMPTS[1]])
    assert states.tokens.shape == (1, 20, 16) and states.more["taps"].tokens.shape == (1, 20, 16) and states.pooled.shape == (1, 14)
    assert [text.tokens for text in kind("HiDreamImagePipeline").texts] == [128] * 4
    assert states.mask.all() and states.tokens.abs().sum(-1).min() > 0 and states.words[0][1].text == "cat"
    with pytest.raises(UsageError, match="more than the 16"):
        pipe("a fox", size=(16, 20), steps=1)


def test_what_a_scheduler_asks_and_nothing_computes_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="solver_order = 3"):
        theirs = diffusers.UniPCMultistepScheduler(solver_order=3, prediction_type="flow_prediction", use_flow_sigmas=True)
        sfumato.load(saved(hidream(theirs), tmp_path / "third"), text_tokens=20)
    with pytest.raises(ConfigError, match="layer 3 of a text encoder of 2 blocks"):
        sfumato.load(saved(hidream(full(), llama_layers=[0, 1, 2]), tmp_path / "deep"), text_tokens=20)


def test_diffusers_loads_what_we_save(tmp_path: Path):
    theirs = hidream(full())
    ours = sfumato.load(saved(theirs, tmp_path / "model"), text_tokens=20)
    back = diffusers.HiDreamImagePipeline.from_pretrained(ours.save(tmp_path / "again", format="diffusers"))
    back.default_sample_size = 8
    call = {"prompt": PROMPTS[0], "height": 16, "width": 16, "num_inference_steps": 2, "max_sequence_length": 20}
    noise = Rows((0,)).normal((4, 8, 8), "noise")
    assert relative(drawn(back, noise, **call), drawn(theirs, noise, **call)) <= 1e-6
    assert sfumato.load(tmp_path / "again", text_tokens=20).defaults == ours.defaults
