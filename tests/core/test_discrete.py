"""Discrete schedules: the published numbers at the published steps, and a strict place beside the weights."""

import pytest
import torch

from sfumato.core.config import from_dict, to_dict
from sfumato.core.denoiser import Meaning
from sfumato.core.discrete import Betas
from sfumato.core.errors import ConfigError, UnknownNameError
from sfumato.core.paths import path

SQUARED = Betas("squaredcos_cap_v2", 0.0, 0.999)
SCHEDULES = [Betas(), Betas("scaled_linear", 0.00085, 0.012), SQUARED, Betas(steps=50), Betas(terminal="zero"), Betas(terminal="tiny")]


@pytest.mark.parametrize("betas", SCHEDULES, ids=str)
def test_alpha_and_sigma_are_the_published_ones_at_every_step(betas: Betas):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        num_train_timesteps=betas.steps, beta_start=betas.start, beta_end=betas.end, beta_schedule=betas.curve,
        rescale_betas_zero_snr=betas.terminal != "trained",
    )  # fmt: skip
    bars, t = betas.alpha_bars(), betas.time(torch.arange(betas.steps)).float()
    # diffusers multiplies a thousand fp32 factors. Where the cap of 0.999 holds, 1 - beta itself has few digits left.
    torch.testing.assert_close(bars.float(), theirs.alphas_cumprod, rtol=1e-4 if betas is SQUARED else 2e-5, atol=1e-7)
    assert torch.equal(path(betas).alpha(t), bars.sqrt().float())
    torch.testing.assert_close(path(betas).sigma(t), (1 - bars).sqrt().float(), rtol=1e-6, atol=0)
    assert torch.equal(betas.step(t), torch.arange(betas.steps).double())
    assert bars[-1] == {"zero": 0.0, "tiny": 2.0**-24}.get(betas.terminal, bars[-1])


def test_the_numbers_of_the_pixart_sheet():
    bars = Betas().alpha_bars()
    assert float(bars[999]) == pytest.approx(4.04e-5, rel=2e-3) and float(bars[500]) == pytest.approx(0.0778, rel=1e-3)


def test_the_path_begins_at_the_data_and_is_straight_between_steps():
    betas = Betas()
    t = torch.tensor([0.0, 0.5005, 1.0])
    alpha, knots = path(betas).alpha(t), betas.alpha_bars().sqrt()
    assert alpha[0] == 1.0 and path(betas).sigma(t)[0] == 0.0
    torch.testing.assert_close(alpha[1], ((knots[499] + knots[500]) / 2).float())
    assert torch.allclose(alpha**2 + path(betas).sigma(t) ** 2, torch.ones(3))


def test_the_network_is_told_the_step():
    meaning = Meaning("eps", Betas(), "steps")
    told = meaning.network_time(torch.tensor([1.0, 0.952, 0.001, 0.0005]))
    assert told.dtype == torch.float32 and torch.allclose(1000 * told, torch.tensor([999.0, 951.0, 0.0, 0.0]), atol=1e-4)


def test_a_meaning_with_betas_is_saved_and_read_strictly():
    meaning = Meaning("v", Betas("scaled_linear", 0.00085, 0.012, terminal="zero"), "steps")
    assert from_dict(Meaning, to_dict(meaning)) == meaning
    with pytest.raises(ConfigError, match="did you mean 'start'"):
        from_dict(Meaning, {**to_dict(meaning), "path": {"strat": 0.1}})


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Betas("linaer"), "did you mean 'linear'"),  # type: ignore[arg-type]
        (lambda: Betas(terminal="nil"), "terminal"),  # type: ignore[arg-type]
        (lambda: Betas(steps=1), "at least 2"),
        (lambda: Betas(start=0.5, end=0.1), "start <= end"),
        (lambda: Betas("squaredcos_cap_v2"), "capped"),
        (lambda: Meaning(time_map="steps"), "discrete schedule"),
    ],
)
def test_impossible_schedules_are_told(make, told: str):
    with pytest.raises((ConfigError, UnknownNameError), match=told):
        make()
