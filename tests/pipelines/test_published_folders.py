"""Published folders as others wrote them: former names, fields that came later, variants, and what their configs leave out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.pipelines.peers import dit, drawn, lumina2, pixart, relative, sana, saved, sd, sd3

import sfumato
from sfumato.core.errors import ConfigError, UnknownNameError, UsageError, WeightsError
from sfumato.core.files import sha256
from sfumato.core.rng import Rows
from sfumato.core.weights import WEIGHTS, Shards, pipeline_bytes

PROMPT = "a red fox in the snow"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion, most of whose numbers are the U-Net's."""
    return saved(sd(block_out_channels=(24, 48)), tmp_path_factory.mktemp("published") / "model")


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "model"))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_attention_of_a_codec_by_its_former_names(folder: Path):
    plain = sfumato.load(folder).codec.state_dict()
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(folder / "vae" / WEIGHTS)
    for now, then in former.items():
        tensors = {name.replace(f".attentions.0.{now}.", f".attentions.0.{then}."): tensor for name, tensor in tensors.items()}
    assert sum(".proj_attn." in name for name in tensors) == 4
    save_file(tensors, folder / "vae" / WEIGHTS, metadata={"format": "pt"})
    theirs = diffusers.AutoencoderKL.from_pretrained(folder / "vae").state_dict()
    ours = sfumato.load(folder).codec
    assert all(torch.equal(tensor, plain[name]) for name, tensor in ours.state_dict().items())
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.autoencoder.state_dict().items())


def test_first_folders_of_sana_and_of_lumina_image_2(tmp_path: Path):
    folder = saved(sana(), tmp_path / "sana")
    plain = sfumato.load(folder)(PROMPT, steps=1).images

    def first(config: dict[str, Any]) -> None:
        for field in ("guidance_embeds", "guidance_embeds_scale", "qk_norm", "timestep_scale"):
            del config[field]

    edit(folder / "transformer" / "config.json", first)
    assert torch.equal(sfumato.load(folder)(PROMPT, steps=1).images, plain)
    folder = saved(lumina2(), tmp_path / "lumina")
    edit(folder / "model_index.json", lambda index: index.update(_class_name="Lumina2Text2ImgPipeline"))
    assert sfumato.load(folder).encoder.name == "Lumina2Pipeline"


@pytest.mark.parametrize(("said", "size"), [(None, (128, 128)), ([12, 16], (24, 32)), (20, (40, 40))])
def test_the_size_of_a_u_net(said: Any, size: tuple[int, int], folder: Path, tmp_path: Path):
    edit(folder / "unet" / "config.json", lambda config: config.update(sample_size=said))
    pipe = sfumato.load(folder)
    assert pipe.defaults.size == size
    assert sfumato.load(pipe.save(tmp_path / "again", format="diffusers")).defaults.size == size


@pytest.mark.parametrize("said", ["64", [8], [8, 8, 8], [8, 0], 1.5, True])
def test_a_size_that_is_none_is_refused(said: Any, folder: Path):
    edit(folder / "unet" / "config.json", lambda config: config.update(sample_size=said))
    with pytest.raises(ConfigError, match="sample_size is"):
        sfumato.load(folder)


def test_memory_is_that_of_the_type_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch):
    needed, stored = pipeline_bytes(folder, torch.bfloat16), Shards(folder / "unet").bytes()
    assert needed < stored
    monkeypatch.setattr("sfumato.core.memory.free_memory", lambda device: needed)
    assert sfumato.load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_flag_that_is_not_known_is_refused_with_the_nearest(folder: Path):
    edit(folder / "model_index.json", lambda index: index.update(requires_safety_cheker=False))
    with pytest.raises(UnknownNameError, match="did you mean 'requires_safety_checker'"):
        sfumato.load(folder)


def test_clip_does_not_attend_to_padding_where_its_config_says_so(folder: Path, tmp_path: Path):
    theirs, plain = sd(), sfumato.load(saved(sd(), tmp_path / "plain"))(PROMPT, size=(16, 16), steps=2).images
    theirs.text_encoder.config.use_attention_mask = True
    ours = sfumato.load(saved(theirs, tmp_path / "masked"))(PROMPT, size=(16, 16), steps=2).images
    noise = Rows((0,)).normal((4, 8, 8), "noise")
    reference = drawn(theirs, noise, prompt=PROMPT, height=16, width=16, num_inference_steps=2, guidance_scale=7.5)
    assert relative(ours, reference) <= 1e-4 < relative(ours, plain)


@pytest.mark.parametrize("upcast", [True, False])
def test_a_codec_that_overflows_in_float16_stays_in_float32(upcast: bool, folder: Path):
    edit(folder / "vae" / "config.json", lambda config: config.update(force_upcast=upcast))
    pipe = sfumato.load(folder, dtype=torch.float16)
    assert pipe.dtype == torch.float16
    assert next(pipe.codec.parameters()).dtype == (torch.float32 if upcast else torch.float16)
    assert next(sfumato.load(folder, dtype=torch.bfloat16).codec.parameters()).dtype == torch.bfloat16
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not upcast or torch.equal(pipe.decode(latents), sfumato.load(folder).decode(latents))


@pytest.mark.parametrize(("make", "field"), [(sd3, "base_grid"), (dit, "span")])
def test_saving_does_not_change_the_network(make: Any, field: str, tmp_path: Path):
    pipe = sfumato.load(saved(make(), tmp_path / "model"))
    pipe.defaults = replace(pipe.defaults, size=(64, 64))
    with pytest.raises(UsageError, match=f"64x64 would make .* of the network's {field}"):
        pipe.save(tmp_path / "again", format="diffusers")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("make", [lambda: pixart("Sigma"), lambda: sana(interpolation_scale=0.7)])
def test_a_scale_says_what_another_default_size_would(make: Any, tmp_path: Path):
    pipe = sfumato.load(saved(make(), tmp_path / "model"))
    pipe.defaults = replace(pipe.defaults, size=(48, 48))
    again = sfumato.load(pipe.save(tmp_path / "again", format="diffusers"))
    assert again.defaults.size == (48, 48)
    call = {"size": (32, 32), "steps": 1}
    assert relative(again(PROMPT, **call).images, pipe(PROMPT, **call).images) <= 1e-6


@pytest.mark.parametrize(("part", "file"), [("unet", WEIGHTS), ("vae", WEIGHTS), ("text_encoder", "model.safetensors")])
def test_a_variant_is_named_and_a_second_one_changes_no_checksum(part: str, file: str, folder: Path):
    whole = folder / part / file
    variant = whole.with_name(file.replace(".safetensors", ".fp16.safetensors"))
    shutil.copy(whole, variant)
    key = {"unet": "sha256", "vae": "codec_sha256"}.get(part)
    assert key is None or sfumato.load(folder).identity[key] == sha256(whole)
    whole.unlink()
    with pytest.raises(WeightsError, match=f"variant 'fp16' alone\n.*rename {variant.name} to {file}"):
        sfumato.load(folder)
    variant.rename(whole.with_name(file.replace(".safetensors", ".fp16-00001-of-00001.safetensors")))
    with pytest.raises(WeightsError, match=f"rename {file}.index.fp16.json to {file}.index.json"):
        sfumato.load(folder)
