"""Several streams drawn as one: every mode of UniDiffuser is the same process, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.backbones.unidiffuser import UniDiffuser, tiny
from sfumato.core.conditions import Conditions
from sfumato.core.denoiser import Denoiser, Meaning
from sfumato.core.discrete import Betas
from sfumato.core.errors import UsageError
from sfumato.core.rng import Rows
from sfumato.sampling.guidance import ClassifierFree, Guide
from sfumato.sampling.joint import Joint, JointRequest, flat, parted
from sfumato.sampling.loop import draw
from sfumato.sampling.ode import Ode
from sfumato.sampling.solvers import solvers

SHAPES = {"image": (4, 8, 6), "clip": (1, 6), "text": (5, 12)}
BETAS = Betas("scaled_linear", 0.00085, 0.012)


def joint(weight: float = 3.0, solver: str = "dpm++2m", net: UniDiffuser | None = None, **meaning: Any) -> Joint:
    times = torch.tensor([1.0, 0.6, 0.3, 0.0], dtype=torch.float64)
    denoiser = Denoiser(net or tiny(kinds=False), Meaning("eps", BETAS, **meaning))
    return Joint(Ode(denoiser, solvers.get(solver)(), times, ClassifierFree(weight)))


def streams(*names: str, rows: int = 2) -> dict[str, Tensor]:
    return {name: Rows(tuple(range(5, 5 + rows))).normal(SHAPES[name], f"a {name}") for name in names}


def test_a_flat_vector_comes_apart_as_it_was():
    given = streams(*SHAPES)
    again = parted(flat(given), SHAPES)
    assert all(torch.equal(again[name], x) for name, x in given.items()) and flat(given).shape == (2, 4 * 48 + 6 + 60)


@pytest.mark.parametrize(("given", "lanes"), [((), ["cond", "uncond image", "uncond text"]), (("text",), 2), (("image", "clip"), 2)])
@pytest.mark.parametrize("solver", ["dpm++2m", "heun"])
def test_every_mode_draws_what_is_not_given(given: tuple[str, ...], lanes: Any, solver: str):
    process, rows = joint(solver=solver), Rows((7, 8))
    request = JointRequest(SHAPES, streams(*given))
    asked = process.calls(process.init(request, rows))
    assert list(asked) == (lanes if given == () else ["cond", "uncond"])
    for name in given:
        assert torch.equal(asked["cond"].streams[name].x, request.given[name]) and not asked["cond"].streams[name].t.any()
        assert (asked["uncond"].streams[name].t == 1.0).all()
    drawn = draw(process, request, rows)
    assert {name: tuple(x.shape[1:]) for name, x in drawn.items()} == {n: s for n, s in SHAPES.items() if n not in given}
    alone = draw(process, JointRequest(SHAPES, {name: x[1:] for name, x in request.given.items()}), Rows((8,)))
    # From noise alone x_0 is fifteen times what eps says: what counts is the share.
    assert all((x[1:] - alone[name]).norm() <= 1e-5 * x[1:].norm() for name, x in drawn.items())
    if given:
        other = draw(process, JointRequest(SHAPES, {name: -x for name, x in request.given.items()}), rows)
        assert not any(torch.allclose(x, other[name], atol=1e-3) for name, x in drawn.items())


def test_what_is_ignored_is_new_at_every_step_and_said_at_the_networks_own_end():
    process, rows = joint(time_map="steps"), Rows((7,))
    run = process.init(JointRequest(SHAPES, streams("text", rows=1)), rows)
    seen: list[Mapping[str, Any]] = []
    told: list[tuple[float, float]] = []
    process.denoiser.net.register_forward_pre_hook(lambda _, args: told.append((float(args[0]["image"].t), float(args[0]["text"].t))))
    while not process.done(run):
        calls = process.calls(run)
        seen.append(calls["uncond"].streams)
        outs = {lane: process.denoiser.answer(c.streams, c.cond, c.call) for lane, c in calls.items()}
        run = process.update(run, outs, rows)
    assert len({float(each["text"].x.sum()) for each in seen}) == 3
    # diffusers tells step k of N = 1000, 0 for what is given and N for what is ignored.
    assert [round(1000 * t, 3) for pair in told[:2] for t in pair] == [999, 0, 999, 1000]


def test_a_caption_to_keep_away_from_is_given_too():
    process, rows, given = joint(), Rows((7, 8)), streams("text")
    against = JointRequest(SHAPES, given, against={"text": -given["text"]})
    lane = process.calls(process.init(against, rows))["uncond"].streams["text"]
    assert torch.equal(lane.x, -given["text"]) and not lane.t.any()
    plain, away = (draw(process, request, rows)["image"] for request in (JointRequest(SHAPES, given), against))
    assert not torch.allclose(plain, away, atol=1e-3)
    same = draw(process, JointRequest(SHAPES, given, against=given), rows)["image"]
    assert torch.allclose(same, draw(joint(1.0), JointRequest(SHAPES, given), rows)["image"], atol=1e-4)


def test_what_cannot_be_is_told():
    process, rows = joint(), Rows((7, 8))
    wrong: list[tuple[JointRequest, str]] = [
        (JointRequest(SHAPES, streams(*SHAPES)), "every stream is given"),
        (JointRequest(SHAPES, streams("clip")), "image and clip one is given"),
        (JointRequest(SHAPES, {"layout": torch.zeros(2, 3)}), "'layout'"),
        (JointRequest(SHAPES, streams("text"), Conditions(scalars={"kind": torch.ones(2, dtype=torch.long)})), "kind"),
    ]
    for request, told in wrong:
        with pytest.raises(UsageError, match=told):
            draw(process, request, rows)
    for guide in (Guide(channels=3), Guide(renorm="rows")):
        with pytest.raises(UsageError, match="an interval alone"):
            Joint(Ode(process.denoiser, process.ode.solver, process.times, ClassifierFree(3.0, guide)))
