"""Solvers on discrete schedules: DDIM is Euler, DPM-Solver++ is itself, at every published spacing."""

import pytest
import torch
from tests.builders import conditions, rows, toy
from torch import Tensor

from sfumato.core.conditions import Conditions
from sfumato.core.denoiser import Meaning
from sfumato.core.discrete import Betas
from sfumato.core.errors import ConfigError, UsageError
from sfumato.core.rng import Rows
from sfumato.sampling.guidance import ClassifierFree
from sfumato.sampling.loop import draw
from sfumato.sampling.ode import DrawRequest, Ode
from sfumato.sampling.schedules import Layout
from sfumato.sampling.solvers import solvers

SHAPE = (4, 6, 5)
TYPES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SCHEDULES = {
    "pixart": (Betas(), {"beta_schedule": "linear"}),
    "sd": (Betas("scaled_linear", 0.00085, 0.012), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
    "cosine": (Betas("squaredcos_cap_v2", 0.0, 0.999), {"beta_schedule": "squaredcos_cap_v2"}),
    "zero": (Betas(terminal="zero"), {"rescale_betas_zero_snr": True}),
}


def answer(x: Tensor, k: Tensor) -> Tensor:
    """A network of step k that is neither linear in x nor flat in k."""
    return 0.7 * torch.sin(1.5 * x) + 0.3 * x + 0.2 * torch.cos(k / 150)


def ours(meaning: Meaning, solver: str, layout: Layout, steps: int) -> Tensor:
    def f(x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return answer(x, rows(1000 * t))

    times = layout.times(steps, 1.0)
    process = Ode(toy(f, meaning), solvers.get(solver)(), times, ClassifierFree(1.0), noise=layout.first, landings=layout.landings(steps))
    return draw(process, DrawRequest(SHAPE, {"cond": conditions([1])}), Rows((0,)))


def theirs(scheduler: object, steps: int) -> Tensor:
    scheduler.set_timesteps(steps)
    x = Rows((0,)).normal(SHAPE, "noise").double()
    for k in scheduler.timesteps:
        x = scheduler.step(answer(x, k.double()), k, x, return_dict=False)[0]
    return x.float()


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("end", ["data", "first"])
@pytest.mark.parametrize(("spacing", "offset"), [("leading", 1), ("trailing", 0)])
@pytest.mark.parametrize("prediction", TYPES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_euler_is_ddim(name: str, prediction: str, spacing: str, offset: int, end: str, steps: int):
    from diffusers import DDIMScheduler

    betas, settings = SCHEDULES[name]
    if name in ("zero", "cosine") and prediction == "eps":
        pytest.skip("eps where alpha is nothing or nearly so says nothing of x_0")
    scheduler = DDIMScheduler(
        **settings, prediction_type=TYPES[prediction], clip_sample=False, timestep_spacing=spacing, steps_offset=offset,
        set_alpha_to_one=end == "data",
    )  # fmt: skip
    scheduler.alphas_cumprod = betas.alpha_bars()  # theirs, rounded to fp32, is off by 1e-3 of sigma^2 at the first step
    scheduler.final_alpha_cumprod = torch.tensor(1.0) if end == "data" else scheduler.alphas_cumprod[0]
    out = ours(Meaning(prediction, betas, "steps"), "euler", Layout(spacing, offset=offset, end=end), steps)
    assert relative(out, theirs(scheduler, steps)) <= 1e-5


def test_ddim_lands_on_the_next_step_where_diffusers_does_not():
    """diffusers goes N // n steps down whichever step comes next; on "linspace" that is another one. Told so, it agrees."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="linspace")
    out, apart = ours(Meaning("eps", Betas(), "steps"), "euler", Layout("linspace"), 20), theirs(scheduler, 20)
    scheduler.set_timesteps(20)
    x, order = Rows((0,)).normal(SHAPE, "noise").double(), scheduler.timesteps.tolist()
    for k, following in zip(order, [*order[1:], -1], strict=True):
        bars = scheduler.alphas_cumprod.double()
        now, then = bars[k], bars[following] if following >= 0 else torch.tensor(1.0).double()
        eps = answer(x, torch.tensor(float(k)))
        x = then.sqrt() * (x - (1 - now).sqrt() * eps) / now.sqrt() + (1 - then).sqrt() * eps
    assert relative(out, x.float()) <= 1e-5 < relative(out, apart)


@pytest.mark.parametrize(("spacing", "offset", "steps"), [("linspace", 0, 20), ("linspace", 0, 130), ("trailing", 0, 7), ("leading", 1, 7)])
@pytest.mark.parametrize("end", ["data", "first"])
@pytest.mark.parametrize(("name", "prediction"), [("pixart", "eps"), ("sd", "v"), ("cosine", "x0"), ("zero", "v")])
def test_a_fixed_stride_is_diffusers_ddim(name: str, prediction: str, end: str, spacing: str, offset: int, steps: int):
    from diffusers import DDIMScheduler

    betas, settings = SCHEDULES[name]
    scheduler = DDIMScheduler(
        **settings, prediction_type=TYPES[prediction], clip_sample=False, timestep_spacing=spacing, steps_offset=offset,
        set_alpha_to_one=end == "data",
    )  # fmt: skip
    scheduler.alphas_cumprod = betas.alpha_bars()  # as above
    scheduler.final_alpha_cumprod = torch.tensor(1.0) if end == "data" else scheduler.alphas_cumprod[0]
    drawn, meaning = theirs(scheduler, steps), Meaning(prediction, betas, "steps")
    out, paper = (ours(meaning, "euler", Layout(spacing, offset=offset, end=end, stride=s), steps) for s in ("fixed", "next"))
    assert relative(out, drawn) <= 1e-5
    assert (relative(paper, drawn) <= 1e-5) == (spacing == "leading"), "there both strides are one"


def test_where_a_fixed_stride_means_nothing():
    for layout in ({"kind": "uniform"}, {"kind": "trailing", "spare": True}, {"kind": "paper"}):
        with pytest.raises(ConfigError, match="stride"):
            Layout(**layout, stride="fixed")
    assert Layout("trailing").landings(5) is None
    with pytest.raises(UsageError, match="a fixed stride with the solver Heun"):
        ours(Meaning("eps", Betas(), "steps"), "heun", Layout("trailing", stride="fixed"), 5)


@pytest.mark.parametrize("steps", [1, 2, 14, 20])
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize(("spacing", "offset"), [("linspace", 0), ("leading", 1), ("trailing", 0)])
@pytest.mark.parametrize(("name", "prediction"), [("pixart", "eps"), ("sd", "v"), ("cosine", "x0"), ("zero", "v")])
def test_dpm_solver_is_diffusers(name: str, prediction: str, spacing: str, offset: int, end: str, steps: int):
    from diffusers import DPMSolverMultistepScheduler

    betas, settings = SCHEDULES[name]
    if name == "zero":
        betas = Betas(terminal="tiny")
    scheduler = DPMSolverMultistepScheduler(
        **settings, prediction_type=TYPES[prediction], timestep_spacing=spacing, steps_offset=offset, final_sigmas_type=end
    )
    scheduler.alphas_cumprod = betas.alpha_bars()  # as above
    layout = Layout(spacing, offset=offset, spare=True, end="data" if end == "zero" else "first")
    out = ours(Meaning(prediction, betas, "steps"), "dpm++2m", layout, steps)
    assert relative(out, theirs(scheduler, steps)) <= 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("end", ["data", "first"])
@pytest.mark.parametrize("name", ["pixart", "sd"])
def test_plms_is_pndm_without_its_first_kind_of_steps(name: str, end: str, steps: int):
    from diffusers import PNDMScheduler

    betas, settings = SCHEDULES[name]
    scheduler = PNDMScheduler(**settings, skip_prk_steps=True, set_alpha_to_one=end == "data", steps_offset=1)
    scheduler.alphas_cumprod = betas.alpha_bars()  # as above
    scheduler.final_alpha_cumprod = torch.tensor(1.0) if end == "data" else scheduler.alphas_cumprod[0]
    out = ours(Meaning("eps", betas, "steps"), "plms", Layout("leading", offset=1, end=end), steps)
    assert relative(out, theirs(scheduler, steps)) <= 1e-5


@pytest.mark.parametrize("steps", [1, 20])
@pytest.mark.parametrize(("spacing", "offset", "noise"), [("leading", 1, "bare"), ("trailing", 0, "scaled")])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_euler_in_sigmas_is_euler(prediction: str, spacing: str, offset: int, noise: str, steps: int):
    from diffusers import EulerDiscreteScheduler

    betas, settings = SCHEDULES["sd"]
    scheduler = EulerDiscreteScheduler(**settings, prediction_type=TYPES[prediction], timestep_spacing=spacing, steps_offset=offset)
    scheduler.alphas_cumprod = betas.alpha_bars()  # as above
    scheduler.set_timesteps(steps)
    x = Rows((0,)).normal(SHAPE, "noise").double() * scheduler.init_noise_sigma
    for k in scheduler.timesteps:
        x = scheduler.step(answer(scheduler.scale_model_input(x, k), k.double()), k, x, return_dict=False)[0]
    layout = Layout(spacing, offset=offset, noise=noise)
    assert relative(ours(Meaning(prediction, betas, "steps"), "euler", layout, steps), x.float()) <= 1e-5


def test_the_uniform_layout_has_the_original_fractional_steps():
    """DPM-Solver's own code: t_cont = linspace(1, 1 / N, n + 1), and the network is told (t_cont - 1 / N) 1000."""
    times = Layout("uniform", end="first").times(20, 1.0)
    torch.testing.assert_close(times, torch.linspace(1, 0.001, 21, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (lambda: Layout("leading").times(20, 3.0), "shift is 3.0"),
        (lambda: Layout("trailing").times(1001, 1.0), "steps is 1001"),
        (lambda: Layout("leading", offset=5).times(1000, 1.0), "begin at step 1004"),
        (lambda: Layout("paper", spare=True), "discrete"),
        (lambda: Layout("trailing", offset=1), "only 'leading'"),
        (lambda: Layout("released", noise="scaled"), "discrete"),
    ],
)
def test_layouts_refuse_what_they_would_ignore(act, told: str):
    with pytest.raises((UsageError, ConfigError), match=told):
        act()
