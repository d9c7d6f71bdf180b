"""HiDream: its size, its taps, its experts' balance, its filled pictures; parity with diffusers stands in test_checkpoints.py."""

import diffusers
import pytest
import torch
from tests.backbones.gate import batch
from tests.backbones.peers import HIDREAM, asked, error, ours_of, peer
from torch import Tensor

from sfumato.backbones.checkpoints import formats
from sfumato.backbones.hidream import HiDream, HiDreamConfig, swiglu_hidden, tiny
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.program import Network
from sfumato.core.state import Stream


def question(net: Network, size: tuple[int, int] = (8, 8), seed: int = 0) -> tuple[dict[str, Stream], Conditions]:
    """Two rows; every word and every tap is real."""
    random, config = torch.Generator().manual_seed(seed), net.config
    text, taps = (torch.randn(2, 5, width, generator=random) for width in (config.text_width, config.layers * config.tap_width))
    keep = torch.ones(2, 5, dtype=torch.bool)
    x, pooled = torch.randn(2, config.channels, *size, generator=random), torch.randn(2, config.pooled_width, generator=random)
    return {"image": Stream(x, t=torch.tensor([0.3, 0.8]))}, Conditions(
        {"text": Tokens(text, keep), "taps": Tokens(taps, keep)}, {"pooled": pooled}
    )


@torch.no_grad()
def answer(net: Network, cond: Conditions, size: tuple[int, int] = (8, 8)) -> Tensor:
    return net(question(net, size)[0], cond).pred["image"]


def with_tap(cond: Conditions, layer: int, states: Tensor) -> Conditions:
    """`cond` with one layer's states (B, N, width) replaced."""
    whole, width = cond.tokens["taps"].states.clone(), states.shape[-1]
    whole[..., layer * width : (layer + 1) * width] = states
    return Conditions({**cond.tokens, "taps": Tokens(whole, cond.tokens["taps"].keep)}, cond.vectors)


def test_the_published_network_has_its_published_parameters():
    with torch.device("meta"):
        net = HiDream(HiDreamConfig())
        config = formats.get("HiDreamImageTransformer2DModel").published(net.config)
        theirs = diffusers.HiDreamImageTransformer2DModel(**{k: v for k, v in config.items() if not k.startswith("_")})
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in theirs.parameters()) == 17_105_733_184
    assert (config["max_resolution"], config["axes_dims_rope"], len(config["llama_layers"])) == ([128, 128], [64, 32, 32], 48)
    assert (swiglu_hidden(10_240), swiglu_hidden(5_120)) == (6912, 3584)


def test_a_new_network_answers_zero_and_every_block_is_the_identity():
    torch.manual_seed(0)
    net = HiDream(tiny().config)
    streams, cond = question(net)
    assert not net(streams, cond).pred["image"].any()
    state = net.start(streams, cond)
    after = net.run(state, 0, len(net.blocks))
    assert torch.equal(after["image"], state["image"]) and torch.equal(after["text"], state["text"]) and state["image"].any()


def test_a_tap_is_heard_in_its_block_alone_and_the_last_one_everywhere():
    net = tiny(taps=(0, 2, 1))
    _, cond = question(net)
    base, other = answer(net, cond), torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(5))
    for layer, block in ((0, 2), (2, 4)):
        assert error(answer(net, with_tap(cond, layer, other)), base) > 1e-4
        gates = {n: p.clone() for n, p in net.blocks[block].named_parameters() if "modulation" in n}
        for name in gates:
            net.blocks[block].get_parameter(name).data.zero_()
        assert torch.equal(answer(net, with_tap(cond, layer, other)), answer(net, cond))
        assert error(answer(net, with_tap(cond, 1, other)), answer(net, cond)) > 1e-4, "the last tap is also among the words"
        for name, value in gates.items():
            net.blocks[block].get_parameter(name).data = value


@torch.no_grad()
def test_words_and_taps_have_no_order():
    net = tiny(taps=(0, 2, 1))
    _, cond = question(net)
    base, shuffle = answer(net, cond), torch.tensor([3, 0, 4, 2, 1])
    tap = cond.tokens["taps"].states[:, shuffle, :8]
    text = Tokens(cond.tokens["text"].states[:, shuffle], cond.tokens["text"].keep)
    for other in (with_tap(cond, 0, tap), Conditions({**cond.tokens, "text": text}, cond.vectors)):
        torch.testing.assert_close(answer(net, other), base, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_balance_loss_is_returned_and_trains_its_router(checkpointing: bool):
    net = tiny()
    net.checkpointing = checkpointing
    streams, cond = batch(net)
    out = net(streams, cond)
    assert list(out.aux) == [f"blocks.{2 * k + 2}.mlp.balance" for k in range(3)]
    sum(out.aux.values()).backward()
    routers = {n: p for n, p in net.named_parameters() if "router" in n}
    assert len(routers) == 3 and all(p.grad.any() for p in routers.values())
    for p in routers.values():
        p.data.zero_()
    assert all(loss.item() == pytest.approx(0.01, abs=1e-8) for loss in net(streams, cond).aux.values())
    assert not tiny(experts=0)(streams, cond).aux


def test_the_balance_does_not_hear_padding():
    net = tiny()
    streams, cond = batch(net, slice(0, 1))
    longer = Conditions({n: t.pad_to(9) for n, t in cond.tokens.items()}, cond.vectors)
    for name, value in net(streams, cond).aux.items():
        torch.testing.assert_close(net(streams, longer).aux[name], value)


@torch.no_grad()
def test_only_what_is_no_square_is_filled_up_and_more_than_full_is_refused():
    net, clean = tiny(filled=24), tiny(filled=0)
    for size in ((8, 8), (4, 12)):
        streams, cond = question(net, size)
        state = net.start(streams, cond)
        assert ("padding" in state.streams) == (size != (8, 8))
        same = torch.equal(net(streams, cond).pred["image"], clean(streams, cond).pred["image"])
        assert same == (size == (8, 8)), "padding is attended to"
    assert state["padding"].shape[1] == 24 - 12 and not (state["padding"] - net.patch.bias).any()
    assert net(*question(net, (12, 12))).pred["image"].shape[2:] == (12, 12), "a square may be larger"
    with pytest.raises(UsageError, match="5 x 6 tokens are more than the 24"):
        net(*question(net, (10, 12)))


@torch.no_grad()
def test_several_rows_equal_diffusers():
    theirs = peer("HiDreamImageTransformer2DModel", HIDREAM)
    _, net = ours_of(theirs)
    streams, cond = question(net, (6, 10))
    taps = torch.stack(cond.tokens["taps"].states.split(net.config.tap_width, dim=-1))
    t = 1000 * streams["image"].t
    expected = theirs(streams["image"].x, t, cond.tokens["text"].states, taps, cond.vectors["pooled"], return_dict=False)[0]
    assert error(net(streams, cond).pred["image"], expected) <= 1e-5


def test_how_diffusers_computes_experts_changes_nothing():
    theirs = peer("HiDreamImageTransformer2DModel", {**HIDREAM, "force_inference_output": True})
    plain = peer("HiDreamImageTransformer2DModel", HIDREAM)
    (_, net), (_, other) = ours_of(theirs), ours_of(plain)
    with torch.no_grad():
        assert torch.equal(asked(net, plain, (8, 8))[0], asked(other, plain, (8, 8))[0])


def test_what_makes_no_published_network_is_refused():
    form = formats.get("HiDreamImageTransformer2DModel")
    config = dict(peer("HiDreamImageTransformer2DModel", HIDREAM).config)
    for wrong, message in (
        ({"out_channels": 7}, "out_channels 7"),
        ({"caption_channels": None}, "caption_channels are"),
        ({"llama_layers": None}, "llama_layers are missing"),
    ):
        with pytest.raises(ConfigError, match=message):
            form.config({**config, **wrong})
    for shape in ({"filled": 0}, {"balance": 0.5}):
        with pytest.raises(ConfigError, match="fills up pictures"):
            form.published(tiny(**shape).config)
    assert form.published(tiny(filled=25).config)["max_resolution"] == [10, 10]
    assert form.config(form.published(tiny(filled=26).config))["filled"] == 26


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"axes": (4, 2)}, {"axes": (9, 4, 3)}, {"taps": (0, 1)}, {"taps": (0, 1, -1)}, {"balance": -1.0}, {"heads": 3}]
)
def test_impossible_shapes_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        tiny(**wrong)


def test_strangers_a_missing_time_and_too_few_layers_are_told():
    net = tiny()
    streams, cond = question(net)
    with pytest.raises(UsageError, match="noise level"):
        net({"image": Stream(torch.zeros(2, 4, 8, 8))}, cond)
    with pytest.raises(UsageError, match="cannot embed the stream 'layout'"):
        net({**streams, "layout": Stream(torch.zeros(2, 3, 12))}, cond)
    narrow = Conditions({**cond.tokens, "taps": Tokens(cond.tokens["taps"].states[..., :8], cond.tokens["taps"].keep)}, cond.vectors)
    with pytest.raises(UsageError, match="2 layers side by side, each 8 wide"):
        net(streams, narrow)
