"""PixArt beyond the checks of `papers/pixart_alpha.py` and `pixart_sigma.py`; parity with diffusers stands in test_checkpoints.py."""

from pathlib import Path

import pytest
import torch
from tests.backbones.peers import PIXART, peer
from tests.builders import conditions, image
from torch.nn.functional import avg_pool2d, layer_norm

from sfumato.backbones.checkpoints.folder import load_denoiser
from sfumato.backbones.pixart import PixArtConfig, tiny
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.state import Stream
from sfumato.nn.projections import Reducer


def words(lengths: list[int], seed: int = 0) -> Conditions:
    return Conditions(conditions(lengths, seed=seed).tokens, {})


def test_a_table_reproduces_any_dense_modulation_at_one_time():
    """E_i = S_i - t0 for given vectors S_i at a fixed t: every block then modulates exactly by S_i."""
    net, cond = tiny(), words([4])
    streams = image(1, t=0.5)
    t0 = net.condition(streams, cond, None)["t0"][0]
    for block in net.blocks:
        wanted = torch.randn(6, 24)
        for branch, rows in ((block.attention, slice(0, 3)), (block.mlp, slice(3, 6))):
            branch.modulation.table.data = wanted[rows] - t0[rows]
            got = torch.cat(branch.modulation(net.condition(streams, cond, None)["t0"][:, rows]), dim=1)[0]
            torch.testing.assert_close(got, wanted[rows], atol=1e-6, rtol=1e-6)


def test_a_new_reducer_is_a_layer_norm_of_the_average():
    reducer, keys = Reducer(12, 2), torch.randn(3, 24, 12)
    pooled = avg_pool2d(keys.transpose(1, 2).unflatten(2, (4, 6)), 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(
        reducer.conv(keys.transpose(1, 2).unflatten(2, (4, 6))).flatten(2).transpose(1, 2), pooled, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(reducer(keys, (4, 6)), layer_norm(pooled, (12,)))
    with pytest.raises(UsageError, match="3 x 8"):
        reducer(keys, (3, 8))


def test_a_dropped_caption_is_heard_as_nothing():
    """A row without words gets nothing from cross-attention, not a number that is none."""
    net, streams = tiny(), image(2)
    cond = words([3, 4])
    cond.tokens["text"].keep[0] = False
    assert all(p.isfinite().all() for p in net(streams, cond).pred.values())
    state = net.start(streams, cond)
    delta = net.blocks[0].cross(state, net.sites()[1].site, None)[0]["image"]
    torch.testing.assert_close(delta[0], net.blocks[0].cross.core.out.bias.expand_as(delta[0]))
    assert not torch.allclose(delta[1], delta[0])


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"width": 25}, {"heads": 5}, {"span": 0.0}, {"compress": (9,)}, {"width": 32, "sizes": True}]
)
def test_impossible_shapes_are_refused(wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        PixArtConfig(**{"depth": 2, "width": 24, "heads": 2, **wrong})


def test_strangers_and_a_missing_time_are_told():
    net = tiny()
    with pytest.raises(UsageError, match="noise level"):
        net({"image": Stream(torch.zeros(1, 4, 8, 8))}, words([2]))
    with pytest.raises(UsageError, match="cannot embed the stream 'layout'"):
        net({**image(1), "layout": Stream(torch.zeros(1, 3, 12))}, words([2]))
    with pytest.raises(UsageError, match="nearest is 8 x 8"):
        net({"image": Stream(torch.zeros(1, 4, 7, 8), t=torch.tensor([0.5]))}, words([2]))


@torch.no_grad()
def test_a_published_transformer_predicts_eps_of_whole_steps_and_a_variance(tmp_path: Path):
    """At t = (k + 1) / 1000 it is told k, and its variance channels are no part of the prediction."""
    theirs = peer("PixArtTransformer2DModel", PIXART)
    theirs.save_pretrained(tmp_path)
    denoiser = load_denoiser(tmp_path)
    assert (denoiser.meaning.prediction, denoiser.meaning.time_map) == ("eps", "steps")
    x, words, keep = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 10), torch.ones(1, 5, dtype=torch.bool)
    told = theirs(x, encoder_hidden_states=words, timestep=torch.tensor([951]), encoder_attention_mask=keep.long(), added_cond_kwargs={})
    view = denoiser.view(x, torch.tensor([0.952]), Conditions({"text": Tokens(words, keep)}))
    torch.testing.assert_close(view.eps, told.sample[:, :4], rtol=1e-4, atol=1e-5)
