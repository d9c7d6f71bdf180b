"""The exact checks of the U-ViT sheet."""

from dataclasses import replace

import pytest
import torch
from tests.builders import conditions, image
from torch import Tensor, nn

from sfumato.backbones.uvit import UViT, UViTConfig, tiny
from sfumato.core.conditions import Conditions
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.program import Block
from sfumato.core.state import Stream
from sfumato.nn.rewires import Merge, Push


def words(lengths: list[int], seed: int = 0) -> Conditions:
    return Conditions(conditions(lengths, seed=seed).tokens, {})


@pytest.mark.parametrize(("changes", "count"), [({}, 44_692_644), ({"depth": 16}, 58_345_636), ({"skips": False}, 44_692_644 - 3_148_800)])
def test_parameter_counts_of_the_paper(changes: dict[str, object], count: int):
    with torch.device("meta"):
        net = UViT(UViTConfig(**changes))
    assert sum(p.numel() for p in net.parameters()) == count


def without_skips(net: UViT) -> UViT:
    bare = UViT(replace(net.config, skips=False))
    weights = {n: p for n, p in net.state_dict().items() if not n.startswith("blocks.")}
    for number, block in enumerate(b for b in net.blocks if isinstance(b, Block)):
        weights |= {f"blocks.{number}.{n}": p for n, p in block.state_dict().items()}
    bare.load_state_dict(weights)
    return bare


def merged(net: UViT, of_skip: float) -> UViT:
    for item in net.blocks:
        if isinstance(item, Merge):
            eye = torch.eye(net.config.width)
            item.linear.weight.data = torch.cat([eye, of_skip * eye], dim=1)
            nn.init.zeros_(item.linear.bias)
    return net


@torch.no_grad()
def test_a_merge_that_ignores_its_skip_leaves_the_plain_network_and_one_that_sums_adds_it():
    net, cond, streams = tiny(depth=4), words([4, 3]), image()
    bare = without_skips(net)
    torch.testing.assert_close(merged(net, 0.0)(streams, cond).pred["image"], bare(streams, cond).pred["image"])
    merged(net, 1.0)
    state = net.start(streams, cond)
    for item in net.blocks:
        if isinstance(item, Merge):
            kept = state.skips[-1]
            wanted = {n: state[n] + kept[n].x for n in kept}
            state = item(state)
            for name, value in wanted.items():
                torch.testing.assert_close(state[name], value)
        else:
            state = item(state)


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
def test_without_positions_and_smoothing_moving_patches_moves_the_answer():
    net, cond = tiny(smooth=False), words([4])
    nn.init.zeros_(net.positions)
    x, order = image(1)["image"].x, torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def moved(latents: Tensor) -> Tensor:
        cells = latents.unfold(2, 2, 2).unfold(3, 2, 2).flatten(2, 3)[:, :, order]
        return cells.unflatten(2, (4, 4)).permute(0, 1, 2, 4, 3, 5).reshape(latents.shape)

    t = torch.tensor([0.4])
    plain, shuffled = (net({"image": Stream(v, t=t)}, cond).pred["image"] for v in (x, moved(x)))
    torch.testing.assert_close(shuffled, moved(plain))


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
