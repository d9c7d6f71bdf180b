"""Time laws: the sheet's exact values, and agreement of samples, densities and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from sfumato.core.errors import ConfigError, UnknownNameError
from sfumato.objectives.times import LAWS, CosMap, LogitNormal, Mode, TimeLaw, Uniform, law

EVERY = [Uniform(), LogitNormal(), LogitNormal(-0.5, 0.6), LogitNormal(0.5, 2.0), Mode(), Mode(1.6), Mode(-1.0), Mode(0.0), CosMap()]


def at(f, *values: float) -> list[float]:
    return f(torch.tensor(values, dtype=torch.float64)).tolist()


def test_logit_normal_values_of_the_sheet():
    assert at(LogitNormal().density, 0.5, 0.25) == pytest.approx([1.595769, 1.163652], abs=1e-6)
    u = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    t = LogitNormal().sample(u)
    assert float(((t > 0.25) & (t < 0.75)).double().mean()) == pytest.approx(0.728063, abs=1e-4)
    mass, _ = integrate.quad(lambda x: at(LogitNormal().density, x)[0], 0.25, 0.75)
    assert mass == pytest.approx(0.728063, abs=1e-6)


def test_mode_values_of_the_sheet():
    assert at(Mode(1.29).sample, 0.25, 0.5, 1.0, 0.0) == pytest.approx([0.616416, 0.5, 0.0, 1.0], abs=1e-6)
    u = torch.rand(100, dtype=torch.float64)
    torch.testing.assert_close(Mode(0.0).sample(u), 1 - u)


def test_cosmap_values_of_the_sheet():
    assert at(CosMap().sample, 0.1, 0.5) == pytest.approx([0.136729, 0.5], abs=1e-6)
    assert at(CosMap().density, 0.5) == pytest.approx([1.273240], abs=1e-6)


@pytest.mark.parametrize("time_law", EVERY, ids=str)
def test_densities_integrate_to_one_and_match_the_samples(time_law: TimeLaw):
    # Crowded at both ends, where a density may be infinite.
    t = 0.5 - 0.5 * torch.cos(torch.linspace(1e-3, math.pi - 1e-3, 4000, dtype=torch.float64))
    below = integrate.cumulative_trapezoid(time_law.density(t).numpy(), t.numpy(), initial=0)
    assert below[-1] == pytest.approx(1.0, abs=3e-3)
    samples = time_law.sample(torch.rand(20_000, generator=torch.Generator().manual_seed(1)))
    assert samples.min() >= 0 and samples.max() <= 1 and torch.isfinite(samples).all()
    test = stats.kstest(samples.double().numpy(), lambda x: np.interp(x, t.numpy(), below / below[-1]))
    assert test.pvalue > 1e-3, test


@given(st.floats(-2, 2), st.floats(0.1, 3), st.floats(0.001, 0.999))
def test_logit_normal_quantiles(m: float, s: float, u: float):
    expected = 1 / (1 + math.exp(-(m + s * stats.norm.ppf(u))))
    assert at(LogitNormal(m, s).sample, u)[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("time_law", EVERY, ids=str)
def test_every_law_is_monotone_and_finite_at_the_ends(time_law: TimeLaw):
    t = time_law.sample(torch.linspace(0, 1, 1001))
    steps = t.diff()
    assert torch.isfinite(t).all() and ((steps >= -1e-6).all() or (steps <= 1e-6).all())


def test_laws_by_name_and_bad_parameters():
    assert {type(law(name)) for name in LAWS} == {Uniform, LogitNormal, Mode, CosMap}
    with pytest.raises(UnknownNameError, match="'logit-normal'"):
        law("logitnormal")
    for bad in (lambda: LogitNormal(s=0), lambda: Mode(1.76), lambda: Mode(-1.1)):
        with pytest.raises(ConfigError):
            bad()
