"""The exact checks of the SDXL, Kandinsky, KOALA and SSD-1B sheets that concern the U-Net; parity with diffusers stands in
test_checkpoints.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.backbones.gate import batch
from tests.backbones.peers import KANDINSKY, SD1, SDXL, asked, error, ours_of, peer
from torch.nn.functional import group_norm

from sfumato.backbones.checkpoints import formats
from sfumato.backbones.unet import UNet, tiny
from sfumato.backbones.unet_plan import UNetConfig, plan
from sfumato.core.blocks import Block
from sfumato.core.call import Call, Footprint, Session
from sfumato.core.conditions import Conditions
from sfumato.core.errors import ConfigError, ConflictError, UsageError
from sfumato.core.state import State, Stream
from sfumato.nn.attention import JointAttention, PrefixAttention
from sfumato.nn.conv import Down, Residual, Up
from sfumato.nn.embeddings import sinusoid
from sfumato.nn.grids import plane, tokens
from sfumato.nn.projections import AttentionShape

FOUR = (320, 640, 1280, 1280)
SD15: dict[str, Any] = {
    "widths": FOUR, "down": ((1, 1), (1, 1), (1, 1), (0, 0)), "middle": 1, "up": ((0,) * 3, (1,) * 3, (1,) * 3, (1,) * 3),
    "heads": (8,) * 4, "text_width": 768, "pooled_width": 0, "sizes": (),
}  # fmt: skip
REFINER: dict[str, Any] = {
    "widths": (384, 768, 1536, 1536), "down": ((0, 0), (4, 4), (4, 4), (0, 0)), "middle": 4,
    "up": ((0,) * 3, (4,) * 3, (4,) * 3, (0,) * 3), "heads": (6, 12, 24, 24), "text_width": 1280,
    "sizes": ("original_size", "crop", "aesthetic"),
}  # fmt: skip
SSD: dict[str, Any] = {"down": ((0, 0), (2, 2), (4, 4)), "middle": 0, "up": ((4, 4, 10), (2, 1, 1), (0, 0, 0))}
KOALA_700M: dict[str, Any] = {"down": ((0,), (2,), (5,)), "middle": None, "up": ((5, 5), (2, 2), (0, 0))}


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 2_567_463_684),
        ({"text_width": 1024, "pooled_width": 0, "sizes": ()}, 2_391_824_644),
        (REFINER, 2_259_526_660),
        (SD15, 859_520_964),
        (SSD, 1_331_334_404),
        (KOALA_700M, 782_822_724),
    ],
)
def test_parameter_counts_of_the_papers(changes: dict[str, Any], count: int):
    with torch.device("meta"):
        net = UNet(UNetConfig(**changes))
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize(
    ("t", "index", "value"), [(1024.0, 0, 0.98735), (1024.0, 128, -0.15853), (1024.0, 127, 0.99395), (1024.0, 255, 0.10982)]
)
def test_numbers_are_embedded_as_the_sheet_has_it(t: float, index: int, value: float):
    assert sinusoid(torch.tensor([t]), 256)[0, index] == pytest.approx(value, abs=1e-5)
    assert sinusoid(torch.zeros(1), 256)[0].tolist() == [1.0] * 128 + [0.0] * 128


@torch.no_grad()
def test_sizes_are_heard_in_their_order_and_not_at_all_through_a_closed_door():
    net = tiny()
    streams, cond = batch(net)
    plain = net(streams, cond).pred["image"]
    for name in ("original_size", "crop", "target_size"):
        turned = replace(cond, vectors={**cond.vectors, name: cond.vectors[name].flip(1) + 1})
        assert not torch.allclose(net(streams, turned).pred["image"], plain)
    torch.nn.init.zeros_(net.added.down.weight)
    silent = [net(streams, replace(cond, vectors={n: v + k for n, v in cond.vectors.items()})).pred["image"] for k in (0.0, 50.0)]
    assert torch.equal(*silent)


def test_a_new_network_answers_zero_and_every_branch_begins_closed():
    net = UNet(UNetConfig(widths=(8,), down=((1,),), middle=1, up=((1, 1),), heads=(2,), groups=4, text_width=12, pooled_width=0, sizes=()))
    streams, cond = batch(net)
    assert not net(streams, cond).pred["image"].any()
    state = net.start(streams, cond)
    assert torch.equal(net.run(state, 0, 5)["image"], state["image"]), "a residual block and a stack change nothing yet"


@torch.no_grad()
def test_the_plan_says_what_stands_where():
    config = UNetConfig(**SSD)
    parts, places = plan(config), [p.place for p in plan(config)]
    assert len(set(places)) == len(places)
    assert places[:4] == ["down.0.-1.push", "down.0.0.residual", "down.0.0.push", "down.0.1.residual"]
    assert sum(p.kind == "layer" for p in parts) == 34, "SSD-1B's self-attentions"
    assert [sum(p.kind == kind and p.side == side for p in parts) for kind, side in (("leave", "down"), ("leave", "up"))] == [4, 6]
    assert sum(p.kind == "push" for p in parts) == sum(p.kind == "join" for p in parts) == 9
    net = tiny()
    state = net.start(*batch(net))
    for part, item in zip(net.parts, net.blocks, strict=True):
        state = item(state)
        assert state.streams["image"].grid == (8 >> part.level, 8 >> part.level) and state["image"].shape[-1] == part.width
    assert not state.skips


class Skip(Session):
    """Replaces a branch's output by zeros."""

    footprint = Footprint(frozenset({"branch"}))

    def __init__(self, name: str) -> None:
        self.name, self.acted = name, 0

    def branch(self, site, state, inputs, compute, call):
        out = compute(inputs)
        if site.branch != self.name:
            return out
        self.acted += 1
        return {n: torch.zeros_like(x) for n, x in out.items()}


@torch.no_grad()
def test_a_stack_is_one_branch_that_a_policy_may_leave_out():
    net = tiny()
    streams, cond = batch(net)
    session = Skip("stack")
    found = net(streams, cond, Call((session,))).pred["image"]
    assert session.acted == sum(p.kind == "leave" for p in net.parts)
    bare = tiny(down=((0,), (0,)), middle=0, up=((0, 0), (0, 0)))
    kept = [i for i, p in enumerate(net.parts) if p.kind not in ("enter", "layer", "leave") and p.place != "middle.0.1.residual"]
    names = {f"blocks.{old}.": f"blocks.{new}." for new, old in enumerate(kept)}
    weights = {n: w for n, w in net.state_dict().items() if not n.startswith("blocks.")}
    weights |= {new + n.removeprefix(old): w for old, new in names.items() for n, w in net.state_dict().items() if n.startswith(old)}
    last = next(i for i, p in enumerate(net.parts) if p.place == "middle.0.1.residual")
    bare.load_state_dict(weights)

    class Without(Session):
        footprint = Footprint(frozenset({"blocks", "branch"}))

        def blocks(self, state, run, a, b, call):
            return run(run(state, a, last), last + 1, b)

        def branch(self, site, state, inputs, compute, call):
            return Skip("stack").branch(site, state, inputs, compute, call)

    torch.testing.assert_close(net(streams, cond, Call((Without(),))).pred["image"], bare(streams, cond).pred["image"])
    assert not torch.allclose(found, net(streams, cond).pred["image"])


@torch.no_grad()
def test_tokens_and_planes_share_their_memory():
    x = torch.randn(2, 15, 4)
    seen = plane(x, (3, 5))
    assert seen.shape == (2, 4, 3, 5) and seen.data_ptr() == x.data_ptr() and seen.is_contiguous(memory_format=torch.channels_last)
    assert tokens(seen).data_ptr() == x.data_ptr() and torch.equal(tokens(seen), x)
    with pytest.raises(ConflictError, match="15 tokens do not fill a grid of 4 x 4"):
        plane(x, (4, 4))
    norm = tiny().final_norm
    torch.nn.init.normal_(norm.weight)
    y = torch.randn(2, 15, 8)
    torch.testing.assert_close(norm(y), tokens(group_norm(plane(y, (3, 5)), 4, norm.weight, norm.bias, norm.eps)))


@torch.no_grad()
def test_odd_sides_come_back_as_they_were():
    """Halved upwards and brought back to the skip's size, whatever it was."""
    down, up = Down(4), Up(4)
    state = State({"image": Stream(torch.randn(1, 7 * 5, 4), grid=(7, 5))}).push("image")
    half = down(state)
    assert half.streams["image"].grid == (4, 3)
    assert up(half).streams["image"].grid == (7, 5) and up(half)["image"].shape == (1, 35, 4)


@torch.no_grad()
def test_prefix_attention_without_a_text_is_self_attention():
    shape = AttentionShape(8, 2, qk_norm=False)
    prefix, plain = PrefixAttention(shape, "image", "text", 6), JointAttention(shape, ("image",))
    plain.projections["image"].load_state_dict(prefix.own.state_dict())
    x, words = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    state = State({"image": Stream(x), "text": Stream(words, keep=torch.zeros(2, 3, dtype=torch.bool))})
    site = tiny().sites()[0].site
    torch.testing.assert_close(
        prefix({"image": x, "text": words}, state, site, None)["image"], plain({"image": x}, state, site, None)["image"]
    )
    heard = State({**state.streams, "text": Stream(words)})
    assert not torch.allclose(
        prefix({"image": x, "text": words}, heard, site, None)["image"], plain({"image": x}, state, site, None)["image"]
    )


def test_groups_that_leave_a_residual_block_leave_nothing_behind():
    """A unit's parameters removed, the rest computes as with that unit's outputs set to zero."""
    torch.manual_seed(0)
    block = Residual(8, 8, 6, groups=4, eps=1e-5, scale_shift=True)
    state = State({"image": Stream(torch.randn(1, 12, 8), grid=(3, 4))}, {"c": torch.randn(1, 6)})
    site = tiny().sites()[0].site
    (units,) = block.describe(site, "b").units
    assert (units.kind, units.count) == ("groups", 4)
    smaller = Residual(8, 8, 6, groups=4, eps=1e-5, scale_shift=True)
    kept = {f"b.{n}": p.detach() for n, p in block.named_parameters()}
    for name, (dim, each) in units.slices.items():
        kept[name] = torch.cat([kept[name].narrow(dim, 0, each), kept[name].narrow(dim, 2 * each, 2 * each)], dim)
    for name, weight in kept.items():
        smaller.get_parameter(name[2:]).data = weight
    smaller.norm_out.num_groups = 3
    with torch.no_grad():
        block.conv_out.weight[:, 2:4] = 0.0
        torch.testing.assert_close(smaller(state, site, None)[0], block(state, site, None)[0])


def test_costs_are_those_of_each_level():
    net = tiny()
    costs = {str(i.site): i.cost({"image": 64, "text": 5}) for i in net.sites()}
    index = {p.place: i for i, p in enumerate(net.parts)}
    first, deep = costs[f"blocks.{index['down.0.0.residual']}.residual"], costs[f"blocks.{index['middle.0.0.residual']}.residual"]
    assert first == 64 * 9 * 8 * 16 and deep == 16 * 9 * 16 * 32
    assert costs[f"blocks.{index['down.0.1.down']}.conv"] == 16 * 9 * 8 * 8
    layer = index["middle.0.0.layer.0"]
    assert costs[f"blocks.{layer}.attention"] == 16 * 4 * 16**2 + 2 * 16 * 16 * 16
    assert costs[f"blocks.{layer}.mlp"] == 16 * 3 * 16 * 64


def test_torch_may_make_a_graph_for_every_kind_of_block():
    """Its own limit is eight for one function, of which all blocks are instances; the gate runs what is compiled."""
    name = next(n for n in ("recompile_limit", "cache_size_limit") if hasattr(torch._dynamo.config, n))
    net = tiny()
    kinds = {(p.kind, p.width_in, p.width) for p in net.parts if p.kind in ("residual", "layer", "leave")}
    with torch._dynamo.config.patch({name: 8}):
        net.compile_blocks("eager")
        assert 8 < len(kinds) <= getattr(torch._dynamo.config, name)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"widths": (8, 18)}, "level 1 is 18 wide"),
        ({"heads": (2, 3)}, "level 1 is 16 wide"),
        ({"up": ((1,), (0, 0))}, "level 1 has 1 residual blocks down and 1 up"),
        ({"down": ((), (1,)), "up": ((1, 2), (0,))}, "level 0 has 0"),
        ({"heads": (2,)}, "one of each a level"),
        ({"attention": "prefix"}, "a prefix block has the depth 1"),
        ({"sizes": ("size",)}, "sizes names 'size'"),
        ({"pooled_width": 0}, "sizes without a pooled vector"),
        ({"channels": 0}, "at least 1"),
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        tiny(**wrong)


def test_what_is_not_understood_is_named():
    form = formats.get("UNet2DConditionModel")
    for base, wrong, message in (
        (SD1, {"in_channels": 9}, "in_channels is 9 and out_channels 4\n.*inpainting"),
        (SD1, {"class_embed_type": "projection"}, "class_embed_type = 'projection'"),
        (SD1, {"time_cond_proj_dim": 256}, "time_cond_proj_dim = 256"),
        (SD1, {"cross_attention_dim": [10, 12]}, "one width for all levels"),
        (SD1, {"encoder_hid_dim": 5, "encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type is 'text_proj'"),
        (SD1, {"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, "with a AttnUpBlock2D"),
        (SDXL, {"addition_embed_type": "text"}, "addition_embed_type = 'text'"),
        (SDXL, {"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift = 'spatial'"),
        (KANDINSKY, {"mid_block_type": "UNetMidBlock2D"}, "with a UNetMidBlock2D"),
        (KANDINSKY, {"addition_embed_type": "text_time"}, "encoder_hid_dim_type is 'image_proj'"),
    ):
        with pytest.raises(ConfigError, match=message):
            form.config({"in_channels": 4, "out_channels": 4, "norm_eps": 1e-5, **base, **wrong})
    for shape, told in (
        ({"image_width": 6, "image_tokens": 4, "pooled_width": 0, "sizes": ()}, "image_tokens = 4"),
        ({"sizes": ()}, "pooled_width = 6"),
        ({"resample": "residual"}, "resample = 'residual'"),
        ({"middle": 2}, "middle = 2"),
    ):
        with pytest.raises(ConfigError, match=f"diffusers' U-Net has no {told}"):
            form.published(tiny(**shape).config)


def test_a_latent_that_kandinsky_cannot_halve_is_refused():
    net = ours_of(peer("UNet2DConditionModel", KANDINSKY))[1]
    with pytest.raises(UsageError, match=r"a latent of 6 x 8 is not halved 2 times\n.*multiples of 4"):
        net({"image": Stream(torch.zeros(1, 4, 6, 8), t=torch.tensor([0.5]))}, Conditions({}, {"image_embedding": torch.zeros(1, 6)}))


@torch.no_grad()
def test_an_old_config_means_what_it_meant():
    """Folders of the first releases name few fields; the others have diffusers' defaults."""
    theirs = peer("UNet2DConditionModel", {**SD1, "layers_per_block": 1})
    old = {"sample_size": 64, **{n: theirs.config[n] for n in ("in_channels", "out_channels", "norm_num_groups", "norm_eps", *SD1)}}
    net = ours_of(theirs)[1]
    assert isinstance(net.blocks[1], Block)
    assert formats.get("UNet2DConditionModel").config(old) == formats.get("UNet2DConditionModel").config(dict(theirs.config))
    assert error(*asked(net, theirs, (4, 4))) <= 1e-5
