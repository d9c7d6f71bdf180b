"""The exact checks of AsCAN: layouts as words, both kinds of blocks, skips, what they cost, and shapes of one budget."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.builders import conditions, image
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, layer_norm, scaled_dot_product_attention

from sfumato.backbones.ascan import KINDS, AsCAN, AsCANConfig, Kind, of_budget, parameters, tiny
from sfumato.core.blocks import Block
from sfumato.core.call import Site
from sfumato.core.conditions import Conditions
from sfumato.core.errors import ConfigError, UnknownNameError
from sfumato.core.registry import Registry
from sfumato.core.state import State, Stream
from sfumato.nn.conv import Down, FusedConv, Up
from sfumato.nn.layout import asymmetric, parse_layout
from sfumato.nn.parallel import parallel
from sfumato.nn.positions import Rotary, grid_coordinates
from sfumato.nn.projections import AttentionShape
from sfumato.nn.rewires import Merge, Place, Push

WIDTH, GRID = 8, (4, 6)


def words(lengths: list[int], seed: int = 0) -> Conditions:
    return Conditions(conditions(lengths, seed=seed).tokens, {})


@pytest.mark.parametrize(
    ("text", "convolutions", "transformers", "expected"),
    [
        ("CCCT-CCTT-CTTT", (3, 2, 1), (1, 2, 3), True),
        ("CCCC-CCTT-TTTT", (4, 2, 0), (0, 2, 4), False),
        ("CCC-CCC", (3, 3), (0, 0), False),
        ("CT-CT", (1, 1), (1, 1), False),
        ("CCC-CCT-CTT-TTT-CTT-CCT-CCC", (3, 2, 1, 0, 1, 2, 3), (0, 1, 2, 3, 2, 1, 0), True),
    ],
)
def test_a_layout_is_read(text: str, convolutions: tuple[int, ...], transformers: tuple[int, ...], expected: bool):
    stages = parse_layout(text, "CT")
    assert tuple(s.count("C") for s in stages) == convolutions and tuple(s.count("T") for s in stages) == transformers
    assert asymmetric(stages) is expected


def test_a_wrong_layout_teaches():
    with pytest.raises(ConfigError, match=r"stage 1 of the layout 'CC-CTC' is 'CTC', where C comes before T\n  'CCT', or strict = False"):
        parse_layout("CC-CTC", "CT")
    assert parse_layout("CC-CTC", "CT", strict=False) == ("CC", "CTC")
    with pytest.raises(UnknownNameError, match="unknown block kind 'X'"):
        parse_layout("CX", "CT")
    for empty in ("", "CC--TT", "CC-"):
        with pytest.raises(ConfigError, match="is empty"):
            parse_layout(empty, "CT")
    small = tiny().config
    for changes, told in (
        ({"layout": "CC-CT-T-CT"}, "4 stages for 2 widths"),
        ({"layout": "CC-CT-T-CT-C"}, "level 0 is 'CC' down and 'C' up"),
        ({"layout": "CC-TC-T-CT-CC"}, "C comes before T"),
        ({"widths": (10, 16)}, r"widths are \(10, 16\)"),
        ({"head": 6}, "a head 6 wide"),
        ({"text_heads": 5}, "multiple of its 5 heads"),
        ({"groups": 0}, "at least 1"),
        ({"squeeze": 0.0}, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=told):
            replace(small, **changes)
    assert replace(small, layout="CC-TC-T-CT-CC", strict=False).stages[1] == "TC"


def test_another_kind_of_block_joins_by_its_letter(monkeypatch: pytest.MonkeyPatch):
    more: Registry[Kind] = Registry("block kind")
    for letter in KINDS:
        more.add(letter)(KINDS.get(letter))
    more.add("A")(Kind(2, KINDS.get("T").block))
    monkeypatch.setattr("sfumato.backbones.ascan.KINDS", more)
    assert tiny(layout="CC-TA-A-CA-CC").config.stages[1] == "TA"
    with pytest.raises(ConfigError, match="C comes before T comes before A"):
        tiny(layout="CC-AT-A-CT-CC")


def state(seed: int = 0, pos: Tensor | None = None, words: int = 5) -> State:
    generator = torch.Generator().manual_seed(seed)
    x, text = torch.randn(2, 24, WIDTH, generator=generator), torch.randn(2, words, 6, generator=generator)
    streams = {"image": Stream(x, grid=GRID, pos=pos), "text": Stream(text, update=False)}
    return State(streams, {"c": torch.randn(2, 16, generator=generator)})


def transformer(**changes: Any) -> Block:
    torch.manual_seed(0)
    return parallel(AttentionShape(WIDTH, 2), 4 * WIDTH, text_width=6, rotate=Rotary((2, 2)), **changes)


def convolution() -> Block:
    torch.manual_seed(0)
    return Block(FusedConv(WIDTH, 16, groups=4))


@torch.no_grad()
def close(*layers: nn.Module) -> None:
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


@torch.no_grad()
def test_closed_blocks_are_the_identity():
    conv, block, before = convolution(), transformer(), state()
    assert not torch.equal(conv(before)["image"], before["image"]) and not torch.equal(block(before)["image"], before["image"])
    close(conv.conv.out, block.attention.core.projections["image"].out, block.cross.core.out, block.mlp.core.down)
    assert torch.equal(conv(before)["image"], before["image"]) and torch.equal(block(before)["image"], before["image"])


@torch.no_grad()
def test_a_convolution_block_is_its_formula_on_a_plane():
    block, before = convolution(), state()
    part = block.conv
    x = before["image"].transpose(1, 2).unflatten(2, GRID)
    hidden = conv2d(x, part.conv.weight, part.conv.bias, padding=1) + part.shift(before.cond["c"])[:, :, None, None]
    hidden = gelu(nn.functional.group_norm(hidden, 4, part.norm.weight, part.norm.bias, part.norm.eps))
    excited = part.excite(gelu(part.squeeze(hidden.mean((2, 3))))).sigmoid()[:, :, None, None]
    y = x + conv2d(hidden * excited, part.out.weight[:, :, None, None], part.out.bias)
    torch.testing.assert_close(block(before)["image"], y.flatten(2).transpose(1, 2))
    assert part.squeeze.out_features == WIDTH // 4 and part.conv.out_channels == 4 * WIDTH


@pytest.mark.parametrize("activated", [True, False])
@torch.no_grad()
def test_branches_of_a_transformer_block_stand_side_by_side(activated: bool):
    block, before = transformer(activated=activated), state(pos=grid_coordinates(*GRID)[..., 1:])
    x = before["image"]
    norm = block.attention.norm
    y = layer_norm(gelu(x) if activated else x, (WIDTH,), norm.weight, norm.bias, norm.eps)
    own = block.attention.core({"image": y}, before, Site(0, "attention"), None)["image"]
    cross = block.cross.core({"image": y}, before, Site(0, "cross"), None)["image"]
    torch.testing.assert_close(block(before)["image"], x + own + cross + block.mlp.core(y))
    after = x + own + cross
    serial = after + block.mlp.core(layer_norm(gelu(after) if activated else after, (WIDTH,), norm.weight, norm.bias, norm.eps))
    assert not torch.allclose(block(before)["image"], serial, atol=1e-3), "not one after another"
    core = block.cross.core
    heads = [core.shape.split(core.q(y), core.q_norm), *(core.shape.split(f(before["text"])) for f in (core.k, core.v))]
    heads[1] = core.k_norm(heads[1])
    expected = core.out(scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
    torch.testing.assert_close(cross, expected, msg="the picture asks, the text answers")


@torch.no_grad()
def test_only_distances_count():
    block, here = transformer(), grid_coordinates(*GRID)[..., 1:]
    plain = block(state(pos=here))["image"]
    torch.testing.assert_close(block(state(pos=here + torch.tensor([7.0, -3.0])))["image"], plain)
    assert not torch.allclose(block(state(pos=here * 2))["image"], plain, atol=1e-4)


def test_what_blocks_cost():
    net = AsCAN(AsCANConfig(widths=(32, 64), layout="C-T-T-T-C", head=16, text_width=24, text_blocks=0, groups=8))
    costs = {str(info.site): info.cost({"image": 400, "text": 7}) for info in net.sites()}
    assert costs["blocks.0.conv"] == 400 * 40 * 32**2
    at = next(i for i, item in enumerate(net.blocks) if isinstance(item, Block) and i)
    inner = 64**2 * 100
    assert costs[f"blocks.{at}.attention"] + costs[f"blocks.{at}.mlp"] == 12 * inner + 2 * 100**2 * 64
    assert costs[f"blocks.{at}.cross"] == 2 * inner + 2 * 7 * 24 * 64 + 2 * 100 * 7 * 64


def test_skips_come_back_in_reverse_order_and_sides_as_they_were():
    net = tiny(widths=(8, 16, 24), layout="CC-CT-T-T-T-CT-CC")
    kinds = [type(item) for item in net.blocks]
    down, up = [Block, Push, Block, Push, Down, Place], [Up, Place, Merge, Block, Merge, Block]
    assert kinds == [Block, *down, *down, Block, Push, Block, Merge, Block, *up, *up]
    state, kept = net.start(image(height=12, width=20), words([3, 5])), []
    for item in net.blocks:
        if isinstance(item, Push):
            kept.append(state["image"])
        if isinstance(item, Merge):
            assert torch.equal(state.skips[-1]["image"].x, kept.pop())
        assert isinstance(item, Place) or state.streams["image"].pos.shape[1] == state["image"].shape[1]
        state = item(state)
    assert not kept and not state.skips and state.streams["image"].grid == (12, 20)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"widths": (8, 16, 24), "layout": "CC-CT-T-T-T-CT-CC"},
        {"rotary": False, "activated": False, "text_blocks": 0},
        {"layout": "T-C-CT-T-C"},
    ],
)
def test_answers_have_the_input_s_shape_and_gradients_reach_everything(shape: dict[str, Any]):
    net = tiny(**shape)
    for height, width in ((8, 8), (12, 20), (4, 16), (5, 7)):
        assert net(image(height=height, width=width), words([3, 5])).pred["image"].shape == (2, 4, height, width)
    net(image(), words([3, 5])).pred["image"].square().mean().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []
    one, other = (net(image(), words([3, 5], seed)).pred["image"] for seed in (0, 1))
    assert not torch.equal(one, other)


def test_a_new_network_answers_zero():
    torch.manual_seed(0)
    assert not AsCAN(tiny().config)(image(), words([3, 5])).pred["image"].any()


def test_layouts_of_one_budget():
    plain = AsCANConfig(widths=(16, 32), layout="CC-CT-T-CT-CC", head=4, text_width=12, text_blocks=0, groups=4)
    budget, found = parameters(plain), {}
    for layout in ("CC-CC-C-CC-CC", "TT-TT-T-TT-TT"):
        shape = found[layout] = of_budget(replace(plain, layout=layout), budget)
        nearby = [replace(shape, widths=tuple(w + step * r * 4 for w, r in zip(shape.widths, (1, 2), strict=True))) for step in (-1, 1)]
        assert abs(parameters(shape) - budget) <= min(abs(parameters(n) - budget) for n in nearby)
    assert found["CC-CC-C-CC-CC"].widths < plain.widths < found["TT-TT-T-TT-TT"].widths, "attention is lighter, so it may be wider"
