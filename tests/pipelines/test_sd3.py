"""Stable Diffusion 3 and 3.5 from diffusers folders, with and without T5: the pictures diffusers draws, and back."""

from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from tests.pipelines.peers import drawn, relative, saved, sd3

import sfumato
from sfumato.core.errors import UsageError
from sfumato.core.rng import Rows

PROMPTS = ["a red fox in the snow", "a cat under a yellow house"]
SD35 = {"qk_norm": "rms_norm", "dual_attention_layers": (0,)}


@pytest.mark.parametrize(
    ("made", "call"),
    [
        ({}, {}),
        ({"with_t5": False, "shift": 1.7}, {"guidance": 1.0, "steps": 1}),
        (SD35, {"negative": "snow, a thick outline", "guidance": 3.0}),
        ({**SD35, "with_t5": False}, {"negative": "a house"}),
    ],
)
def test_pictures_are_those_of_diffusers(made: dict, call: dict, tmp_path: Path):
    theirs = sd3(**made)
    ours = sfumato.load(saved(theirs, tmp_path / "model"), text_tokens=20)
    pictures = ours(PROMPTS, num=2, seed=3, size=(16, 20), **{"steps": 4, **call})
    reference = drawn(
        theirs, Rows((3, 4, 3, 4)).normal((4, 8, 10), "noise"), prompt=PROMPTS, num_images_per_prompt=2, height=16, width=20,
        num_inference_steps=call.get("steps", 4), guidance_scale=call.get("guidance", 7.0),
        negative_prompt=[call.get("negative", "")] * 2, max_sequence_length=20,
    )  # fmt: skip
    assert relative(pictures.images, reference) <= 1e-4
    assert reference.std() > 0.05 and relative(reference[0], reference[2]) > 1e-3


def test_the_folder_says_how_it_is_drawn(tmp_path: Path):
    pipe = sfumato.load(saved(sd3(), tmp_path / "model"))
    own = pipe.defaults
    assert (own.size, own.steps, own.guidance, own.shift, own.layout.kind) == ((32, 32), 28, 7.0, 3.0, "released")
    assert pipe.encoder.max_tokens == 24 + 256 and pipe.encoder.pooled_width == 14
    states = pipe.encoder.encode(["a cat under a yellow house"])
    assert states.tokens.shape == (1, 280, 24) and states.mask.all()
    # Padding is attended to, so its states are states; words are counted where T5 reads them.
    assert states.tokens.abs().sum(-1).min() > 0 and states.words[0][1].text == "cat" and states.words[0][1].start > 24


def test_another_shift_and_solver_bite_and_a_cfg_is_refused(tmp_path: Path):
    pipe = sfumato.load(saved(sd3(), tmp_path / "model"), text_tokens=20)
    plain = pipe("a fox", size=(8, 8), steps=3).images
    for options in ({"shift": 1.0}, {"solver": "heun"}, {"negative": "snow"}, {"guidance": 2.0}):
        assert relative(pipe("a fox", size=(8, 8), steps=3, **options).images, plain) > 1e-4
    with pytest.raises(UsageError, match="cfg is 2"):
        pipe("a fox", cfg=2.0)


@pytest.mark.parametrize("made", [{}, {**SD35, "with_t5": False}])
def test_diffusers_loads_what_we_save(made: dict, tmp_path: Path):
    theirs = sd3(**made)
    ours = sfumato.load(saved(theirs, tmp_path / "model"))
    again = ours.save(tmp_path / "again", format="diffusers")
    # diffusers wants to be told what the index says already.
    absent = {} if theirs.text_encoder_3 else {"text_encoder_3": None, "tokenizer_3": None}
    back = diffusers.StableDiffusion3Pipeline.from_pretrained(again, **absent)
    call = {"prompt": PROMPTS[0], "height": 16, "width": 16, "num_inference_steps": 2, "max_sequence_length": 20}
    noise = Rows((0,)).normal((4, 8, 8), "noise")
    assert torch.equal(drawn(back, noise, **call), drawn(theirs, noise, **call))
    assert sfumato.load(tmp_path / "again").defaults == ours.defaults


def test_moving_a_pipeline_moves_its_text_encoders(tmp_path: Path):
    pipe = sfumato.load(saved(sd3(), tmp_path / "model"), text_tokens=20)
    models = [part.model for part in pipe.encoder.parts.values()]
    before = pipe("a fox", size=(16, 16), steps=1).images
    assert pipe.to(dtype=torch.bfloat16) is pipe and {model.dtype for model in models} == {torch.bfloat16}
    states = pipe.encoder.encode(["a fox"])
    assert states.tokens.dtype == states.pooled.dtype == torch.float32
    assert 1e-4 < relative(pipe("a fox", size=(16, 16), steps=1).images, before) < 0.5
    pipe.to("meta")
    assert {model.device.type for model in models} == {"meta"} == {pipe.device.type}


def test_float16_leaves_in_fp32_what_transformers_keeps_there(tmp_path: Path):
    folder = saved(sd3(), tmp_path / "model")
    part = sfumato.load(folder, text_tokens=20, dtype=torch.float16).encoder.parts["text_encoder_3"]
    theirs = transformers.T5EncoderModel.from_pretrained(folder / "text_encoder_3", dtype=torch.float16)
    assert {n: w.dtype for n, w in part.model.named_parameters()} == {n: w.dtype for n, w in theirs.named_parameters()}
    assert all(torch.equal(weight, dict(theirs.named_parameters())[name]) for name, weight in part.model.named_parameters())
    part.to(dtype=torch.bfloat16)
    assert {weight.dtype for weight in part.model.parameters()} == {torch.bfloat16}
