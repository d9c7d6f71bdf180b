"""Embeddings, positions, norms, modulation, MLP: against formulas and diffusers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from sfumato.nn.embeddings import PatchEmbedding, TimeEmbedding, patchify, sinusoid, unpatchify
from sfumato.nn.linear import Linear, name_linears
from sfumato.nn.mlp import MLP, SwiGLU
from sfumato.nn.modulation import Modulation, modulate
from sfumato.nn.norms import LayerNorm, RMSNorm
from sfumato.nn.positions import cropped_coordinates, sincos_2d, spanning_coordinates


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_unpatchify_undoes_the_patch_layout(batch: int, rows: int, columns: int, patch: int, channels: int):
    x = torch.randn(batch, channels, rows * patch, columns * patch)
    # F.unfold walks patches row by row as the embedding's convolution does, channels first within a patch.
    tokens = F.unfold(x, patch, stride=patch).transpose(1, 2).unflatten(-1, (channels, patch * patch)).transpose(2, 3).flatten(2)
    assert torch.equal(unpatchify(tokens, (rows, columns), patch), x)
    assert torch.equal(patchify(x, patch), tokens)


def test_patches_are_embedded_in_the_order_that_unpatchify_reads():
    embed = PatchEmbedding(2, 8, 2)
    # A convolution that copies its patch, channels last: embedding and unpatchify are then inverse.
    embed.proj.weight.data = torch.eye(8).view(2, 2, 2, 8).permute(3, 2, 0, 1).contiguous()
    x = torch.randn(2, 2, 6, 4)
    torch.testing.assert_close(unpatchify(embed(x), (3, 2), 2), x)


@pytest.mark.parametrize("base", [4, 6])
def test_sincos_equals_diffusers_at_the_base_grid(base: int):
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    theirs = get_2d_sincos_pos_embed(24, base, base_size=base, interpolation_scale=1.0, output_type="pt")
    torch.testing.assert_close(sincos_2d(base, base, 24, base), theirs.float(), rtol=0, atol=1e-6)


def test_other_aspects_are_crops_of_one_plane():
    """A 4 x 8 picture's middle 4 x 4 tokens stand where a square picture's do."""
    square, wide = sincos_2d(4, 4, 16, 4).view(4, 4, 16), sincos_2d(4, 8, 16, 4).view(4, 8, 16)
    torch.testing.assert_close(wide[:, 2:6], square)
    assert cropped_coordinates(8, 4).tolist() == [-2, -1, 0, 1, 2, 3, 4, 5]
    # The sheet's formula, (p − (h_max − s) / 2) · 256 / S with S = 256 and s = 16.
    assert torch.equal(cropped_coordinates(24, 16), torch.arange(24) - 4.0)


@given(base=st.integers(1, 16), factor=st.integers(1, 4))
def test_spanning_positions_agree_on_places(base: int, factor: int):
    """A cell of the coarse grid lies in the middle of the fine cells that it covers, and the training size has whole numbers."""
    fine = spanning_coordinates(base * factor, base).view(base, factor)
    torch.testing.assert_close(fine.mean(1), spanning_coordinates(base, base))
    assert spanning_coordinates(base, base).tolist() == list(range(base))
    assert torch.equal(sincos_2d(base, base, 16, base, "span"), sincos_2d(base, base, 16, base))


def test_every_position_is_distinct():
    table = sincos_2d(8, 8, 32, 8)
    distance = torch.cdist(table, table) + 10 * torch.eye(64)
    assert float(distance.min()) > 0.1


def test_sinusoid_equals_diffusers_and_stays_fp32():
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0.0, 1.0, 250.5, 999.0])
    theirs = get_timestep_embedding(t, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoid(t, 256), theirs, rtol=0, atol=1e-4)
    assert sinusoid(t.bfloat16(), 8).dtype == torch.float32


def test_time_embedding_takes_rows_and_tokens():
    embed = TimeEmbedding(8)
    t = torch.rand(2, 3)
    torch.testing.assert_close(embed(t)[1, 2], embed(t[1])[2])
    assert embed(torch.rand(2)).shape == (2, 8)
    raw = TimeEmbedding(8, scale=1.0)
    raw.load_state_dict(embed.state_dict())
    torch.testing.assert_close(raw(1000.0 * t), embed(t))


def test_norms_equal_their_formulas():
    x = torch.randn(3, 5, 16) * 4 + 1
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(LayerNorm(16)(x), centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    norm = RMSNorm(16)
    norm.weight.data = torch.rand(16)
    torch.testing.assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight)


@pytest.mark.parametrize("norm", [LayerNorm(256), RMSNorm(256)])
def test_norms_keep_fp32_statistics_of_bf16(norm: torch.nn.Module):
    """A mean of 256 bf16 squares, accumulated in bf16, would be off by per cents."""
    x = (torch.randn(4, 256, generator=torch.Generator().manual_seed(0)) * 3 + 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        low = norm(x)
    torch.testing.assert_close(low.float(), norm(x.float()), rtol=0.01, atol=0.02)


def test_modulation_starts_as_the_identity_and_takes_tokens():
    layer, x = Modulation(8, 3), torch.randn(2, 5, 8)
    shift, scale, gate = layer(torch.randn(2, 8))
    assert shift.shape == (2, 1, 8) and torch.equal(modulate(x, shift, scale), x) and not gate.any()
    assert layer(torch.randn(2, 5, 8))[0].shape == (2, 5, 8)
    torch.testing.assert_close(modulate(x, torch.tensor(2.0), torch.tensor(0.5)), 1.5 * x + 2)


def test_modulation_chunks_are_shift_scale_gate_of_silu():
    layer, c = Modulation(4, 3), torch.randn(2, 4)
    torch.nn.init.normal_(layer.linear.weight)
    expected = F.linear(F.silu(c), layer.linear.weight, layer.linear.bias)
    torch.testing.assert_close(torch.cat([v[:, 0] for v in layer(c)], -1), expected)


def test_mlp_equals_its_formula():
    mlp, x = MLP(4, 16), torch.randn(2, 3, 4)
    torch.testing.assert_close(mlp(x), mlp.down(F.gelu(mlp.up(x), approximate="tanh")))
    exact = MLP(4, 16, "none")
    exact.load_state_dict(mlp.state_dict())
    assert not torch.equal(exact(x), mlp(x)) and torch.allclose(exact(x), mlp(x), atol=1e-2)


def test_swiglu_equals_its_formula_and_diffusers():
    from diffusers.models.attention import LuminaFeedForward

    mlp, theirs, x = SwiGLU(4, 16), LuminaFeedForward(4, 16, multiple_of=16), torch.randn(2, 3, 4)
    for ours, name in ((mlp.gate, "linear_1"), (mlp.up, "linear_3"), (mlp.down, "linear_2")):
        theirs.get_submodule(name).weight.data = ours.weight.data
    torch.testing.assert_close(mlp(x), mlp.down(F.silu(mlp.gate(x)) * mlp.up(x)))
    torch.testing.assert_close(mlp(x), theirs(x))


def test_linears_know_their_full_names():
    net = torch.nn.ModuleDict({"a": MLP(4, 8), "b": Linear(4, 4, "head")})
    name_linears(net)
    assert net["a"].up.name == "a.up" and net["b"].name == "b" and net["b"].role == "head"
