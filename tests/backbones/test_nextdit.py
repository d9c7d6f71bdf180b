"""Next-DiT beyond the checks of `papers/lumina_next.py`; parity with diffusers stands in test_checkpoints.py."""

from pathlib import Path

import pytest
import torch
from tests.backbones.peers import NEXT, peer
from tests.builders import conditions, image
from torch import nn

from sfumato.backbones.checkpoints import formats
from sfumato.backbones.checkpoints.folder import load_denoiser
from sfumato.backbones.nextdit import NextDiT, NextDiTConfig, tiny
from sfumato.core.attention import Group
from sfumato.core.call import Call, Footprint, Session
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.errors import ConfigError, UsageError, WeightsError
from sfumato.core.state import Stream

SMALL = NextDiTConfig(depth=2, width=32, heads=4, kv_heads=2, hidden=48, text_width=12)


def words(lengths: list[int], seed: int = 0) -> Conditions:
    return Conditions(conditions(lengths, seed=seed).tokens, {})


def test_parameter_counts_of_the_sheet():
    with torch.device("meta"):
        net = NextDiT(NextDiTConfig())
        theirs = formats.get("LuminaNextDiT2DModel").published(net.config)
    count = sum(p.numel() for p in net.parameters())
    # Published as 1,754,898,976: the query and its norm twice, and a vector for padded pictures.
    assert count == 1_754_898_976 - 24 * (2304**2 + 2 * 2304) - 2304
    assert (theirs["multiple_of"], theirs["ffn_dim_multiplier"]) == (256, None)


def test_a_policy_with_a_plan_of_its_own_keeps_the_gate():
    """Read apart or joined into one softmax, the words stand behind their gate: closed, they are not heard."""

    class Own(Session):
        footprint = Footprint(frozenset({"attention"}))

        def __init__(self, *groups: Group) -> None:
            self.plan = {"image": groups}

        def attention(self, site, heads, attend, call):
            return attend(heads, self.plan)

    net, streams, cond = tiny(), image(), words([3, 5])
    apart, joined = Own(Group(("image",)), Group(("text",))), Own(Group(("image", "text")))
    assert torch.equal(net(streams, cond, Call((apart,))).pred["image"], net(streams, cond).pred["image"])
    assert not torch.allclose(net(streams, cond, Call((joined,))).pred["image"], net(streams, cond).pred["image"], atol=1e-4)
    louder = [net(streams, cond, Call((apart,))).pred["image"]]
    for block in net.blocks:
        block.attention.core.gate.data.mul_(3.0)
    louder.append(net(streams, cond, Call((apart,))).pred["image"])
    assert not torch.allclose(*louder, atol=1e-4)
    for block in net.blocks:
        nn.init.zeros_(block.attention.core.gate)
    alone = net(streams, cond, Call((Own(Group(("image",))),))).pred["image"]
    torch.testing.assert_close(net(streams, cond, Call((apart,))).pred["image"], alone)


def test_with_closed_gates_only_the_mean_of_the_words_is_heard():
    net, streams, cond = tiny(), image(), words([4, 4])
    order = torch.tensor([2, 0, 3, 1])
    text = cond.tokens["text"]
    double = Conditions({"text": Tokens(2.0 * text.states - text.states.mean(1, keepdim=True), text.keep)}, {})
    assert not torch.allclose(net(streams, cond).pred["image"], net(streams, double).pred["image"], atol=1e-5)
    for block in net.blocks:
        nn.init.zeros_(block.attention.core.gate)
    plain = net(streams, cond).pred["image"]
    torch.testing.assert_close(net(streams, double).pred["image"], plain, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        net(streams, Conditions({"text": Tokens(text.states[:, order], text.keep)}, {})).pred["image"], plain, atol=1e-6, rtol=1e-5
    )
    nn.init.zeros_(net.caption.weight)
    torch.testing.assert_close(net(streams, words([2, 1], seed=5)).pred["image"], net(streams, words([3, 5])).pred["image"])


@torch.no_grad()
@pytest.mark.parametrize("loud", [1.0, 1e3])
def test_no_branch_adds_more_than_its_norm(loud: float):
    net = tiny()
    for block in net.blocks:
        for branch in (block.attention, block.mlp):
            nn.init.normal_(branch.modulation.linear.weight, std=loud)
    state = net.start(image(), words([3, 5]))
    for info in net.sites():
        branch = net.get_submodule(str(info.site))
        deltas, raw, _, _ = branch(state, info.site, None)
        assert bool((deltas["image"].abs() <= raw["image"].abs() * (1 + 1e-6)).all())
        root_mean_square = (raw["image"] / branch.after.weight).square().mean(-1).sqrt()
        assert float(root_mean_square.max()) <= 1 + 1e-5


def test_equal_heads_of_keys_are_one_head():
    """Grouped queries: copying a head of keys and values into two serves the same queries."""
    grouped, full = tiny(kv_heads=2, qk_norm=False), tiny(kv_heads=4, qk_norm=False)
    weights = grouped.state_dict()
    for name in weights:
        if name.endswith(("core.own.k.weight", "core.own.v.weight", "core.k.weight", "core.v.weight")):
            weights[name] = weights[name].unflatten(0, (2, 8)).repeat_interleave(2, 0).flatten(0, 1)
    full.load_state_dict(weights)
    torch.testing.assert_close(full(image(), words([3, 5])).pred["image"], grouped(image(), words([3, 5])).pred["image"])


def test_a_denoiser_turns_lumina_s_clock_and_sign(tmp_path: Path):
    theirs = peer("LuminaNextDiT2DModel", NEXT)
    theirs.save_pretrained(tmp_path)
    denoiser = load_denoiser(tmp_path)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.7])
    cond = Conditions({"text": Tokens(torch.randn(2, 5, 10), torch.ones(2, 5, dtype=torch.bool))})
    raw = denoiser.net({"image": Stream(x, t=1 - t)}, cond).pred["image"]
    torch.testing.assert_close(denoiser.flow(x, t, cond), -raw)
    torch.testing.assert_close(denoiser.x0(x, t, cond), x + t[:, None, None, None] * raw)


def test_copies_that_differ_and_configs_that_make_no_network_are_refused():
    theirs, form = peer("LuminaNextDiT2DModel", NEXT), formats.get("LuminaNextDiT2DModel")
    weights = {**theirs.state_dict(), "layers.1.attn2.to_q.weight": torch.zeros(48, 48)}
    config = NextDiTConfig(**form.config(dict(theirs.config)))
    with pytest.raises(WeightsError, match=r"layers\.1\.attn2\.to_q\.weight differs from layers\.1\.attn1\.to_q\.weight"):
        dict(form.to_ours(config, weights))
    with pytest.raises(ConfigError, match="num_kv_heads is None"):
        form.config({**theirs.config, "num_kv_heads": None})


def test_without_the_sandwich_branches_are_adaln_zeros_and_no_class_of_diffusers_has_them():
    open_net, bounded = tiny(sandwich=False), tiny()
    names = {n for n, _ in bounded.named_parameters()} - {n for n, _ in open_net.named_parameters()}
    assert names == {f"blocks.{i}.{branch}.after.weight" for i in (0, 1) for branch in ("attention", "mlp")}
    state = open_net.start(image(), words([3, 5]))
    info = open_net.sites()[0]
    deltas, raw, _, lent = open_net.get_submodule(str(info.site))(state, info.site, None)
    torch.testing.assert_close(deltas["image"], lent["image.gate"] * raw["image"])
    torch.testing.assert_close(lent["image.gate"], open_net.blocks[0].attention.modulation(state.cond["c"], None)[1])
    with pytest.raises(ConfigError, match="sandwiched"):
        formats.get("LuminaNextDiT2DModel").published(open_net.config)


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"width": 36}, {"kv_heads": 3}, {"kv_heads": 0}, {"eps": 0.0}, {"hidden": 0}])
def test_impossible_shapes_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        NextDiTConfig(**{"width": 32, "heads": 4, "kv_heads": 2, **wrong})


def test_strangers_and_a_missing_time_are_told():
    net = tiny()
    with pytest.raises(UsageError, match="noise level"):
        net({"image": Stream(torch.zeros(1, 4, 8, 8))}, words([2]))
    with pytest.raises(UsageError, match="cannot embed the stream 'layout'"):
        net({**image(1), "layout": Stream(torch.zeros(1, 3, 12))}, words([2]))
    with pytest.raises(UsageError, match="nearest is 8 x 8"):
        net({"image": Stream(torch.zeros(1, 4, 7, 8), t=torch.tensor([0.5]))}, words([2]))
