"""Lumina-Image 2.0: its size, its places, its refiners, and rows of different texts beside diffusers' own."""

import diffusers
import pytest
import torch
from tests.backbones.peers import LUMINA2, error, ours_of, peer
from tests.builders import conditions, image

from sfumato.backbones.checkpoints import formats
from sfumato.backbones.lumina2 import Lumina2, Lumina2Config, tiny
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.state import Stream


def words(lengths: list[int], seed: int = 0) -> Conditions:
    return Conditions(conditions(lengths, seed=seed).tokens, {})


def test_the_published_network_has_as_many_parameters_as_diffusers_makes_of_its_config():
    with torch.device("meta"):
        net = Lumina2(Lumina2Config())
        config = formats.get("Lumina2Transformer2DModel").published(net.config)
        theirs = diffusers.Lumina2Transformer2DModel(**{k: v for k, v in config.items() if not k.startswith("_")})
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in theirs.parameters()) == 2_609_769_152
    assert (config["multiple_of"], config["ffn_dim_multiplier"], config["axes_dim_rope"]) == (256, None, [32, 32, 32])


def test_a_new_network_answers_zero_and_leaves_the_picture_as_it_is():
    torch.manual_seed(0)
    net = Lumina2(Lumina2Config(depth=1, refiners=1, width=32, heads=4, kv_heads=2, hidden=48, text_width=12, channels=4, axes=(4, 2, 2)))
    streams, cond = image(), words([3, 5])
    assert not net(streams, cond).pred["image"].any()
    state = net.start(streams, cond)
    after = net.run(state, 0, 3)
    assert torch.equal(after["image"], state["image"]) and state["image"].any()
    assert not torch.equal(after["text"], state["text"]), "context refiners have no gate"


def test_words_are_counted_and_the_picture_stands_behind_them():
    net = tiny()
    state = net.start(image(2, 4, 4, 6), words([3, 5]))
    text, cells = state.streams["text"].pos, state.streams["image"].pos
    assert text[1].tolist() == [[n, 0, 0] for n in range(5)]
    assert cells[:, 4].tolist() == [[3, 1, 1], [5, 1, 1]]
    # The same words behind padding stand where they stood.
    tokens = words([3]).tokens["text"]
    left = Tokens(torch.cat([torch.zeros(1, 2, 12), tokens.states], 1), torch.tensor([[False, False, True, True, True]]))
    moved = net.start(image(1), Conditions({"text": left})).streams["text"].pos
    assert moved[0, 2:].tolist() == text[0, :3].tolist()
    with torch.no_grad():
        plain, padded = (net(image(1), Conditions({"text": t})).pred["image"] for t in (tokens, left))
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=1e-5)


def test_each_refiner_touches_its_own_stream():
    net = tiny(refiners=2)
    state = net.start(image(), words([3, 5]))
    context = net.run(state, 0, 2)
    assert torch.equal(context["image"], state["image"]) and not torch.equal(context["text"], state["text"])
    noise = net.run(context, 2, 4)
    assert torch.equal(noise["text"], context["text"]) and not torch.equal(noise["image"], context["image"])
    other = net.run(net.start(image(), words([3, 5], seed=1)), 0, 4)
    assert torch.equal(other["image"], noise["image"]), "before the joint blocks the picture has not heard of the text"
    assert not torch.equal(net.run(other, 4, 6)["image"], net.run(noise, 4, 6)["image"])


@torch.no_grad()
def test_rows_of_different_texts_equal_diffusers():
    theirs = peer("Lumina2Transformer2DModel", LUMINA2)
    _, net = ours_of(theirs)
    x, states, t = torch.randn(3, 4, 6, 10), torch.randn(3, 7, 10), torch.tensor([0.2, 0.5, 0.9])
    keep = torch.arange(7) < torch.tensor([7, 2, 4])[:, None]
    expected = theirs(x, t, states, keep, return_dict=False)[0]
    found = net({"image": Stream(x, t=t)}, Conditions({"text": Tokens(states, keep)})).pred["image"]
    assert error(found, expected) <= 1e-5


def test_what_makes_no_network_is_refused():
    form = formats.get("Lumina2Transformer2DModel")
    config = dict(peer("Lumina2Transformer2DModel", LUMINA2).config)
    with pytest.raises(ConfigError, match="out_channels 7"):
        form.config({**config, "out_channels": 7})
    with pytest.raises(ConfigError, match="num_kv_heads is None"):
        form.config({**config, "num_kv_heads": None})


@pytest.mark.parametrize("wrong", [{"width": 0}, {"axes": (4, 2)}, {"axes": (5, 2, 1)}, {"kv_heads": 3}, {"eps": 0.0}, {"refiners": -1}])
def test_impossible_shapes_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        Lumina2Config(**{"width": 32, "heads": 4, "kv_heads": 2, "axes": (4, 2, 2), **wrong})


def test_strangers_and_a_missing_time_are_told():
    net = tiny()
    with pytest.raises(UsageError, match="noise level"):
        net({"image": Stream(torch.zeros(1, 4, 8, 8))}, words([2]))
    with pytest.raises(UsageError, match="cannot embed the stream 'layout'"):
        net({**image(1), "layout": Stream(torch.zeros(1, 3, 12))}, words([2]))
