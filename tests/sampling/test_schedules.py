"""Time grids and the resolution shift: the sheet's exact values, and diffusers' sigmas."""

import math

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import UsageError
from sfumato.sampling.schedules import Layout, grid, resolution_shift, shift

alphas, unit = st.floats(0.1, 10), st.floats(0, 1)


def moved(t: float, alpha: float) -> float:
    return float(shift(torch.tensor(t, dtype=torch.float64), alpha))


def test_shift_values_of_the_sheet():
    assert [moved(t, 3.0) for t in (0.1, 0.25, 0.5, 0.75, 0.9)] == pytest.approx([0.25, 0.5, 0.75, 0.9, 0.964286], abs=1e-6)


@given(unit, alphas, alphas)
def test_shifts_compose_and_undo(t: float, a: float, b: float):
    assert moved(moved(t, a), b) == pytest.approx(moved(t, a * b), abs=1e-12)
    assert moved(moved(t, a), 1 / a) == pytest.approx(t, abs=1e-12)
    assert moved(t, 1.0) == pytest.approx(t, abs=1e-15)


@given(st.floats(0.01, 0.99), alphas)
def test_the_shift_moves_the_log_snr_by_a_constant(t: float, alpha: float):
    def log_snr(x: float) -> float:
        return 2 * math.log((1 - x) / x)

    assert log_snr(moved(t, alpha)) - log_snr(t) == pytest.approx(-2 * math.log(alpha), abs=1e-9)


def test_both_grids_of_the_sheet():
    assert grid(4, 3.0, "released").tolist() == pytest.approx([1, 0.8577, 0.6022, 0.0089, 0], abs=1e-4)
    assert grid(4, 3.0).tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])


@given(st.integers(1, 60), alphas, st.sampled_from(["paper", "released"]))
def test_every_grid_falls_from_one_to_zero(steps: int, alpha: float, kind):
    """Exactly: a walk from noise starts at 1, not beside it, whatever shift a picture's size asks for."""
    times = grid(steps, alpha, kind)
    assert len(times) == steps + 1 and times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all()


@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("alpha", [1.0, 3.0])
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_the_released_grid_is_diffusers(name: str, alpha: float, steps: int):
    import diffusers

    scheduler = getattr(diffusers, name)(shift=alpha)
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas if "Euler" in name else torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1::2]])
    assert grid(steps, alpha, "released").tolist() == pytest.approx(sigmas.tolist(), abs=1e-6)


def test_resolution_shift_grows_as_the_side():
    assert resolution_shift(1.0, 128 * 128, 64 * 64) == pytest.approx(2.0)
    assert resolution_shift(3.0, 4096, 4096) == 3.0


@pytest.mark.parametrize("steps", [0, -1, 1001, 10_000])
def test_impossible_steps_are_refused(steps: int):
    with pytest.raises(UsageError, match=f"steps is {steps}"):
        grid(steps)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_impossible_shifts_are_refused(alpha: float):
    with pytest.raises(UsageError, match="shift is"):
        grid(4, alpha)


@pytest.mark.parametrize("kind", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("spare", [False, True])
def test_steps_are_rounded_as_diffusers_rounds_them(kind, spare: bool):
    """At every number of steps: where a step lies on a half, the last bit of a sum decides."""
    made = diffusers.DPMSolverMultistepScheduler if spare else diffusers.DDIMScheduler
    scheduler, layout = made(timestep_spacing=kind), Layout(kind, spare=spare)
    for steps in range(1, 1000 if spare else 1001):
        scheduler.set_timesteps(steps)
        ours = (layout.times(steps, 1.0)[:-1] * 1000).round().long() - 1
        # With "trailing" it has one more at times, below the first step.
        assert torch.equal(ours, scheduler.timesteps[:steps]), steps
