"""FreeCus: keys and values of a reference picture's foreground, recorded in a lane of their own, join the target's in a few vital blocks.

Exercises a lane whose prediction is discarded, noise that is not the lane's t, a bank kept by a session between lanes of one step, and
stored keys and values (`core.attention.Stored`) as sources of an attention group, rotated by the core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch
from tests.builders import conditions, image, mmdit
from torch import Tensor

from sfumato.core.attention import Attend, Group, Heads, Stored, attend
from sfumato.core.call import Call, Footprint, Session, Site
from sfumato.core.denoiser import Denoiser
from sfumato.core.errors import ConflictError
from sfumato.core.process import NetCall, finish
from sfumato.core.rng import Rows
from sfumato.core.state import Out, Stream
from sfumato.sampling.loop import evaluate
from sfumato.sampling.ode import DrawRequest, Ode, OdeRun
from sfumato.sampling.schedules import grid, shift
from sfumato.sampling.solvers import Euler

MU = 0.63
FOREGROUND = torch.arange(16) % 4 < 2
BASE = conditions([4])


@dataclass
class Bank(Session):
    """Records in the lane "reference", appends in "cond", both at `vital` blocks. `text_scale` and `scale` multiply keys, and so logits."""

    foreground: Tensor
    vital: frozenset[int]
    scale: float = 1.1
    text_scale: float = 1.1
    held: dict[Site, tuple[int, Stored]] = field(default_factory=dict)

    @property
    def footprint(self) -> Footprint:
        return Footprint(frozenset({"attention"}), self.vital, writes=frozenset({"attention"}), requires=frozenset({"softmax"}))

    def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
        if call.lane == "reference":
            own = heads["image"]
            pos = None if own.pos is None else own.pos[:, self.foreground]
            stored = Stored(self.scale * own.k[:, :, self.foreground], own.v[:, :, self.foreground], pos=pos)
            self.held[site] = (call.step, stored)
        elif call.lane == "cond":
            step, stored = self.held[site]
            if step != call.step:
                raise ConflictError(f"step {call.step} found a reference of step {step}", "evaluate the reference lane first")
            heads = {**heads, "text": replace(heads["text"], k=self.text_scale * heads["text"].k)}
            return attend(heads, {name: [Group((stored, *heads))] for name in heads})
        return attend(heads, None)


@dataclass(frozen=True)
class Referenced:
    """`base`, with a lane before it that sees the reference under the target's t and a smaller noise."""

    base: Ode
    bank: Bank
    reference: Tensor
    noise: Tensor

    def calls(self, run: OdeRun) -> Mapping[str, NetCall]:
        lanes = self.base.calls(run)
        cond = lanes["cond"]
        t = cond.streams["image"].t
        assert t is not None
        noisy = self.base.denoiser.path.mix(self.reference, self.noise, shift(t, math.exp(-2 * MU)))
        lane = replace(cond, streams={"image": Stream(noisy, t=t)}, call=replace(cond.call, lane="reference"))
        return {"reference": lane, **lanes}

    def update(self, run: OdeRun, outs: Mapping[str, Out], rows: Rows) -> OdeRun:
        return self.base.update(run, {lane: out for lane, out in outs.items() if lane != "reference"}, rows)

    def done(self, run: OdeRun) -> bool:
        return self.base.done(run)


NET, ROWS = Denoiser(mmdit()), Rows((5,))
REQUEST = DrawRequest((4, 8, 8), {"cond": BASE, "uncond": conditions([2], seed=9)})


@torch.no_grad()
def sample(bank: Bank | None, spoil: bool = False) -> Tensor:
    """The picture; `spoil`: the reference lane's prediction is lost. A session that does nothing keeps lanes apart as a bank does."""

    def answers(calls: Mapping[str, NetCall]) -> dict[str, Out]:
        outs = evaluate(NET, calls)
        return {n: Out({"image": o.pred["image"] * math.nan}) if spoil and n == "reference" else o for n, o in outs.items()}

    ode = Ode(NET, Euler(), grid(4, math.exp(MU)), sessions=(bank or Session(),))
    process = ode if bank is None else Referenced(ode, bank, image(1, seed=8)["image"].x, ROWS.normal((4, 8, 8), "noise"))
    return ode.result(finish(process, ode.init(REQUEST, ROWS), ROWS, answers))


def test_the_reference_is_cleaner_than_the_target_at_every_step() -> None:
    target = grid(30, math.exp(MU))[:-1]
    reference = shift(target, math.exp(-2 * MU))
    steps = torch.tensor([0, 5, 10, 15, 20, 25, 29])
    assert torch.allclose(target[steps].float(), torch.tensor([1, 0.9037, 0.7897, 0.6525, 0.4842, 0.2730, 0.0608]), atol=1e-4)
    assert torch.allclose(reference[steps].float(), torch.tensor([1, 0.7270, 0.5158, 0.3475, 0.2103, 0.0963, 0.0180]), atol=1e-4)
    odds = lambda s: s / (1 - s)  # noqa: E731
    assert torch.allclose(odds(target[1:]) / odds(reference[1:]), torch.tensor(math.exp(2 * MU), dtype=torch.float64))


def test_the_reference_lane_is_read_and_its_prediction_dropped() -> None:
    vital = frozenset({0, 2})
    base, bank = sample(None), Bank(FOREGROUND, vital)
    shared = sample(bank)
    assert not torch.allclose(shared, base, atol=1e-4) and torch.equal(shared, sample(Bank(FOREGROUND, vital), spoil=True))
    assert {site.block for site in bank.held} == vital
    assert all(stored.k.shape == stored.v.shape == (1, 2, 8, 16) for _, stored in bank.held.values())
    assert not torch.allclose(shared, sample(Bank(FOREGROUND, frozenset({0}))), atol=1e-5)


def test_nothing_to_share_is_the_plain_sampler() -> None:
    assert torch.equal(sample(Bank(FOREGROUND, frozenset())), sample(None))
    nobody = torch.zeros(16, dtype=torch.bool)
    assert torch.allclose(sample(Bank(nobody, frozenset({0, 1, 2}), text_scale=1.0)), sample(None), atol=1e-4)


@torch.no_grad()
def test_recording_leaves_its_lane_untouched_and_lanes_keep_step() -> None:
    bank = Bank(FOREGROUND, frozenset({0, 1, 2}))
    ask = partial(NET.out, image(1)["image"].x, torch.tensor([0.5]), BASE)
    assert torch.equal(ask(Call((bank,), lane="reference", step=3)).pred["image"], ask().pred["image"])
    with pytest.raises(ConflictError, match="step 4 found a reference of step 3"):
        ask(Call((bank,), lane="cond", step=4))


def rotate(x: Tensor, pos: Tensor) -> Tensor:
    """Rotary positions: pairs of channels turn by pos (B | 1, N, 1), each pair at its own rate."""
    rates = torch.tensor([1.0, 0.1])
    angle = (pos * rates)[:, None]
    a, b = x.unflatten(-1, (2, 2)).unbind(-1)
    return torch.stack([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], dim=-1).flatten(-2)


def test_stored_keys_rotate_in_the_core() -> None:
    """Adding a stream's own keys and values once more raises its logits by ln 2, wherever the tokens stand."""
    random = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randn(1, 2, n, 4, generator=random)  # noqa: E731
    picture = Heads(draw(5), draw(5), draw(5), pos=torch.arange(5.0)[None, :, None])
    text = Heads(draw(3), draw(3), draw(3), pos=torch.zeros(1, 3, 1))
    heads = {"image": picture, "text": text}
    twice = Group((Stored(picture.k, picture.v, pos=picture.pos), "image", "text"))
    found = attend(heads, {"image": [twice], "text": [twice]}, rotate)
    k = torch.cat([rotate(h.k, h.pos) for h in heads.values()], 2)
    v = torch.cat([h.v for h in heads.values()], 2)
    raised = torch.tensor([math.log(2.0)] * 5 + [0.0] * 3)
    for name, own in heads.items():
        weights = (rotate(own.q, own.pos) @ k.transpose(2, 3) / 2 + raised).softmax(-1)
        assert torch.allclose(found[name], weights @ v, atol=1e-6)
    unrotated = attend(heads, {"image": [Group((Stored(picture.k, picture.v), "image", "text"))]}, rotate)
    assert not torch.allclose(unrotated["image"], found["image"], atol=1e-3)
