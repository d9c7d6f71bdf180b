"""Recipes of any family: the names that ship, shapes that fit a codec and a text encoder, what a batch tells a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.training.tasks import latents, table

from sfumato.backbones import backbones
from sfumato.backbones.mmdit import MMDiTConfig
from sfumato.backbones.pixart import PixArt, PixArtConfig
from sfumato.codecs.kl import KLCodec, KLConfig, new_autoencoder
from sfumato.core.config import from_dict, to_dict
from sfumato.core.errors import ConfigError, DataError, UnknownNameError
from sfumato.core.rng import Draws
from sfumato.text.minilm import load_minilm
from sfumato.training.diffusion import DiffusionTask, Sized
from sfumato.training.networks import fitted, shape_of, shipped, shipped_of, text_slots, told
from sfumato.training.optimizers import OptimizerConfig, build
from sfumato.training.recipes import ModelRecipe

CODEC, ENCODER = KLCodec(new_autoencoder(KLConfig(channels=(8, 8, 8, 16), latent=16))), load_minilm()


def recipe(name: str) -> ModelRecipe:
    return from_dict(ModelRecipe, shipped()[name])


def net_of(config: Any) -> Any:
    with torch.device("meta"):
        return backbones.build(config)


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_is_whole(name: str) -> None:
    made = recipe(name)
    shape = fitted(made.shape, CODEC, ENCODER)
    net = net_of(shape)
    assert [slot.name for slot in text_slots(net)] == (["text", "pooled"] if "pooled" in net.slots else ["text"])
    assert (shape.channels, shape.text_width) == (16, 384)
    size = sum(p.numel() for p in net.parameters())
    assert 5e6 < size < 10e6 if name.endswith("-64") else 18e6 < size < 30e6
    side = made.defaults.size[0] // 8 // getattr(shape, "patch", 1)
    assert {getattr(shape, field, side) for field in ("base_grid", "grid")} == {side} and getattr(shape, "span", 0.0) in (0.0, side)
    assert from_dict(ModelRecipe, to_dict(made)) == made, "as it is read back"
    seen = (made.train.steps - made.small.steps) * made.batch + made.small.steps * made.small.batch
    assert seen == 480_000, "one budget for all"
    assert made.defaults.size == ((64, 64) if name.endswith("-64") else (128, 128))
    assert name.removesuffix("-64") == f"emoji-{made.family.lower()}"


def test_recipes_differ_in_their_networks_alone() -> None:
    for size in ("", "-64"):
        first, *others = ({**to_dict(recipe(f"emoji-{f}{size}")), "family": 0, "shape": 0} for f in ("mmdit", "pixart", "uvit"))
        assert all(other == first for other in others)
    assert recipe("emoji-mmdit") == ModelRecipe()


def test_every_family_that_reads_text_has_a_recipe() -> None:
    for family in backbones:
        if "text" in backbones.get(family).tiny().slots and family != "HiDream":  # it reads two language models
            assert shipped_of(family)["family"] == family
        else:
            with pytest.raises(ConfigError, match=f"no recipe ships for {family}"):
                shipped_of(family)
    with pytest.raises(UnknownNameError, match="did you mean 'PixArt'"):
        shipped_of("PixArtt")


def test_a_shape_is_its_familys_or_refused() -> None:
    shape = shape_of("PixArt", {"depth": 2, "width": 48})
    assert shape == PixArtConfig(depth=2, width=48) == shape_of("PixArt", shape)
    assert shape_of("MMDiT", None) == MMDiTConfig(depth=8, width=256, heads=4, positions="span")
    before = to_dict(ModelRecipe())
    del before["family"]
    assert from_dict(ModelRecipe, before) == ModelRecipe(), "a recipe.json of when there was one family"
    for family, given, said in (
        ("PixArt", {"depht": 2}, "did you mean 'depth'"),
        ("UViT", shape, "the family is UViT and its shape a PixArtConfig"),
        ("Pixart", None, "did you mean 'PixArt'"),
    ):
        with pytest.raises((ConfigError, UnknownNameError), match=said):
            ModelRecipe(family, given)


@pytest.mark.parametrize(
    ("family", "shape", "said"),
    [("DiT", {}, "reads class, no text"), ("Flux", {}, "reads guidance"), ("NextDiT", {}, "predicts a variance")],
)
def test_a_network_that_text_does_not_serve_is_refused(family: str, shape: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        text_slots(net_of(shape_of(family, shape)))


def test_a_network_is_told_what_it_reads() -> None:
    texts = table([1, 5, 2])
    assert told(texts, backbones.get("MMDiT").tiny()) is texts
    assert told(texts, backbones.get("PixArt").tiny()).pooled is None
    assert told(texts, backbones.get("UViT").tiny(words=5)).pooled is None
    with pytest.raises(DataError, match="has 5 tokens and the UViT positions for 4"):
        told(texts, backbones.get("UViT").tiny(words=4))


def test_sizes_are_those_of_the_pictures() -> None:
    net: Any = backbones.get("PixArt").tiny(sizes=True, width=48, heads=2)
    assert isinstance(net, PixArt)
    stream = latents()
    stream.table = told(stream.table, net)
    batch = Sized(stream, 4).batch(0)
    assert torch.equal(batch["cond"].vectors["sizes"], torch.tensor([[32.0, 32.0, 1.0]]).repeat(4, 1))
    found = DiffusionTask(net, slots=text_slots(net_of(PixArtConfig(variance=False, sizes=True)))).loss(None, batch, {}, Draws(0, 0))  # type: ignore[arg-type]
    assert bool(torch.isfinite(found.total))


def test_muon_moves_matrices_and_no_tables() -> None:
    net = backbones.get("PixArt").tiny()
    adamw, muon = build([net], OptimizerConfig(name="muon"))
    names = {parameter: name for name, parameter in net.named_parameters()}
    moved = {names[p] for group in muon.param_groups for p in group["params"]}
    assert all(name.endswith(".weight") for name in moved) and "blocks.0.mlp.core.up.weight" in moved
    assert {n for n in names.values() if n.endswith("table")} <= {names[p] for group in adamw.param_groups for p in group["params"]}
