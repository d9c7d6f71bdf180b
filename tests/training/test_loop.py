"""The loop: accumulation, freezing, averages, schedules, and stopping where values stop being finite."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import mmdit
from tests.training.tasks import Regression, config, pairs
from torch import nn

from sfumato.core.errors import ConfigError, NonFiniteError
from sfumato.core.rng import Draws
from sfumato.core.task import Loss, Phase
from sfumato.training import checkpoints
from sfumato.training.ema import Ema
from sfumato.training.loop import TrainConfig, train
from sfumato.training.optimizers import OptimizerConfig, build, set_rate


def fitted(folder: Path, size: int, **options: Any) -> torch.Tensor:
    return train(Regression(), {"train": pairs(size)}, config(5, **options), folder, quiet=True).modules["net"].weight.detach()


def test_accumulated_micro_batches_equal_the_bigger_batch(tmp_path: Path):
    whole = fitted(tmp_path / "8", 8)
    for parts in (2, 4):
        torch.testing.assert_close(fitted(tmp_path / str(parts), 8 // parts, accumulate=parts), whole, rtol=1e-5, atol=1e-6)


def test_what_a_phase_does_not_name_stays_frozen(tmp_path: Path):
    task = Regression()
    before = task.frozen.weight.detach().clone(), task.net.weight.detach().clone()
    train(task, {"train": pairs(4)}, config(3), tmp_path, quiet=True)
    assert torch.equal(task.frozen.weight, before[0]) and not torch.equal(task.net.weight, before[1])
    assert not task.frozen.training and task.net.training


def test_a_phase_that_appears_late_is_refused_with_the_reason(tmp_path: Path):
    task = Regression()
    task.phases = lambda step: [Phase("fit" if step < 2 else "adversary", ("net",))]  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="'adversary' first appears at step 2"):
        train(task, {"train": pairs(4)}, config(5), tmp_path, quiet=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_step_and_phase(bad: float, tmp_path: Path):
    task = Regression(lambda step: bad if step == 2 else 1.0)
    with pytest.raises(NonFiniteError, match=r"loss of phase 'fit' is (nan|inf) at step 2 \(fp32; error"):
        train(task, {"train": pairs(4)}, config(5, checkpoint_seconds=0.0), tmp_path, quiet=True)
    assert all(torch.isfinite(p).all() for p in task.net.parameters())
    assert checkpoints.existing(tmp_path)[-1].name == "step-00000002"


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path):
    class Rooted(Regression):
        def loss(self, phase: Phase, batch: Any, carry: Any, draws: Draws) -> Loss:
            return Loss((0 * self.net.weight.sum()).abs().sqrt())

    task = Rooted()
    before = task.net.weight.detach().clone()
    with pytest.raises(NonFiniteError, match="gradient of phase 'fit' is nan at step 0"):
        train(task, {"train": pairs(4)}, config(2), tmp_path, quiet=True)
    assert torch.equal(task.net.weight, before)


def test_clipping_bounds_the_step(tmp_path: Path):
    loose, tight = (fitted(tmp_path / str(clip), 4, clip=clip) for clip in (0.0, 1e-12))
    start = Regression().net.weight.detach()
    # Adam divides by the gradient's size, until that drowns in its epsilon.
    assert float((tight - start).norm()) < 0.1 * float((loose - start).norm())


def test_phases_alternate_and_pass_values_on(tmp_path: Path):
    seen: list[tuple[str, int, bool, bool]] = []

    class Two(Regression):
        def phases(self, step: int) -> list[Phase]:
            return [Phase("teacher", ("frozen",), every=2), Phase("fit", ("net",))]

        def loss(self, phase: Phase, batch: Any, carry: Any, draws: Draws) -> Loss:
            seen.append((phase.name, draws.step, self.net.weight.requires_grad, "mark" in carry))
            carry["mark"] = True
            return super().loss(phase, batch, carry, draws)

    train(Two(), {"train": pairs(4)}, config(3), tmp_path, quiet=True)
    expected = [("teacher", 0, False, False), ("fit", 0, True, True), ("fit", 1, True, False)]
    assert seen == [*expected, ("teacher", 2, False, False), ("fit", 2, True, True)]


@given(st.floats(0, 0.999), st.integers(1, 8))
def test_the_average_follows_its_formula(decay: float, steps: int):
    net = nn.Linear(2, 1)
    ema, expected = Ema(net, decay), net.weight.detach().clone()
    for step in range(1, steps + 1):
        with torch.no_grad():
            net.weight += step
        ema.update(net, step)
        d = min(decay, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * net.weight.detach()
    torch.testing.assert_close(ema.shadow["weight"], expected)


def test_the_average_is_fp32_of_bf16_weights_and_only_lent():
    net = nn.Linear(2, 1).bfloat16()
    ema = Ema(net, 0.9)
    assert ema.shadow["weight"].dtype == torch.float32
    own = net.weight.detach().clone()
    with torch.no_grad():
        net.weight += 1
    moved = net.weight.detach().clone()
    with pytest.raises(RuntimeError), ema.applied(net):
        assert torch.equal(net.weight, own)
        raise RuntimeError
    assert torch.equal(net.weight, moved)


configs = st.builds(
    OptimizerConfig,
    warmup=st.integers(0, 50),
    decay=st.sampled_from(["linear", "cosine", "none"]),
    decay_from=st.floats(0, 1),
)


@given(configs, st.integers(1, 200))
def test_learning_rates_rise_stay_and_fall(settings: OptimizerConfig, steps: int):
    factors = [settings.factor(step, steps) for step in range(steps)]
    assert all(0 < f <= 1 + 1e-12 for f in factors)
    warm, rest = factors[: settings.warmup], factors[settings.warmup :]
    assert warm == sorted(warm) and rest == sorted(rest, reverse=True)
    assert not rest or rest[0] == pytest.approx(1.0)
    if settings.decay == "none":
        assert all(f == 1.0 for f in rest)
    elif (falling := steps - max(settings.warmup, int(settings.decay_from * steps))) > 0:
        assert factors[-1] <= 1 / falling + 1e-9


def test_the_rate_falls_to_zero_at_the_end_and_by_half_in_the_middle():
    for decay in ("linear", "cosine"):
        settings = OptimizerConfig(warmup=0, decay=decay)  # type: ignore[arg-type]
        assert settings.factor(50, 100) == pytest.approx(0.5) and settings.factor(100, 100) == pytest.approx(0.0)


def test_every_parameter_is_in_exactly_one_group_and_matrices_alone_decay():
    net = mmdit()
    for name in ("adamw", "muon"):
        optimizers = build([net], OptimizerConfig(name=name, weight_decay=0.3))  # type: ignore[arg-type]
        grouped = [p for o in optimizers for g in o.param_groups for p in g["params"]]
        assert len(grouped) == len({id(p) for p in grouped}) == len(list(net.parameters()))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                assert all((p.ndim >= 2) == (group["weight_decay"] > 0) for p in group["params"])
    hidden = {id(p) for p in optimizers[1].param_groups[0]["params"]}
    assert hidden == {id(p) for n, p in net.named_parameters() if n.startswith("blocks.") and p.ndim == 2}
    set_rate(optimizers, 0.25)
    assert [g["lr"] for o in optimizers for g in o.param_groups] == pytest.approx([2.5e-4, 2.5e-4, 5e-4])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"accumulate": 0}, {"ema": 1.0}, {"ema": -0.1}, {"log_every": 0}, {"clip": -1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError):
        TrainConfig(**{"steps": 3, **wrong})
    with pytest.raises(ConfigError):
        OptimizerConfig(lr=0.0)
    with pytest.raises(ConfigError):
        OptimizerConfig(decay_from=1.5)
