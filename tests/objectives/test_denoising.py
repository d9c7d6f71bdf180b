"""The denoising objective: corruption, target, loss."""

import pytest
import torch

from sfumato.core.paths import PATHS, PREDICTIONS, Prediction, path, view
from sfumato.core.rng import Draws
from sfumato.objectives.denoising import Denoising
from sfumato.objectives.times import Mode, Uniform


def test_rectified_flow_by_hand():
    draws, x0 = Draws(3, 7), torch.randn(4, 2, 3, 3)
    sample = Denoising(Uniform()).draw(x0, draws)
    t, eps = draws.uniform((4,), "time"), draws.normal(x0.shape, "noise")
    assert torch.equal(sample.t, t)
    b = t[:, None, None, None]
    torch.testing.assert_close(sample.x_t, (1 - b) * x0 + b * eps)
    torch.testing.assert_close(sample.target, eps - x0)


@pytest.mark.parametrize("name", sorted(PATHS))
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_is_what_a_perfect_network_says(name: str, prediction: Prediction):
    x0, eps, t = torch.randn(3, 5), torch.randn(3, 5), torch.tensor([0.2, 0.5, 0.8])
    sample = Denoising(path=path(name), prediction=prediction).at(x0, eps, t)
    seen = view(path(name), prediction, sample.target, sample.x_t, t)
    torch.testing.assert_close(seen.x0, x0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen.eps, eps, rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_mean_square_of_each_row_in_fp32():
    objective, sample = Denoising(), Denoising().draw(torch.randn(3, 2, 4, 4), Draws(0, 0))
    assert not objective.loss(sample.target, sample).any()
    off = torch.tensor([1.0, 2.0, 3.0])[:, None, None, None]
    torch.testing.assert_close(objective.loss(sample.target + off, sample), torch.tensor([1.0, 4.0, 9.0]))
    assert objective.loss(sample.target.bfloat16(), sample).dtype == torch.float32


def test_draws_are_pure_and_fp32_and_the_law_matters():
    x0 = torch.randn(4, 2, 2, 2).half()
    one, two = (Denoising().draw(x0, Draws(0, 1)) for _ in range(2))
    assert torch.equal(one.x_t, two.x_t) and torch.equal(one.t, two.t) and one.x_t.dtype == one.target.dtype == torch.float32
    assert not torch.equal(one.t, Denoising(Mode()).draw(x0, Draws(0, 1)).t)
    assert not torch.equal(one.x_t, Denoising().draw(x0, Draws(0, 2)).x_t)
