"""FLUX's sizes, its rotary positions and its single-stream blocks; parity with diffusers stands in test_checkpoints.py."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import conditions, image
from torch import Tensor

from sfumato.backbones.flux import Flux, FluxConfig, tiny
from sfumato.core.attention import Attend, Group, Heads
from sfumato.core.call import Call, Footprint, Session, Site
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.state import Stream
from sfumato.nn.embeddings import pack, unpack
from sfumato.nn.positions import Rotary, grid_coordinates


@pytest.mark.parametrize(("guided", "count"), [(True, 11_901_408_320), (False, 11_891_178_560)])
def test_parameter_counts_of_dev_and_schnell(guided: bool, count: int):
    with torch.device("meta"):
        net = Flux(FluxConfig(guided=guided))
    assert sum(p.numel() for p in net.parameters()) == count


def test_a_new_network_answers_zero_and_every_block_is_the_identity():
    torch.manual_seed(0)
    net = Flux(FluxConfig(dual=1, single=1, width=32, heads=2, channels=4, axes=(4, 6, 6), text_width=12, pooled_width=6, guided=False))
    streams, cond = image(), conditions([3, 5])
    assert not net(streams, cond).pred["image"].any()
    state = net.start(streams, cond)
    after = net.run(state, 0, 2)
    assert torch.equal(after["image"], state["image"]) and torch.equal(after["text"], state["text"]) and state["image"].any()


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_packing_is_undone(rows: int, columns: int, patch: int, channels: int):
    latents = torch.randn(2, channels, rows * patch, columns * patch)
    tokens = pack(latents, patch)
    assert tokens.shape == (2, rows * columns, channels * patch**2)
    assert torch.equal(unpack(tokens, (rows, columns), patch), latents)
    assert torch.equal(tokens[:, 0], latents[:, :, :patch, :patch].flatten(1)), "channels first within a patch"


def test_a_rotation_keeps_lengths_and_sees_only_distances():
    turn = Rotary((4, 6, 6))
    q, k = torch.randn(2, 1, 2, 1, 16)
    here, there = torch.tensor([[[0.0, 3.0, 1.0]]]), torch.tensor([[[0.0, 5.0, 8.0]]])
    far = torch.tensor([[[7.0, 40.0, 9.0]]])
    torch.testing.assert_close(turn(q, here).norm(), q.norm())
    scores = [(turn(q, here + shift) * turn(k, there + shift)).sum() for shift in (0, far)]
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-4)
    assert torch.equal(turn(q, torch.zeros(1, 1, 3)), q)
    assert not torch.allclose(scores[0], (turn(q, here) * turn(k, there + far)).sum())


def test_words_sit_at_the_origin_and_tokens_on_their_rows_and_columns():
    state = tiny().start(image(1, 4, 4, 6), conditions([3]))
    assert not state.streams["text"].pos.any()
    assert torch.equal(state.streams["image"].pos, grid_coordinates(2, 3))
    assert state.streams["image"].pos[0, 4].tolist() == [0, 1, 1]


def test_both_cores_of_a_single_block_read_the_same_tokens_under_one_gate():
    net = tiny()
    state, block = net.start(image(1), conditions([3])), net.blocks[2]
    site = next(i.site for i in net.sites() if i.site.block == 2)
    deltas, _, _, lent = block.attention(state, site, None)
    seen = type(state)(state.streams, {**state.cond, **{f"attention.{n}": x for n, x in lent.items()}})
    other = block.mlp(seen, site, None)[0]
    after = block(state)
    for name in ("image", "text"):
        torch.testing.assert_close(after[name], state[name] + deltas[name] + other[name])
        expected = lent[f"{name}.gate"] * block.mlp.core["any"](lent[name])
        torch.testing.assert_close(other[name], expected)


def test_the_last_text_is_read_and_not_written():
    """Parity with diffusers, which computes it and drops it, says that the picture is the same."""
    net = tiny()
    state = net.start(image(1), conditions([3]))
    last = len(net.blocks) - 1
    before = net.run(state, 0, last)
    after = net.run(before, last, last + 1)
    assert torch.equal(after["text"], before["text"]) and not torch.equal(after["image"], before["image"])
    other = replace(before.streams["text"], x=before["text"].flip(-1))
    assert not torch.allclose(net.run(before.attach("text", other), last, last + 1)["image"], after["image"])


@torch.no_grad()
def test_a_policy_that_makes_plans_finds_the_last_texts_queries_too():
    seen: dict[int, dict[str, int]] = {}

    class Planner(Session):
        footprint = Footprint(frozenset({"attention"}))

        def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
            seen[site.block] = {name: each.q.shape[2] for name, each in heads.items()}
            return attend(heads, {name: [Group(("text", "image"))] for name in heads})

    net, streams, cond = tiny(), image(1), conditions([3])
    planned = net(streams, cond, Call((Planner(),))).pred["image"]
    torch.testing.assert_close(planned, net(streams, cond).pred["image"])
    assert seen == {i: {"text": 3, "image": 16} for i in range(len(net.blocks))}


@pytest.mark.parametrize("wrong", [{"width": 33}, {"axes": (4, 6, 5)}, {"axes": (8, 8)}, {"axes": (3, 7, 6)}, {"dual": -1}])
def test_impossible_shapes_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        FluxConfig(**{"width": 32, "heads": 2, "axes": (4, 6, 6), **wrong})


def test_strangers_and_a_missing_time_are_told():
    net = tiny()
    with pytest.raises(UsageError, match="noise level"):
        net({"image": Stream(torch.zeros(1, 4, 8, 8))}, conditions([2]))
    with pytest.raises(UsageError, match="cannot embed the stream 'layout'"):
        net({**image(1), "layout": Stream(torch.zeros(1, 3, 12))}, conditions([2]))
