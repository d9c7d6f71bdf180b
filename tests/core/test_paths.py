"""Predictions eps, x0, v, flow and velocity are one thing seen from five sides."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import UnknownNameError
from sfumato.core.paths import PATHS, PREDICTIONS, Prediction, View, path, view

times = st.floats(0.05, 0.95)
numbers = st.lists(st.floats(-4, 4), min_size=3, max_size=3)


@given(st.sampled_from(sorted(PATHS)), st.sampled_from(PREDICTIONS), times, numbers, numbers)
def test_every_prediction_gives_back_x0_and_eps(name: str, prediction: Prediction, t: float, x0: list[float], eps: list[float]):
    clean, noise, at = torch.tensor([x0]), torch.tensor([eps]), torch.tensor([t])
    x_t = path(name).mix(clean, noise, at)
    value = View(x_t, clean, noise, *path(name).at(at, x_t)).get(prediction)
    seen = view(path(name), prediction, value, x_t, at)
    torch.testing.assert_close(seen.x0, clean, rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(seen.eps, noise, rtol=1e-4, atol=2e-4)
    for other in PREDICTIONS:
        again = view(path(name), other, seen.get(other), x_t, at)
        torch.testing.assert_close(again.get(prediction), value, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", sorted(PATHS))
@pytest.mark.parametrize("prediction", ["v", "flow", "velocity"])
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_v_flow_and_velocity_hold_at_both_ends(name: str, prediction: Prediction, t: float):
    x0, eps, at = torch.randn(2, 5), torch.randn(2, 5), torch.full((2,), t)
    x_t = path(name).mix(x0, eps, at)
    seen = view(path(name), prediction, View(x_t, x0, eps, *path(name).at(at, x_t)).get(prediction), x_t, at)
    torch.testing.assert_close(seen.x0, x0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.eps, eps, rtol=1e-5, atol=1e-5)


def test_what_a_prediction_cannot_say_is_not_invented():
    x, t = torch.ones(1, 2), torch.ones(1)
    assert not torch.isfinite(view(path("linear"), "eps", torch.zeros(1, 2), x, t).x0).any()
    assert not torch.isfinite(view(path("linear"), "x0", torch.zeros(1, 2), x, 0 * t).eps).any()


@given(times)
def test_definitions(t: float):
    at = torch.tensor([t], dtype=torch.float64)
    assert float(path("linear").alpha(at)) == pytest.approx(1 - t) and float(path("linear").sigma(at)) == pytest.approx(t)
    alpha, sigma = path("cosine").alpha(at), path("cosine").sigma(at)
    assert float(alpha**2 + sigma**2) == pytest.approx(1.0) and float(sigma) == pytest.approx(math.sin(math.pi * t / 2))


def test_the_score_is_the_gradient_of_the_log_density():
    """For data N(0, I) on the variance-preserving path p_t = N(0, I), so the score is -x; E[eps | x] = sigma x."""
    x, t = torch.randn(2, 3), torch.tensor([0.3, 0.7])
    sigma = path("cosine").sigma(t)[:, None]
    torch.testing.assert_close(view(path("cosine"), "eps", sigma * x, x, t).score, -x)


def test_times_per_token_broadcast():
    x0, eps = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    t = torch.rand(2, 3)
    torch.testing.assert_close(path("linear").mix(x0, eps, t), (1 - t)[..., None] * x0 + t[..., None] * eps)


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(UnknownNameError, match="'linear'"):
        path("linaer")
    with pytest.raises(UnknownNameError, match="'flow'"):
        view(path("linear"), "flwo", torch.zeros(1), torch.zeros(1), torch.zeros(1))  # type: ignore[arg-type]
