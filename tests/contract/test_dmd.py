"""DMD2: a one-step generator follows the difference of two scores, the frozen teacher's and that of a fake model trained on its outputs.

Exercises a Task with three networks and two phases, `every`, a carry per micro-batch, gradients through frozen networks (a classifier on
tapped features of the fake), and the training loop as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, softplus

from sfumato.backbones.mmdit import MMDiT, tiny
from sfumato.core.call import Call
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.denoiser import Denoiser
from sfumato.core.rng import Draws
from sfumato.core.task import Batch, Loss, Phase
from sfumato.objectives.denoising import Denoising
from sfumato.training.batches import Columns
from sfumato.training.loop import TrainConfig, train
from sfumato.training.optimizers import OptimizerConfig

from .sketches import prompt, same, seeded, weights

TAP = "blocks.1.mlp.image"


def matching_gradient(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """(p_real - p_fake) / mean |p_real| with p = x - x0 of each: (fake - real) on the scale of the teacher's error."""
    scale = (x - real).abs().flatten(1).mean(1).view(-1, 1, 1, 1)
    return torch.nan_to_num(((x - real) - (x - fake)) / scale)


def matching_loss(x: Tensor, gradient: Tensor) -> Tensor:
    """Its derivative by x is `gradient` / numel."""
    return 0.5 * mse_loss(x, (x - gradient).detach())


class DMD2:
    """The generator moves on each `ratio`-th step, the fake and its logit on every one."""

    def __init__(self, teacher: MMDiT, ratio: int, guidance: float = 2.0, gan: float = 0.1) -> None:
        generator, fake, logit = deepcopy(teacher), deepcopy(teacher), nn.Linear(teacher.config.width, 1)
        self.modules: Mapping[str, nn.Module] = {"generator": generator, "fake": fake, "logit": logit, "teacher": teacher}
        self.generator, self.fake, self.teacher, self.logit = Denoiser(generator), Denoiser(fake), Denoiser(teacher), logit
        self.ratio, self.guidance, self.gan = ratio, guidance, gan
        self.log: list[tuple[int, str, dict[str, dict[str, Tensor]]]] = []

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("generator", ("generator",), every=self.ratio), Phase("fake", ("fake", "logit"))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        self.log.append((draws.step, phase.name, {n: weights(m) for n, m in self.modules.items()}))
        for name, module in self.modules.items():
            assert all(p.requires_grad is (name in phase.trains) and (p.requires_grad or p.grad is None) for p in module.parameters())
        cond = Conditions({"text": Tokens(batch["text"], batch["keep"])}, {"pooled": batch["pooled"]})
        if phase.name == "generator":
            x = self.generate(batch, cond, draws)
            carry |= {"x": x.detach(), "index": batch["index"]}
            return self.generator_loss(x, cond, draws)
        if carry:
            assert torch.equal(carry["index"], batch["index"])
        else:
            with torch.no_grad():
                carry["x"] = self.generate(batch, cond, draws)
        sample = Denoising().draw(carry["x"], draws)
        denoising = Denoising().loss(self.fake.out(sample.x_t, sample.t, cond).pred["image"], sample).mean()
        judged = softplus(self.judge(carry["x"], cond, draws)).mean() + softplus(-self.judge(batch["latents"], cond, draws)).mean()
        return Loss(denoising + judged, {"judged": judged})

    def generate(self, batch: Batch, cond: Conditions, draws: Draws) -> Tensor:
        noise = draws.normal(batch["latents"].shape, "z")
        return self.generator.x0(noise, torch.ones(len(noise)), cond)

    def generator_loss(self, x: Tensor, cond: Conditions, draws: Draws) -> Loss:
        gradient = self.gradient(x.detach(), cond, draws)
        adversarial = softplus(-self.judge(x, cond, draws)).mean()
        return Loss(matching_loss(x, gradient) + self.gan * adversarial, {"gradient": gradient.abs().mean()})

    @torch.no_grad()
    def gradient(self, x: Tensor, cond: Conditions, draws: Draws) -> Tensor:
        t = 0.02 + 0.96 * draws.uniform((len(x),), "t")
        x_t = self.teacher.path.mix(x, draws.normal(x.shape, "renoise"), t)
        real = self.teacher.x0(x_t, t, cond)
        if self.guidance != 1.0:
            plain = self.teacher.x0(x_t, t, prompt(len(x), seed=99))
            real = plain + self.guidance * (real - plain)
        return matching_gradient(x, real, self.fake.x0(x_t, t, cond))

    def judge(self, x: Tensor, cond: Conditions, draws: Draws) -> Tensor:
        """The logit of noised pictures, from the fake's features at mid depth."""
        t = draws.uniform((len(x),), "judge t")
        x_t = self.fake.path.mix(x, draws.normal(x.shape, "judge noise"), t)
        return self.logit(self.fake.out(x_t, t, cond, Call(taps=frozenset({TAP}))).feats[TAP].mean(1))


def data() -> Columns:
    cond = prompt(6)
    latents = torch.randn(6, 4, 4, 4, generator=seeded(2))
    text = cond.tokens["text"]
    columns = {"latents": latents, "text": text.states, "keep": text.keep, "pooled": cond.vectors["pooled"]}
    return Columns({n: c.contiguous() for n, c in columns.items()}, size=2, seed=0)


def test_phases_of_unequal_pace_through_the_loop(tmp_path: Path) -> None:
    task, steps, ratio = DMD2(tiny(), ratio=3), 5, 3
    before = weights(task.modules["teacher"])
    config = TrainConfig(steps, OptimizerConfig(lr=1e-3, warmup=0, decay="none"), accumulate=2, ema=0.0, precision="fp32")
    train(task, {"train": data()}, config, tmp_path, quiet=True)

    assert same(weights(task.modules["teacher"]), before)
    assert not any(p.requires_grad for p in task.modules["teacher"].parameters())
    order = [(step, name) for step, name, _ in task.log]
    assert order == [(s, n) for s in range(steps) for n in (("generator",) if s % ratio == 0 else ()) + ("fake",) for _ in range(2)]
    # Weights as the fake's first micro-batch of each step saw them, then as they ended.
    seen = {s: w for s, name, w in reversed(task.log) if name == "fake"} | {steps: {n: weights(m) for n, m in task.modules.items()}}
    moved = {n: [not same(seen[s][n], seen[s + 1][n]) for s in range(steps)] for n in ("generator", "fake", "logit")}
    assert moved["fake"] == [True] * steps and moved["logit"] == [True] * steps
    assert moved["generator"] == [False, False, True, False, False]


def test_a_run_cut_in_two_is_the_whole_run(tmp_path: Path) -> None:
    def run(folder: Path, *lengths: int) -> dict[str, Tensor]:
        for steps in lengths:
            task = DMD2(tiny(), ratio=2)
            config = TrainConfig(steps, OptimizerConfig(lr=1e-3, warmup=0, decay="none"), ema=0.5, precision="fp32")
            train(task, {"train": data()}, config, folder, quiet=True)
        return weights(task.modules["generator"]) | {f"fake.{n}": w for n, w in weights(task.modules["fake"]).items()}

    assert same(run(tmp_path / "cut", 3, 4), run(tmp_path / "whole", 4))


def test_gradients_flow_through_frozen_networks() -> None:
    task, cond, draws = DMD2(tiny(), ratio=1), prompt(2), Draws(0, 0)
    for name in ("fake", "teacher", "logit"):
        task.modules[name].requires_grad_(False)
    softplus(-task.judge(task.generate({"latents": torch.zeros(2, 4, 4, 4)}, cond, draws), cond, draws)).mean().backward()
    assert all(p.grad is None for n in ("fake", "teacher", "logit") for p in task.modules[n].parameters())
    assert task.modules["generator"].final.weight.grad.abs().max() > 0


def test_the_matching_gradient() -> None:
    x, real, fake = (torch.randn(2, 3, 4, 4, generator=seeded(s)) for s in range(3))
    leaf, g = x.clone().requires_grad_(), matching_gradient(x, real, fake)
    loss = matching_loss(leaf, g)
    loss.backward()
    assert torch.allclose(leaf.grad, g / g.numel(), atol=1e-7) and loss.item() == pytest.approx(0.5 * g.square().mean().item(), rel=1e-5)
    assert torch.allclose(matching_gradient(7 * x, 7 * real, 7 * fake), g, atol=1e-5)
    same_start = DMD2(tiny(), ratio=1, guidance=1.0)
    assert not same_start.gradient(x.new_ones(2, 4, 4, 4), prompt(2), Draws(0, 0)).any()
    assert DMD2(tiny(), ratio=1).gradient(x.new_ones(2, 4, 4, 4), prompt(2), Draws(0, 0)).any()
