"""Sana: its sizes, linear attention and the convolving MLP; parity with diffusers stands in test_checkpoints.py."""

import diffusers
import pytest
import torch
from tests.backbones.peers import SANA, peer
from tests.builders import conditions, image
from torch import nn

from sfumato.backbones.checkpoints import formats, of_family
from sfumato.backbones.sana import Sana, SanaConfig, tiny
from sfumato.core.attention import Group, Heads, attend, linear_attend
from sfumato.core.conditions import Conditions
from sfumato.core.errors import ConfigError, ConflictError, UsageError
from sfumato.core.state import Stream
from sfumato.nn.mlp import MixFFN


def words(lengths: list[int], seed: int = 0) -> Conditions:
    return Conditions(conditions(lengths, seed=seed).tokens, {})


SMALLER = {"depth": 28, "width": 1152, "heads": 36, "cross_heads": 16, "hidden": 2880}


@pytest.mark.parametrize(("changes", "count"), [({}, 1_604_462_752), (SMALLER, 591_747_872)])
def test_as_many_parameters_as_diffusers_makes_of_the_published_configs(changes: dict[str, object], count: int):
    with torch.device("meta"):
        net = Sana(SanaConfig(**changes))
        config = formats.get("SanaTransformer2DModel").published(net.config)
        theirs = diffusers.SanaTransformer2DModel(**{k: v for k, v in config.items() if not k.startswith("_")})
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in theirs.parameters()) == count
    assert (config["mlp_ratio"], config["timestep_scale"], config["interpolation_scale"]) == (2.5, 1.0, None)


def test_a_new_network_answers_zero_and_does_not_hear_the_caption():
    torch.manual_seed(0)
    net = Sana(SanaConfig(depth=2, width=24, heads=6, cross_heads=2, hidden=32, channels=4, patch=2, text_width=12))
    assert not net(image(), words([3, 5])).pred["image"].any()
    nn.init.normal_(net.final.weight)
    one, other = (net(image(), words([3, 5], seed)).pred["image"] for seed in (0, 1))
    assert torch.equal(one, other) and one.any(), "cross-attention starts closed"


def heads(count: int, keep: torch.Tensor | None = None) -> Heads:
    return Heads(*(torch.randn(2, 3, count, 4) for _ in range(3)), keep=keep)


def test_linear_attention_is_its_quadratic_formula():
    keep = torch.tensor([[True, True, False], [True, True, True]])
    streams = {"image": heads(5), "text": heads(3, keep)}
    q, k, v = (torch.cat([getattr(h, part) for h in streams.values()], dim=2) for part in "qkv")
    weights = q.relu() @ k.relu().transpose(-1, -2) * torch.cat([torch.ones(2, 5, dtype=torch.bool), keep], 1)[:, None, None]
    expected = weights / (weights.sum(-1, keepdim=True) + 1e-15) @ v
    out = linear_attend(streams, None)
    torch.testing.assert_close(torch.cat(list(out.values()), dim=2), expected)
    nowhere = Heads(-torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4))
    assert not linear_attend({"image": nowhere}, None)["image"].any(), "a query that is nowhere positive hears nothing"
    with pytest.raises(ConflictError, match="cannot follow a plan"):
        linear_attend(streams, {"image": [Group(("image",))]})
    assert not torch.allclose(attend(streams, None)["image"], out["image"])


def test_linear_attention_of_half_precision_sums_in_fp32():
    big = {"image": Heads(*(300.0 * torch.rand(1, 2, 4096, 8).add(0.5).half() for _ in range(3)))}
    assert torch.isfinite(linear_attend(big, None)["image"]).all()


def test_the_cost_grows_with_the_tokens():
    for info in tiny().sites():
        if info.site.branch != "cross":
            assert info.cost({"image": 64, "text": 5}) == 4 * info.cost({"image": 16, "text": 5})


def test_the_mlp_sees_its_neighbours_and_no_further():
    mlp, x = MixFFN(4, 6), torch.randn(1, 25, 4)
    nudged = x.clone()
    nudged[0, 12] += 1.0
    moved = (mlp(nudged, (5, 5)) - mlp(x, (5, 5)))[0].abs().sum(-1).view(5, 5) > 0
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[1:4, 1:4] = True
    assert torch.equal(moved, expected)
    with pytest.raises(ConflictError, match="24 tokens do not fill a grid of 5 x 5"):
        mlp(x[:, :24], (5, 5))


def test_without_positions_only_convolutions_tell_places():
    net, order = tiny(patch=1), torch.randperm(64, generator=torch.Generator().manual_seed(0))
    for block in net.blocks:
        for conv in (block.mlp.core.up_conv, block.mlp.core.gate_conv):
            conv.weight.data = torch.zeros_like(conv.weight)
            conv.weight.data[:, :, 1, 1] = 1.0
    x = image(1)["image"].x

    def asked(latents: torch.Tensor) -> torch.Tensor:
        return net({"image": Stream(latents, t=torch.tensor([0.4]))}, words([4])).pred["image"].flatten(2)

    torch.testing.assert_close(asked(x.flatten(2)[..., order].view_as(x)), asked(x)[..., order], atol=1e-5, rtol=1e-4)


def test_guidance_is_heard_and_what_makes_no_network_is_refused():
    net, cond = tiny(guided=True), words([3])
    one, other = (net(image(1), Conditions(cond.tokens, scalars={"guidance": torch.tensor([g])})).pred["image"] for g in (1.0, 4.5))
    assert not torch.equal(one, other)
    form, config = of_family("Sana"), dict(peer("SanaTransformer2DModel", SANA).config)
    with pytest.raises(ConfigError, match="out_channels 7"):
        form.config({**config, "out_channels": 7})
    with pytest.raises(ConfigError, match="cross-attention is 24 wide, reads None"):
        form.config({**config, "cross_attention_dim": None})


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"width": 26}, {"heads": 5}, {"cross_heads": 5}, {"span": -1.0}, {"eps": 0.0}])
def test_impossible_shapes_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        SanaConfig(**{"depth": 2, "width": 24, "heads": 6, "cross_heads": 2, **wrong})


def test_strangers_and_a_missing_time_are_told():
    net = tiny()
    with pytest.raises(UsageError, match="noise level"):
        net({"image": Stream(torch.zeros(1, 4, 8, 8))}, words([2]))
    with pytest.raises(UsageError, match="cannot embed the stream 'layout'"):
        net({**image(1), "layout": Stream(torch.zeros(1, 3, 12))}, words([2]))
