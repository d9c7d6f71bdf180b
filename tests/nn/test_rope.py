"""Rotary scalings: the exact checks of the Lumina-Next and UltraFlux sheets, and parity with transformers and diffusers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.nn.positions import Rotary, rotary_rates
from sfumato.nn.rope import (
    RULES,
    Rule,
    Stretch,
    by_parts,
    frequency_aware,
    interpolated,
    magnitude,
    ntk,
    plain,
    proportional,
    resonant,
    stretched,
    switched,
    time_aware,
    yarn,
)

PLACES = [0, 1, 4, 8, 17]


def lumina(scale: float, t: float = 0.0) -> Stretch:
    """Lumina-Next's rows: 36 of a head's 72 channels, 64 tokens a side; t is ours, 1 = noise."""
    return Stretch(36, scale, 64, torch.tensor([t]), head=72)


@pytest.mark.parametrize(
    ("rule", "t", "expected"),
    [
        (ntk, 0.0, [1, 0.96222, 0.85724, 0.73487, 0.51963]),
        (frequency_aware, 0.0, [1, 0.85829, 0.54268, 0.5, 0.5]),
        (time_aware, 0.5, [1, 0.92685, 0.73797, 0.54461, 0.5]),
        (time_aware, 1.0, [1, 0.5, 0.5, 0.5, 0.5]),
        (time_aware, 0.0, [1, 0.96222, 0.85724, 0.73487, 0.51963]),
        (interpolated, 0.0, [0.5] * 5),
        (switched, 0.71, [0.5] * 5),
        (switched, 0.69, [1, 0.96222, 0.85724, 0.73487, 0.51963]),
    ],
)
def test_the_ratios_of_the_lumina_next_sheet(rule: Rule, t: float, expected: list[float]):
    axis = lumina(2.0, t)
    torch.testing.assert_close((rule(axis) / plain(axis))[0, PLACES], torch.tensor(expected).double(), atol=6e-6, rtol=0)


@pytest.mark.parametrize(("width", "theta", "trained", "critical"), [(72, 1e4, 64, 18.1440), (24, 5.0, 16, 13.938)])
def test_the_wave_that_turns_once_is_slowed_by_the_scale(width: int, theta: float, trained: int, critical: float):
    assert width * math.log(trained / (2 * math.pi), theta) == pytest.approx(critical, abs=1e-3)
    axis = Stretch(width, 1.25, trained, theta=theta)
    # The base's ratio, read off k = 1, whose rate is base^(-2 / d).
    base = float(frequency_aware(axis)[0, 1] / plain(axis)[0, 1]) ** (-width / 2)
    assert base ** (critical / width) == pytest.approx(1.25, rel=1e-4)


@pytest.mark.parametrize("rule", [*RULES.values(), by_parts])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_at_the_trained_size_every_rule_gives_the_trained_rates_bit_for_bit(rule: Rule, t: float):
    assert torch.equal(rule(lumina(1.0, t)), plain(lumina(1.0, t)))


@given(scale=st.floats(1.0, 8.0), width=st.sampled_from([8, 36, 56]), t=st.floats(0.0, 1.0))
def test_no_wave_is_slowed_by_more_than_the_scale_nor_sped_up(scale: float, width: int, t: float):
    axis = Stretch(width, scale, 64, torch.tensor([t]), head=2 * width)
    for name, rule in RULES.items():
        ratio = rule(axis) / (resonant(axis) if name in ("resonant-yarn", "blended") and scale > 1 else plain(axis))
        assert float(ratio.min()) >= 1 / scale - 1e-9 and float(ratio.max()) <= 1 + 1e-9, name
        assert bool((rule(axis).diff() <= 0).all()), "faster waves stay faster"


def test_no_two_rules_are_the_same():
    found = [rule(Stretch(56, 2.0, 64, torch.tensor([0.8]), head=128)) for rule in RULES.values()]
    known = dict(zip(RULES, found, strict=True))
    assert torch.equal(known.pop("switched"), known["interpolated"]), "early on"
    assert all(not torch.equal(known[a], known[b]) for a in known for b in known if a != b)
    assert torch.equal(frequency_aware(Stretch(8, 2.0, 4)), interpolated(Stretch(8, 2.0, 4))), "no wave turns once in four tokens"


def test_resonance_of_the_ultraflux_sheet():
    axis = Stretch(56, 2.0, 64)
    turns = [10.186, 7.331, 5.276, 3.797, 2.733, 1.967, 1.415, 1.019]
    torch.testing.assert_close(axis.turns[0, :8], torch.tensor(turns).double(), atol=6e-4, rtol=0)
    assert float(axis.turns[0, 8]) < 1
    snapped = resonant(axis)[0]
    torch.testing.assert_close(64 * snapped[:8] / (2 * math.pi), torch.tensor([10, 7, 5, 4, 3, 2, 1, 1]).double())
    assert torch.equal(snapped[8:], plain(axis)[0, 8:]) and len(snapped.unique()) == 27
    torch.testing.assert_close(torch.cos(64 * snapped[:8]), torch.ones(8).double())
    error = (64 * plain(axis)[0, :4]).remainder(2 * math.pi)
    error = torch.minimum(error, 2 * math.pi - error)
    torch.testing.assert_close(error, torch.tensor([1.168, 2.078, 1.733, 1.276]).double(), atol=6e-4, rtol=0)


def test_yarn_as_ultraflux_prints_it():
    axis = Stretch(56, 2.0, 64)
    mixed = by_parts(axis, 0.75, 1.25, of=resonant) / resonant(axis)
    torch.testing.assert_close(mixed[0, :8], torch.tensor([1.0] * 6 + [0.75] * 2).double())


@pytest.mark.parametrize(("width", "trained", "scale"), [(64, 2048, 4.0), (56, 512, 2.0), (128, 4096, 8.0)])
def test_yarn_and_ntk_equal_transformers(width: int, trained: int, scale: float):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    def theirs(kind: str, **more: float) -> tuple[torch.Tensor, float]:
        parameters = {"rope_type": kind, "rope_theta": 1e4, "factor": scale, "original_max_position_embeddings": trained, **more}
        config = LlamaConfig(hidden_size=width, num_attention_heads=1, max_position_embeddings=trained, rope_parameters=parameters)
        return ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=trained)

    axis = Stretch(width, scale, trained)
    for slow, fast in ((1, 32), (2, 16)):
        found, factor = theirs("yarn", beta_slow=slow, beta_fast=fast)
        torch.testing.assert_close(yarn(axis, slow, fast)[0].float(), found, rtol=1e-6, atol=0)
        assert factor == pytest.approx(magnitude(scale))
    # At `seq_len` = s L and factor 1, transformers' dynamic base is theta s^(d / (d - 2)).
    parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 1.0}
    config = LlamaConfig(hidden_size=width, num_attention_heads=1, max_position_embeddings=trained, rope_parameters=parameters)
    found, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, torch.device("cpu"), seq_len=int(scale * trained))
    torch.testing.assert_close(ntk(axis, width / (width - 2))[0].float(), found, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("linear", "base"), [(1.0, 1.0), (2.0, 1.0), (1.0, 1.5)])
def test_rotation_on_interleaved_axes_equals_diffusers_lumina(linear: float, base: float):
    from diffusers.models.embeddings import apply_rotary_emb, get_2d_rotary_pos_embed_lumina

    rotary, x = Rotary((12, 12), interleaved=True), torch.randn(2, 3, 15, 24)
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(5.0), indexing="ij")
    pos = torch.stack([rows, columns], dim=-1).view(1, -1, 2)
    table = get_2d_rotary_pos_embed_lumina(24, 8, 8, linear_factor=linear, ntk_factor=base)[:3, :5].flatten(0, 1)[None]
    theirs = apply_rotary_emb(x.transpose(1, 2), table, use_real=False).transpose(1, 2)
    axis = Stretch(12, linear * base, 4)
    rates = rotary.arranged([(interpolated if linear > 1 else ntk)(axis)] * 2)
    torch.testing.assert_close(rotary(x, pos, rates), theirs, atol=2e-6, rtol=1e-5)


def test_each_axis_is_stretched_by_its_own_length_or_all_by_the_area():
    rotary, t = Rotary((4, 6, 6)), torch.tensor([0.9, 0.1])
    wide = stretched(rotary, RULES["interpolated"], (8, 16), 8, t, apart=True)[0]
    plain_axes = rotary.rates()[0]
    assert torch.equal(wide[:5], plain_axes[:5]) and torch.equal(wide[5:], plain_axes[5:] / 2), "the wide side leaves the others alone"
    shared = stretched(rotary, RULES["interpolated"], (8, 16), 8, t)[0]
    assert torch.equal(shared[:2], plain_axes[:2])
    torch.testing.assert_close(shared[2:], plain_axes[2:] / 2**0.5)
    assert torch.equal(stretched(rotary, RULES["time"], (4, 6), 8, t), rotary.rates()), "a smaller picture is as trained"
    rows = stretched(rotary, RULES["time"], (16, 16), 8, t)
    assert rows.shape == (2, 8) and not torch.equal(rows[0], rows[1]), "each row by its own noise level"
    alternating = stretched(Rotary((8, 8), interleaved=True), RULES["ntk"], (8, 16), 8, t, apart=True)[0]
    assert torch.equal(alternating[::2], rotary_rates(8)[0]) and not torch.equal(alternating[1::2], rotary_rates(8)[0])


def test_factors_of_the_sheets():
    assert proportional(16_384, 4096) == pytest.approx(1.080123, abs=1e-6)
    assert proportional(256, 64) == pytest.approx(1.154701, abs=1e-6)
    assert proportional(4096, 4096) == 1.0 and magnitude(1.0) == magnitude(0.5) == 1.0
    assert magnitude(2.0) == pytest.approx(1.0693, abs=1e-4)
