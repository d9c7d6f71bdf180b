"""The sampling loop: lanes, guidance, rows, cancelling, and values that stop being finite."""

import math
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import conditions, mmdit, rows, toy
from torch import Tensor

from sfumato.backbones import backbones
from sfumato.core.call import Call
from sfumato.core.conditions import Conditions, Slot, nulled
from sfumato.core.denoiser import Denoiser, Meaning
from sfumato.core.errors import CancelledError, NonFiniteError, UsageError
from sfumato.core.paths import PREDICTIONS, Prediction, View
from sfumato.core.process import NetCall
from sfumato.core.rng import Rows
from sfumato.core.state import Stream
from sfumato.sampling.guidance import ClassifierFree, Guide
from sfumato.sampling.loop import Batched, Step, draw, evaluate
from sfumato.sampling.ode import DrawRequest, Ode
from sfumato.sampling.schedules import grid
from sfumato.sampling.solvers import solvers

SHAPE = (4, 8, 8)


def lanes(cond: Conditions) -> dict[str, Conditions]:
    everyone = torch.ones(len(cond.vectors["pooled"]), dtype=torch.bool)
    return {"cond": cond, "uncond": nulled(cond, (Slot("text"), Slot("pooled")), {"text": everyone})}


def ode(denoiser: Denoiser, solver: str = "euler", steps: int = 4, guidance: float = 1.0, **options) -> Ode:
    return Ode(denoiser, solvers.get(solver)(), grid(steps), ClassifierFree(guidance, Guide(**options)))


@given(st.floats(0, 20), st.floats(0, 1))
def test_guidance_formula(weight: float, t: float):
    cond, uncond = torch.randn(2, 3), torch.randn(2, 3)
    combined = ClassifierFree(weight).combine({"cond": cond, "uncond": uncond}, t)
    torch.testing.assert_close(combined, uncond + weight * (cond - uncond), rtol=1e-4, atol=1e-4)


def test_guidance_one_asks_for_the_prompt_alone():
    denoiser = toy(lambda x, t, cond: x)
    draw(ode(denoiser), DrawRequest(SHAPE, lanes(conditions([2, 3]))), Rows((0, 1)))
    assert [seen[:2] for seen in denoiser.net.seen] == [(2, "cond")] * 4
    assert ClassifierFree(1.0).lanes(0.5) == ("cond",)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++2m", "unipc"])
def test_guidance_acts_inside_its_interval_only(solver: str):
    denoiser = toy(lambda x, t, cond: x)
    draw(ode(denoiser, solver, guidance=3.0, interval=(0.3, 0.8)), DrawRequest(SHAPE, lanes(conditions([2]))), Rows((0,)))
    for count, _, t in denoiser.net.seen:
        assert count == (2 if 0.3 <= t <= 0.8 else 1)


def test_impossible_guidance_is_refused():
    for weight in (-1.0, 101.0, math.nan):
        with pytest.raises(UsageError, match="guidance is"):
            ClassifierFree(weight)
    for interval in ((0.5, 0.5), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(UsageError, match="interval"):
            Guide(interval)


def test_a_guide_says_where_guidance_acts_and_how_far():
    cond, uncond = (torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    plain = uncond + 4 * (cond - uncond)

    def guided(**guide: Any) -> Tensor:
        return ClassifierFree(4.0, Guide(**guide)).combine({"cond": cond, "uncond": uncond}, 0.5)

    first = guided(channels=3)
    assert torch.equal(first[:, :3], plain[:, :3]) and torch.equal(first[:, 3:], cond[:, 3:])
    torch.testing.assert_close(guided(renorm="rows").norm(dim=-1), cond.norm(dim=-1))
    torch.testing.assert_close(guided(renorm="picture").flatten(1).norm(dim=1), cond.flatten(1).norm(dim=1))
    # A picture is never made longer: here guidance shortens it.
    half = ClassifierFree(0.5, Guide(renorm="picture")).combine({"cond": cond, "uncond": -cond / 2}, 0.5)
    torch.testing.assert_close(half, cond / 4)
    for wrong in ({"channels": -1}, {"renorm": "columns"}):
        with pytest.raises(UsageError):
            guided(**wrong)


def test_lanes_in_one_batch_equal_separate_evaluations():
    denoiser = Denoiser(mmdit())
    x, t = torch.randn(2, *SHAPE), torch.tensor([0.4, 0.4])
    calls = {n: NetCall({"image": Stream(x, t=t)}, c) for n, c in {**lanes(conditions([3, 5])), "long": conditions([9, 1])}.items()}
    together = evaluate(denoiser, calls)
    assert list(together) == ["cond", "uncond", "long"]
    for name, call in calls.items():
        alone = evaluate(denoiser, {name: call})[name]
        torch.testing.assert_close(together[name].pred["image"], alone.pred["image"], rtol=1e-5, atol=1e-5)
    tapped = evaluate(denoiser, {n: replace(c, call=Call(lane=n, taps=frozenset({"blocks.0.mlp.image"}))) for n, c in calls.items()})
    assert tapped["uncond"].feats["blocks.0.mlp.image"].shape == (2, 16, 32)


def test_what_no_step_changes_is_computed_once():
    """PixArt's caption and the keys and values of its words: once a run, at every step where an adapter or a policy might act on them."""
    net = backbones.get("PixArt").tiny()
    words = {n: m for n, m in net.named_modules() if n == "text.up" or n.endswith(("cross.core.k", "cross.core.v"))}
    seen: Counter[str] = Counter()
    for name, module in words.items():
        module.register_forward_hook(lambda *_, name=name: seen.update([name]))
    cond = Conditions({"text": conditions([3, 2]).tokens["text"]})
    run = partial(draw, request=DrawRequest(SHAPE, {"cond": cond, "uncond": cond}), rows=Rows((0, 1)))
    plain = run(ode(Denoiser(net), guidance=2.0, steps=4))
    assert set(seen) == set(words) and set(seen.values()) == {1}
    seen.clear()
    adapted = ode(Denoiser(net), guidance=2.0, steps=4)
    same = run(replace(adapted, adapters={"blocks.0.cross.core.k": Unchanged()}))
    assert set(seen.values()) == {4}
    assert torch.equal(plain, same)


def test_lanes_of_one_prompt_keep_what_acts_on_each():
    net = backbones.get("PixArt").tiny()
    cond = Conditions({"text": conditions([3, 2]).tokens["text"]})
    image = Stream(torch.randn(2, *SHAPE), t=torch.tensor([0.4, 0.4]))
    plain, adapted = NetCall({"image": image}, cond), Call(adapters={"blocks.0.cross.core.v": Doubled()}, lane="adapted")
    calls = {"plain": plain, "adapted": NetCall({"image": image}, cond, adapted)}
    with torch.no_grad():
        together = evaluate(Denoiser(net), calls, Batched())
        for name, call in calls.items():
            assert torch.equal(together[name].pred["image"], evaluate(Denoiser(net), {name: call})[name].pred["image"])
        assert not torch.equal(together["plain"].pred["image"], together["adapted"].pred["image"])


class Doubled:
    laneless = True

    def __call__(self, linear, x, base, call):
        return 2 * base(x)


class Unchanged:
    laneless = True

    def __call__(self, linear, x, base, call):
        return base(x)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++2m", "unipc", "renoise"])
def test_a_row_is_itself(solver: str, guidance: float):
    """Seed 3 in a batch of four, among longer prompts, equals seed 3 alone."""
    denoiser, cond = Denoiser(mmdit()), conditions([4, 2, 7, 3])
    process = ode(denoiser, solver, guidance=guidance)
    batch = draw(process, DrawRequest(SHAPE, lanes(cond)), Rows((9, 3, 5, 1)))
    one = cond.rows(slice(1, 2))
    one = Conditions({"text": type(one.tokens["text"])(one.tokens["text"].states[:, :2], one.tokens["text"].keep[:, :2])}, one.vectors)
    alone = draw(process, DrawRequest(SHAPE, lanes(one)), Rows((3,)))
    torch.testing.assert_close(batch[1:2], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(batch[0], batch[1])


@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++2m", "unipc"])
def test_a_network_that_knows_the_picture_draws_it_whatever_it_predicts(solver: str, prediction: Prediction, path: str):
    """From t = 0.9: a prediction of eps at t = 1 says nothing of x_0."""
    clean = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(2))

    def oracle(x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        alpha, sigma = denoiser.path.at(t, x)
        return View(x, clean, (x - alpha * clean) / sigma, alpha, sigma).get(prediction)

    denoiser = toy(oracle, Meaning(prediction, path))
    process = Ode(denoiser, solvers.get(solver)(), 0.9 * grid(5), ClassifierFree(1.0))
    out = draw(process, DrawRequest(SHAPE, {"cond": conditions([1])}, x0=clean), Rows((0,)))
    torch.testing.assert_close(out, clean, rtol=1e-3, atol=1e-3)


def test_paths_agree_on_the_same_data():
    """The exact denoiser of N(0, 0.25) on either path draws nearly the same picture from the same noise: one ODE, rescaled."""
    drawn = []
    for name in ("linear", "cosine"):

        def optimal(x: Tensor, t: Tensor, cond: Conditions, name: str = name) -> Tensor:
            alpha, sigma = toy(optimal, Meaning("v", name)).path.at(t, x)
            variance = 0.25 * alpha**2 + sigma**2
            return View(x, 0.25 * alpha / variance * x, sigma / variance * x, alpha, sigma).v

        process = ode(toy(optimal, Meaning("v", name)), "heun", steps=60)
        drawn.append(draw(process, DrawRequest(SHAPE, {"cond": conditions([1])}), Rows((0,))))
    torch.testing.assert_close(drawn[0], drawn[1], rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(drawn[0], 0.5 * Rows((0,)).normal(SHAPE, "noise"), rtol=5e-3, atol=5e-3)


def test_starting_from_a_picture_needs_a_picture():
    process = Ode(toy(lambda x, t, cond: 0 * x), solvers.get("euler")(), 0.5 * grid(2), ClassifierFree(1.0))
    with pytest.raises(UsageError, match=r"starts at t = 0\.500"):
        draw(process, DrawRequest(SHAPE, {"cond": conditions([1])}), Rows((0,)))
    clean = torch.randn(1, *SHAPE)
    run = process.init(DrawRequest(SHAPE, {"cond": conditions([1])}, x0=clean), Rows((0,)))
    torch.testing.assert_close(run.walk.y, 0.5 * clean + 0.5 * Rows((0,)).normal(SHAPE, "noise"))


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++2m", "unipc"])
def test_progress_counts_steps_and_previews_x0(solver: str):
    steps: list[Step] = []
    denoiser = toy(lambda x, t, cond: x / rows(t).clamp_min(0.1))
    out = draw(ode(denoiser, solver), DrawRequest(SHAPE, {"cond": conditions([1])}), Rows((0,)), steps.append)
    assert [(s.index, s.total) for s in steps] == [(i, 4) for i in range(1, 5)]
    assert steps[-1].estimate.shape == (1, *SHAPE)
    torch.testing.assert_close(steps[-1].estimate, out)


def test_a_callback_that_answers_false_stops_the_run():
    denoiser = toy(lambda x, t, cond: x)
    with pytest.raises(CancelledError, match="stopped after step 2 of 4"):
        draw(ode(denoiser), DrawRequest(SHAPE, {"cond": conditions([1])}), Rows((0,)), lambda step: step.index < 2)
    assert len(denoiser.net.seen) == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_prediction_that_is_not_finite_names_its_step_and_time(bad: float):
    def broken(x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return x if float(t[0]) > 0.6 else x * bad

    with pytest.raises(NonFiniteError, match=r"prediction at step 3, t = 0\.500"):
        draw(ode(toy(broken)), DrawRequest(SHAPE, {"cond": conditions([1])}), Rows((0,)))


def test_eps_at_pure_noise_is_told_at_once():
    with pytest.raises(NonFiniteError, match=r"x_0 that step 1 infers from eps at t = 1\.000"):
        draw(ode(toy(lambda x, t, cond: x, Meaning("eps"))), DrawRequest(SHAPE, {"cond": conditions([1])}), Rows((0,)))


def test_the_shift_does_not_change_where_a_run_ends():
    clean = torch.randn(1, *SHAPE)
    denoiser = toy(lambda x, t, cond: (x - clean) / rows(t))
    for alpha in (0.5, 1.0, 3.0):
        process = Ode(denoiser, solvers.get("heun")(), grid(6, alpha), ClassifierFree(1.0))
        out = draw(process, DrawRequest(SHAPE, {"cond": conditions([1])}), Rows((4,)))
        torch.testing.assert_close(out, clean, rtol=1e-4, atol=1e-4)
