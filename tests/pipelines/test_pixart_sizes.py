"""PixArt's bins: the picture is drawn at the nearest trained size and resized, as diffusers does it; and its cleaned captions."""

from pathlib import Path

import pytest
import torch
from diffusers.pipelines.pixart_alpha import pipeline_pixart_alpha as alpha
from diffusers.pipelines.pixart_alpha import pipeline_pixart_sigma as sigma
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import Cli, cli
from tests.pipelines.cleaning import stand_in
from tests.pipelines.peers import drawn, flux, pixart, relative, saved

import sfumato
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.rng import Rows
from sfumato.pipelines import Defaults, TextToImage
from sfumato.pipelines.bins import fitted, nearest
from sfumato.text import captions

__all__ = ["cli"]
TABLES = {
    256: sigma.ASPECT_RATIO_256_BIN,
    512: sigma.ASPECT_RATIO_512_BIN,
    1024: alpha.ASPECT_RATIO_1024_BIN,
    2048: sigma.ASPECT_RATIO_2048_BIN,
}
classify, resize = sigma.PixArtImageProcessor.classify_height_width_bin, sigma.PixArtImageProcessor.resize_and_crop_tensor


@given(st.integers(1, 4096), st.integers(1, 4096), st.sampled_from(sorted(TABLES)))
def test_the_nearest_bin_is_diffusers(height: int, width: int, side: int):
    assert nearest((height, width), side) == classify(height, width, TABLES[side])


@given(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 60)] * 2))
def test_resizing_is_diffusers_and_never_a_row_short(before: tuple[int, int], after: tuple[int, int]):
    images = torch.linspace(-1, 1, 3 * before[0] * before[1]).view(1, 3, *before)
    ours, theirs = fitted(images, after), resize(images, after[1], after[0])
    assert tuple(ours.shape[2:]) == after
    if theirs.shape == ours.shape:  # where a product of theirs rounds down, a row or column is missing
        torch.testing.assert_close(ours, theirs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 px by a codec of f8."""
    return saved(pixart("Sigma", levels=4, sample_size=32), tmp_path_factory.mktemp("binned") / "model")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> TextToImage:
    return sfumato.load(folder)


@pytest.mark.parametrize(("size", "inner"), [((250, 100), (400, 160)), ((160, 300), (176, 336)), ((256, 256), (256, 256))])
def test_pictures_at_a_binned_size_are_those_of_diffusers(size: tuple[int, int], inner: tuple[int, int], folder: Path, pipe: TextToImage):
    pictures = pipe("a red fox", seed=3, size=size, steps=2)
    theirs = sigma.PixArtSigmaPipeline.from_pretrained(folder)
    reference = drawn(
        theirs, Rows((3,)).normal((4, *(n // 8 for n in inner)), "noise"), prompt="a red fox", height=size[0], width=size[1],
        num_inference_steps=2, guidance_scale=4.5, clean_caption=False,
    )  # fmt: skip
    assert pictures.images.shape[2:] == size and relative(pictures.images, reference) <= 1e-4 and reference.std() > 0.05
    assert any("resized to" in note for note in pictures.notes) == (size != inner)
    assert not any("beyond what it has seen" in note for note in pictures.notes)
    assert pictures.settings["binned"] is True


def test_sizes_of_one_s_own(pipe: TextToImage):
    plain = pipe("a fox", size=(64, 128), steps=1, binned=False)
    assert plain.settings["binned"] is False and any("beyond what it has seen" in note for note in plain.notes)
    assert relative(plain.images, pipe("a fox", size=(64, 128), steps=1).images) > 1e-3
    with pytest.raises(UsageError, match="size 100x250 is not possible"):
        pipe("a fox", size=(250, 100), binned=False)
    with pytest.raises(UsageError, match="up to 4096"):
        pipe("a fox", size=(5000, 100))
    with pytest.raises(ConfigError, match="bins around 100 pixels"):
        Defaults(bins=100)


def test_models_without_bins(tmp_path: Path):
    """A codec of f2 has none: the published sizes are those of f8."""
    other = sfumato.load(saved(pixart("Alpha"), tmp_path / "model"))
    assert other.defaults.bins == 0
    with pytest.raises(UsageError, match="this model has no bins"):
        other("a fox", size=(16, 16), steps=1, binned=True)


def test_again_is_bit_for_bit(cli: Cli, folder: Path):
    command = ("generate", "a fox", "--model", folder, "--steps", 1, "--json")
    shown = []
    for out, words in (("own", ("--size", "100x250")), ("exact", ("--size", "64x128", "--binned", "no"))):
        assert cli(*command, *words, "--out", f"{out}.png").code == 0
        again = cli("generate", "--again", f"{out}.png", "--json").lines[0]
        assert again["identical"] is True
        shown.append((again["size"], again["binned"]))
    assert shown == [([250, 100], True), ([128, 64], False)]


def test_captions_are_cleaned_by_diffusers_or_not_at_all(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(captions, "find_spec", lambda module: None)
    with pytest.raises(UsageError, match="pip install ftfy beautifulsoup4"):
        sfumato.load(folder, clean_captions=True)
    with pytest.raises(UsageError, match="a FluxPipeline reads prompts as they are"):
        sfumato.load(saved(flux(), tmp_path / "flux"), clean_captions=True)
    stand_in(monkeypatch)
    cleaned, plain = sfumato.load(folder, clean_captions=True), sfumato.load(folder)
    messy, tidy = "A Fox @someone #123 ((in)) the snow photo.jpg", "a fox in the snow"
    states = [cleaned.encoder.encode([messy]), plain.encoder.encode([tidy]), plain.encoder.encode([messy])]
    assert torch.equal(states[0].tokens, states[1].tokens) and states[2].tokens.shape != states[1].tokens.shape


def test_our_own_models_read_prompts_as_they_are():
    with pytest.raises(UsageError, match="clean_captions"):
        sfumato.load("emoji-mmdit", clean_captions=True)
