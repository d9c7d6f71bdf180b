"""Solvers against diffusers' schedulers, against exact solutions, and their orders."""

import math

import pytest
import torch
from torch import Tensor

from sfumato.core.errors import UnknownNameError, UsageError
from sfumato.sampling.schedules import grid
from sfumato.sampling.solvers import Seen, solvers, start

MU, STD = 0.7, 0.4


def walk(name: str, y: Tensor, times: Tensor, flow) -> Tensor:
    """`flow(y, s)`, the prediction on the straight path, followed along `times`."""
    solver, run = solvers.get(name)(), start(y, times)
    while not run.done:
        place, s = solver.place(run)
        u = flow(place, s)
        run = solver.advance(run, Seen(place - s * u, place + (1 - s) * u, noise(*u.shape)))
    return run.y


def nonlinear(y: Tensor, s: float) -> Tensor:
    return torch.sin(2 * y) + 0.3 * y * s - 0.5 * s**2


def gaussian(y: Tensor, s: float) -> Tensor:
    """E[eps - x_0 | y_s] for data N(MU, STD^2)."""
    variance = (1 - s) ** 2 * STD**2 + s**2
    return -MU + (s - (1 - s) * STD**2) / variance * (y - (1 - s) * MU)


def gaussian_solution(y: Tensor, s: float, to: float) -> Tensor:
    """The ODE carries quantiles along: (y - mean) / deviation is constant."""

    def deviation(at: float) -> float:
        return math.sqrt((1 - at) ** 2 * STD**2 + at**2)

    return (1 - to) * MU + deviation(to) / deviation(s) * (y - (1 - s) * MU)


def noise(*shape: int) -> Tensor:
    return torch.randn(*(shape or (2, 4, 3, 3)), generator=torch.Generator().manual_seed(0))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_parity_with_diffusers(shift: float):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(12)
    x = noise()
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        x = scheduler.step(nonlinear(x, float(sigma)), t, x, return_dict=False)[0]
    assert relative(walk("euler", noise(), scheduler.sigmas.double(), nonlinear), x) <= 1e-5
    assert relative(walk("euler", noise(), grid(12, shift, "released"), nonlinear), x) <= 1e-5


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_heun_parity_with_diffusers(shift: float):
    from diffusers import FlowMatchHeunDiscreteScheduler

    scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(12)
    x = noise()
    for t in scheduler.timesteps:
        x = scheduler.step(nonlinear(x, float(t) / 1000), t, x, return_dict=False)[0]
    assert relative(walk("heun", noise(), grid(12, shift, "released"), nonlinear), x) <= 1e-5


@pytest.mark.parametrize("steps", [6, 20])
def test_dpm_solver_parity_with_diffusers(steps: int):
    """On diffusers' own sigmas, which begin a little below 1. The last step, to sigma = 0, is of first order in both."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(steps)
    assert float(scheduler.sigmas[-1]) == 0.0
    x = noise()
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        x = scheduler.step(nonlinear(x, float(sigma)), t, x, return_dict=False)[0]
    assert relative(walk("dpm++2m", noise(), scheduler.sigmas.double(), nonlinear), x) <= 1e-5


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_unipc_parity_with_diffusers(steps: int, shift: float):
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    scheduler.set_timesteps(steps)
    x = noise()
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        x = scheduler.step(nonlinear(x, float(sigma)), t, x, return_dict=False)[0]
    assert relative(walk("unipc", noise(), scheduler.sigmas.double(), nonlinear), x) <= 1e-5


def test_unipc_begins_at_pure_noise_as_it_does_a_little_below():
    times = grid(12, 3.0)
    near = times.clone()
    near[0] -= 1e-9
    assert relative(walk("unipc", noise(), times, nonlinear), walk("unipc", noise(), near, nonlinear)) <= 1e-5


def test_renoising_leaps_and_refuses_to_go_without_noise():
    x0, eps, fresh = noise(1, 2, 3), torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    solver, run = solvers.get("renoise")(), start(eps, grid(2))
    with pytest.raises(UsageError, match="without fresh noise"):
        solver.advance(run, Seen(x0, eps))
    run = solver.advance(run, Seen(x0, eps, fresh))
    torch.testing.assert_close(run.y, 0.5 * x0 + 0.5 * fresh)
    assert torch.equal(solver.advance(run, Seen(x0, eps, fresh)).y, x0) and solver.draws


@pytest.mark.parametrize("name", ["euler", "heun", "dpm++2m", "unipc"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_model_that_knows_x0_is_followed_exactly_in_any_number_of_steps(name: str, steps: int):
    """eps - x_0 is constant along a straight line, so one step suffices."""
    x0, eps = noise(1, 2, 3), torch.randn(1, 2, 3)
    out = walk(name, eps, grid(steps), lambda y, s: eps - x0)
    torch.testing.assert_close(out, x0, rtol=1e-5, atol=1e-5)


def order(name: str, counts: tuple[int, int], ends: tuple[float, float]) -> float:
    y, (first, last) = noise(64), ends
    errors = []
    for n in counts:
        times = torch.linspace(first, last, n + 1, dtype=torch.float64)
        errors.append(float((walk(name, y, times, gaussian) - gaussian_solution(y, first, last)).norm()))
    return math.log(errors[0] / errors[1]) / math.log(counts[1] / counts[0])


@pytest.mark.parametrize(("name", "expected"), [("euler", 1.0), ("heun", 2.0)])
def test_orders_of_convergence_from_noise_to_data(name: str, expected: float):
    assert order(name, (24, 96), (1.0, 0.0)) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(("name", "expected"), [("euler", 1.0), ("heun", 2.0), ("dpm++2m", 2.0), ("unipc", 2.0)])
def test_orders_of_convergence_inside_the_path(name: str, expected: float):
    """DPM-Solver++ has order 2 where log-SNR steps shrink with the step, so not in the last steps to s = 0 of an even grid."""
    assert order(name, (24, 96), (0.8, 0.3)) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize(("name", "most"), [("euler", 0.08), ("heun", 0.02), ("dpm++2m", 0.02)])
def test_ten_steps_come_close_to_the_exact_solution(name: str, most: float):
    y = noise(256)
    assert relative(walk(name, y, grid(10), gaussian), gaussian_solution(y, 1.0, 0.0)) < most


def test_evaluations_are_as_declared():
    for name in solvers:
        places: list[float] = []
        walk(name, noise(2), 0.9 * grid(4), lambda y, s, seen=places: seen.append(s) or y)
        # The last step is of first order for all but plms, whose first one is made twice.
        assert len(places) == solvers.get(name).evaluations * 3 + (2 if name == "plms" else 1)
        assert all(s > 0 for s in places)
    with pytest.raises(UsageError, match="plms goes by eps"):
        walk("plms", noise(2), grid(4), gaussian)


def test_unknown_solver_is_told_the_nearest():
    with pytest.raises(UnknownNameError, match="'dpm\\+\\+2m'"):
        solvers.get("dpm++")
