"""U-ViT beyond the checks of `papers/uvit_scaling.py`."""

import pytest
import torch
from tests.builders import conditions, image

from sfumato.backbones.uvit import UViT, UViTConfig, tiny
from sfumato.core.blocks import Block
from sfumato.core.conditions import Conditions
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.state import Stream
from sfumato.nn.rewires import Merge, Push


def words(lengths: list[int], seed: int = 0) -> Conditions:
    return Conditions(conditions(lengths, seed=seed).tokens, {})


def test_skips_are_last_in_first_out():
    net = tiny(depth=4)
    kinds = [type(item) for item in net.blocks]
    assert kinds == [Block, Push, Block, Push, Block, Merge, Block, Merge, Block]
    state, outputs = net.start(image(), words([4, 3])), []
    for item in net.blocks[:4]:
        state = item(state)
        outputs.append(state["image"])
    assert torch.equal(state.skips[-1]["image"].x, outputs[2]) and torch.equal(state.skips[0]["image"].x, outputs[0])
    assert not net.run(state, 4, len(net.blocks)).skips


@torch.no_grad()
def test_another_size_interpolates_the_picture_s_positions_only():
    net, cond = tiny(), words([4])
    larger = net.start(image(1, 4, 16, 8), cond)
    assert larger["image"].shape[1] == 32 and net(image(1, 4, 16, 8), cond).pred["image"].shape == (1, 4, 16, 8)
    same = net.start(image(1), cond)
    assert torch.equal(larger["text"], same["text"])
    net.positions[:, 17:] = 1.0
    torch.testing.assert_close(net._cells(net.positions[:, 17:], (8, 4)), torch.ones(1, 32, 32))


def test_nothing_starts_closed_and_bad_input_is_told():
    torch.manual_seed(0)
    net = UViT(UViTConfig(depth=2, width=32, heads=2, grid=4, words=6, text_width=12))
    assert net(image(), words([3, 5])).pred["image"].any()
    with pytest.raises(UsageError, match="has 7 tokens"):
        net(image(1), words([7]))
    with pytest.raises(UsageError, match="noise level"):
        net({"image": Stream(torch.zeros(1, 4, 8, 8))}, words([2]))
    with pytest.raises(UsageError, match="cannot embed the stream 'layout'"):
        net({**image(1), "layout": Stream(torch.zeros(1, 3, 12))}, words([2]))


@pytest.mark.parametrize("wrong", [{"depth": 3}, {"heads": 5}, {"width": 31}, {"words": 0}])
def test_impossible_shapes_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        UViTConfig(**{"depth": 2, "width": 32, "heads": 2, **wrong})
