"""UniDiffuser from diffusers folders: pictures, captions and pairs as diffusers draws them from the same numbers, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.unidiffuser import pipeline_unidiffuser
from PIL import Image
from tests.pipelines.peers import SCALED, TOKENS, drawn, relative, saved, unidiffuser

import sfumato
from sfumato.core.errors import ConfigError, SfumatoError, UsageError, WeightsError
from sfumato.core.rng import Rows
from sfumato.core.weights import WEIGHTS
from sfumato.evaluate.anatomy import anatomy
from sfumato.pipelines import Refined, redraw
from sfumato.pipelines.going_on import redrawn
from sfumato.pipelines.unidiffuser import UniDiffuser
from sfumato.sampling.guidance import Guide
from sfumato.sampling.policies.attention_maps import AttentionRecorder, AttentionRecording

PROMPTS = ["a red fox in the snow", "a cat under a yellow house"]
DDIM = diffusers.DDIMScheduler(**SCALED, clip_sample=False, steps_offset=1)


def shapes(pipe: Any, size: int = 16) -> dict[str, tuple[int, ...]]:
    return {"image": (4, size // 2, size // 2), "clip": (1, 10), "text": (TOKENS, pipe.unet.config.text_dim)}


class Numbers:
    """What their pipeline draws at random, from our rows: they ask for what is ignored in the order image, clip, text."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, rows: Rows, shapes: Mapping[str, tuple[int, ...]], streams: tuple[str, ...]
    ) -> None:
        self.asked, self.rows, self.shapes, self.streams = 0, rows, shapes, streams
        monkeypatch.setattr(pipeline_unidiffuser, "randn_tensor", self)

    def __call__(self, shape: tuple[int, ...], **options: Any) -> torch.Tensor:
        step, which = divmod(self.asked, len(self.streams))
        self.asked += 1
        name = self.streams[which]
        assert tuple(shape) == (len(self.rows), *self.shapes[name])
        return self.rows.normal(self.shapes[name], f"ignored {name}", step)


def noise(rows: Rows, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: rows.normal(shape, "noise" if name == "image" else f"noise of {name}") for name, shape in shapes.items()}


def loaded(theirs: Any, folder: Path, **options: Any) -> UniDiffuser:
    pipe = sfumato.load(saved(theirs, folder), **options)
    assert isinstance(pipe, UniDiffuser)
    return pipe


@pytest.mark.parametrize(
    ("scheduler", "made", "size", "call", "kind"),
    [
        (None, {}, 16, {}, 1),
        (None, {"small": None, "use_data_type_embedding": False}, 16, {"guidance": 3.0, "steps": 3}, None),
        (DDIM, {"num_layers": 4, "attention_bias": True, "sample_size": 6}, 12, {"steps": 5}, 0),
        (diffusers.PNDMScheduler(**SCALED, skip_prk_steps=True, steps_offset=1), {"sample_size": 10}, 20, {"guidance": 1.0}, 1),
    ],
)
def test_pictures_are_those_of_diffusers(
    scheduler: Any, made: dict, size: int, call: dict, kind: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Square ones, of the trained size: their positions know no others."""
    theirs = unidiffuser(scheduler, **made)
    ours = loaded(theirs, tmp_path / "model", ways="diffusers")
    told = {} if kind is None else {"micro": {"kind": (kind,)}}
    pictures = ours(PROMPTS, num=2, seed=3, **{"steps": 4, **call}, **told)
    rows, own = Rows((3, 4, 3, 4)), shapes(theirs, size)
    start = noise(rows, own)
    # Their repeat of latents for several pictures of a prompt is given as it comes out.
    monkeypatch.setattr(theirs, "prepare_image_vae_latents", lambda **_: start["image"])
    monkeypatch.setattr(theirs, "prepare_image_clip_latents", lambda **_: start["clip"])
    numbers = Numbers(monkeypatch, rows, own, ("text",))
    reference = drawn(
        theirs, None, prompt=PROMPTS, num_images_per_prompt=2, num_inference_steps=call.get("steps", 4),
        guidance_scale=call.get("guidance", 8.0), data_type=kind,
    )  # fmt: skip
    assert relative(pictures.images, reference) <= 1e-4
    assert reference.std() > 0.05 and relative(reference[0], reference[2]) > 1e-3
    assert numbers.asked == 0 if call.get("guidance") == 1.0 else numbers.asked >= call.get("steps", 4)


def test_captions_are_those_of_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    theirs = unidiffuser()
    ours = loaded(theirs, tmp_path / "model", ways="diffusers")
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(2)]
    captions = ours.captions(images, seed=3, steps=3, guidance=4.0)
    for i, image in enumerate(images):
        rows, own = Rows((3 + i,)), shapes(theirs)
        encoded = rows.normal(own["image"], "encoded")
        with monkeypatch.context() as patch:
            Numbers(patch, rows, own, ("image", "clip"))
            patch.setattr("diffusers.models.autoencoders.vae.randn_tensor", lambda *_, noise=encoded, **__: noise)
            start = noise(rows, own)["text"]
            patch.setattr(theirs, "prepare_text_latents", lambda start=start, **_: start)
            patch.setattr(theirs.text_decoder, "encode", lambda latents: latents)
            theirs.set_progress_bar_config(disable=True)
            (told,) = theirs(image=image, num_inference_steps=3, guidance_scale=4.0).text
        assert captions[i] == told and told


def test_pairs_are_those_of_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    theirs = unidiffuser()
    ours = loaded(theirs, tmp_path / "model", ways="diffusers")
    pairs = ours.pairs(2, seed=3, steps=3, guidance=4.0)
    rows, own = Rows((3, 4)), shapes(theirs)
    start = noise(rows, own)
    Numbers(monkeypatch, rows, own, ("image", "clip", "text"))
    monkeypatch.setattr(theirs.text_decoder, "encode", lambda latents: latents)
    monkeypatch.setattr(theirs, "prepare_text_latents", lambda **_: start["text"])
    monkeypatch.setattr(theirs, "prepare_image_vae_latents", lambda **_: start["image"])
    monkeypatch.setattr(theirs, "prepare_image_clip_latents", lambda **_: start["clip"])
    theirs.set_joint_mode()
    theirs.set_progress_bar_config(disable=True)
    reference = theirs(num_inference_steps=3, guidance_scale=4.0, output_type="pt")
    assert relative(pairs.images, 2 * reference.images - 1) <= 1e-4
    assert list(pairs.captions) == reference.text and all(pairs.captions)


def test_the_original_tells_the_time_a_step_further(tmp_path: Path):
    original, diffused = (loaded(unidiffuser(), tmp_path / ways, ways=ways) for ways in ("original", "diffusers"))
    assert [pipe.denoiser.meaning.time_map for pipe in (original, diffused)] == ["identity", "steps"]
    own = original.defaults
    assert (own.size, own.steps, own.guidance, own.solver) == ((16, 16), 50, 8.0, "dpm++2m")
    first, second = (pipe(PROMPTS[0], steps=3).images for pipe in (original, diffused))
    assert 1e-4 < relative(first, second) < 1.0


def test_a_row_is_itself_and_every_knob_bites(tmp_path: Path):
    pipe = loaded(unidiffuser(), tmp_path / "model")
    call: dict[str, Any] = {"size": (16, 12), "steps": 2}
    plain = pipe(PROMPTS, seed=3, **call).images
    assert torch.allclose(pipe(PROMPTS[1], seed=3, **call).images, plain[1:], atol=1e-5)
    for change in ({"negative": "a house"}, {"guidance": 2.0}, {"micro": {"kind": (0,)}}, {"seed": 4}, {"guide": Guide((0.0, 0.6))}):
        assert relative(pipe(PROMPTS, **{"seed": 3, **call, **change}).images, plain) > 1e-4, change
    recorded = pipe(PROMPTS, seed=3, **call, policies=[AttentionRecorder()])
    (session,) = recorded.sessions
    assert torch.equal(recorded.images, plain) and isinstance(session, AttentionRecording)
    assert session.mean().shape == (2, TOKENS, 4, 3)
    estimates: list[tuple[int, ...]] = []
    pipe(PROMPTS[0], **call, on_step=lambda step: estimates.append(tuple(step.estimate.shape)))
    assert estimates == [(1, 4, 8, 6)] * 2


def test_what_it_cannot_do_is_said(tmp_path: Path):
    pipe = loaded(unidiffuser(use_data_type_embedding=False), tmp_path / "model")
    square, other = Image.new("RGB", (16, 16)), Image.new("RGB", (16, 20))
    wrong: list[tuple[Any, str]] = [
        (lambda: pipe("a fox", micro={"kind": (1,)}), "this network reads none"),
        (lambda: pipe("a fox", guide=Guide(channels=3)), "an interval alone"),
        (lambda: redraw(pipe, "a fox", torch.zeros(3, 16, 16), 0.5, steps=4), "--from-picture.*\n.*CLIP embedding"),
        (lambda: redrawn(pipe, (16, 16), 0.5), "CLIP embedding"),
        (lambda: Refined(pipe, pipe).settle(), "--refiner"),
        (lambda: anatomy(pipe, text_tokens=9), "at one length"),
        (lambda: pipe.captions([square, other]), "2 sizes"),
        (lambda: pipe.captions([Image.new("RGB", (16, 18))]), "nearest is 16x16"),
        (lambda: pipe.captions([]), "at least one picture"),
        (lambda: pipe.pairs(0), "num is 0"),
        (lambda: pipe.save(tmp_path / "ours"), "no place in sfumato"),
        (lambda: pipe.conditions(["a red house"]), "no slot"),
    ]
    for attempt, told in wrong:
        with pytest.raises(UsageError, match=told):
            attempt()


def test_diffusers_loads_what_we_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    theirs = unidiffuser()
    ours = loaded(theirs, tmp_path / "model")
    back = diffusers.UniDiffuserPipeline.from_pretrained(ours.save(tmp_path / "again", format="diffusers"))
    pictures, captions = [], []
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for pipe in (theirs, back):
        generator = torch.Generator().manual_seed(0)
        pictures.append(drawn(pipe, None, prompt=PROMPTS[0], num_inference_steps=2, generator=generator))
        captions.append(pipe(image=image, num_inference_steps=2, generator=generator).text)
    assert relative(*pictures) <= 1e-5 and captions[0] == captions[1]
    again = sfumato.load(tmp_path / "again")
    assert (again.defaults, again.slots) == (ours.defaults, ours.slots)
    call: dict[str, Any] = {"prompt": PROMPTS[0], "steps": 2}
    assert torch.equal(again(**call).images, ours(**call).images)


def edited(folder: Path, **changes: Any) -> None:
    content = json.loads(folder.read_text())
    folder.write_text(json.dumps({**content, **changes}))


def test_a_captioner_that_does_not_fit_is_refused(tmp_path: Path):
    folder = saved(unidiffuser(), tmp_path / "model")
    config, weights = folder / "text_decoder" / "config.json", folder / "text_decoder" / WEIGHTS
    plain, tensors = config.read_text(), weights.read_bytes()
    faults: list[tuple[type[SfumatoError], Any, str]] = [
        (ConfigError, lambda: edited(config, n_layers=3), "did you mean 'n_layer'"),
        (ConfigError, lambda: config.write_text(json.dumps({"prefix_length": 3, "prefix_inner_dim": 8})), "lacks .*n_embd"),
        (WeightsError, lambda: edited(config, n_embd=16), "does not fit its config"),
        (WeightsError, lambda: weights.unlink(), "missing file"),
        (ConfigError, lambda: edited(config, prefix_inner_dim=9), "text states are 8 wide"),
    ]
    for error, change, told in faults:
        change()
        with pytest.raises(error, match=told):
            sfumato.load(folder)
        config.write_text(plain)
        weights.write_bytes(tensors)
    from safetensors.torch import load_file, save_file

    head = "transformer.lm_head.weight"
    found = load_file(weights)
    save_file({**found, head: found[head] + 1}, weights)
    with pytest.raises(WeightsError, match="one table"):
        sfumato.load(folder)
    save_file({name: tensor for name, tensor in found.items() if name != head}, weights)
    assert sfumato.load(folder).defaults.steps == 50
