"""What is kept of pictures and captions belongs to their content, not to their names; and stages count steps, not batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from tests.builders import codec, mmdit

from sfumato.core.conditions import Slot
from sfumato.core.denoiser import Denoiser
from sfumato.data import open_source
from sfumato.data.sources import Source
from sfumato.pipelines import Defaults, TextToImage
from sfumato.text import load_minilm
from sfumato.training.precompute import encoded_captions, encoded_pictures
from sfumato.training.recipes import ModelRecipe, Small, feed


def square(folder: Path, colour: str) -> Source:
    Image.new("RGB", (32, 32), colour).save(folder / "a.png")
    (folder / "a.txt").write_text("a square")
    return open_source(folder, size=32)


def test_an_edited_picture_is_encoded_anew(tmp_path: Path) -> None:
    vae, cache = codec(), tmp_path / "cache"
    red = encoded_pictures(square(tmp_path, "red"), vae, cache)
    assert torch.equal(encoded_pictures(square(tmp_path, "red"), vae, cache), red) and len(list(cache.iterdir())) == 1
    blue = encoded_pictures(square(tmp_path, "blue"), vae, cache)
    assert not torch.equal(blue, red) and len(list(cache.iterdir())) == 2


def test_a_text_encoder_that_reads_fewer_tokens_is_another(tmp_path: Path) -> None:
    source = square(tmp_path, "red")
    for most in (3, 32):
        encoded_captions(source, load_minilm(max_tokens=most), tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_small_stage_lasts_as_many_steps_as_it_says(tmp_path: Path) -> None:
    net = mmdit(text_width=384, pooled_width=384)
    pipe = TextToImage(load_minilm(max_tokens=8), Denoiser(net), codec(), (Slot("text"), Slot("pooled")), Defaults(size=(32, 32), steps=2))
    recipe = ModelRecipe(forms=(1.0,), small=Small(16, 2, 3), batch=1, defaults=pipe.defaults)
    recipe = replace(recipe, train=replace(recipe.train, accumulate=3))
    stream = feed([square(tmp_path, "red")], pipe, recipe, tmp_path / "cache")
    assert [len(stream.batch(i)["latents"]) for i in range(8)] == [3] * 6 + [1] * 2
