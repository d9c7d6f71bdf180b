"""UniDiffuser's own: counts of the paper, norms after the sums, two times, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from tests.backbones.gate import batch

from sfumato.backbones.unidiffuser import UniDiffuser, UniDiffuserConfig, tiny
from sfumato.core.blocks import Block
from sfumato.core.conditions import Conditions
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.state import Stream
from sfumato.nn.rewires import Merge


def test_the_published_sizes():
    with torch.device("meta"):
        v1, v0 = UniDiffuser(UniDiffuserConfig()), UniDiffuser(UniDiffuserConfig(kinds=False))
    assert v0.positions.shape[1] == 1104 and v1.positions.shape[1] + 1 == 1105
    assert sum(isinstance(item, Merge) for item in v1.blocks) == 15 and sum(isinstance(item, Block) for item in v1.blocks) == 31
    count = sum(p.numel() for p in v1.parameters())
    assert count == sum(p.numel() for p in v0.parameters()) + 3 * 1536 and count // 10**6 == 952


@torch.no_grad()
def test_every_block_ends_with_a_norm():
    net = UniDiffuser(tiny().config)
    streams, cond = batch(net)
    state = net.start(streams, cond)
    for item in net.blocks:
        state = item(state)
        if isinstance(item, (Block, Merge)):
            tokens = torch.cat([state[name] for name in state.streams], dim=1)
            torch.testing.assert_close(tokens.mean(-1), torch.zeros(tokens.shape[:2]), rtol=0, atol=1e-5)
            torch.testing.assert_close(tokens.std(-1, correction=0), torch.ones(tokens.shape[:2]), rtol=0, atol=1e-3)


@torch.no_grad()
def test_both_times_and_the_kind_are_heard():
    net = tiny()
    streams, _ = batch(net)
    kinds = Conditions(scalars={"kind": torch.tensor([0, 1, 0, 1])})
    plain = net(streams, kinds).pred
    later = replace(streams["text"], t=torch.ones(4))
    earlier = {**streams, "image": replace(streams["image"], t=torch.zeros(4)), "clip": replace(streams["clip"], t=None)}
    other = net(streams, Conditions(scalars={"kind": torch.tensor([1, 1, 0, 1])})).pred
    for found in (net({**streams, "text": later}, kinds).pred, net(earlier, kinds).pred):
        assert all(not torch.allclose(found[name], plain[name], atol=1e-4) for name in plain)
    for name in plain:
        assert torch.allclose(other[name][1:], plain[name][1:], atol=1e-5) and not torch.allclose(other[name][0], plain[name][0], atol=1e-4)
    # A picture of another shape takes interpolated positions.
    wide = {**streams, "image": Stream(torch.randn(4, 4, 4, 12), t=streams["image"].t)}
    assert net(wide, kinds).pred["image"].shape == (4, 4, 4, 12)


def test_what_cannot_be_is_told():
    net = tiny()
    streams, _ = batch(net)
    cond = Conditions(scalars={"kind": torch.ones(4, dtype=torch.long)})
    wrong: list[tuple[dict[str, Stream], str]] = [
        ({name: s for name, s in streams.items() if name != "clip"}, "without the stream 'clip'"),
        ({**streams, "text": replace(streams["text"], t=None)}, "text stream has no noise level"),
        ({**streams, "text": replace(streams["text"], x=torch.zeros(4, 3, 12))}, "3 tokens"),
        ({**streams, "clip": replace(streams["clip"], t=torch.zeros(4))}, "another noise level"),
        ({**streams, "layout": streams["clip"]}, "'layout'"),
    ]
    for given, told in wrong:
        with pytest.raises(UsageError, match=told):
            net(given, cond)
    with pytest.raises(UsageError, match="kinds are"):
        net(streams, Conditions(scalars={"kind": torch.tensor([0, 1, 2, 1])}))
    for shape in ({"depth": 3}, {"words": 0}, {"width": 33}):
        with pytest.raises(ConfigError):
            tiny(**shape)
