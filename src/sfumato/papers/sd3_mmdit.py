"""SD3 (Esser et al., arXiv 2403.03206): rectified flow with logit-normal times, and MM-DiT.

The smoke check holds its parts against the paper's formulas and parameter counts. The measured claims: logit-normal times beat uniform
ones at equal pictures seen, above all at few sampling steps; and normalised queries and keys keep attention's logits from growing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..backbones.mmdit import MMDiT, MMDiTConfig, tiny
from ..core.call import Call
from ..core.conditions import Conditions, nulled
from ..core.denoiser import Denoiser
from ..core.program import Network
from ..core.rng import Rows
from ..core.state import Out, Stream
from ..nn.modulation import modulate
from ..objectives.times import CosMap, LogitNormal, Mode
from ..sampling.guidance import ClassifierFree
from ..sampling.loop import draw
from ..sampling.ode import DrawRequest, Ode
from ..sampling.schedules import grid, shift
from ..sampling.solvers import Euler
from ..training.diffusion import TEXT_SLOTS
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import asked, gap, parameters
from .sd3_study import measure

CLAIM = Claim(
    slug="sd3-mmdit",
    title="Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
    arxiv="2403.03206",
    statement="Rectified flow trained with times from a logit-normal law, which looks at the middle of the path more often, draws better "
    "pictures than with uniform times at the same training cost, above all in few sampling steps; and norms of queries and keys keep the "
    "logits of attention from growing.",
)
# Depth -> parameters of MM-DiT(depth) with 16 channels, text states of 4096, pooled text of 2048 and QK-norm.
PARAMETERS = {15: 496_070_464, 18: 856_164_160, 24: 2_028_334_144, 30: 3_962_400_064, 38: 8_056_627_520}


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks. Otherwise trained networks, compared."""
    if budget.name == "smoke":
        return Outcome((*times(), *network(), *sampling()))
    return measure(budget)


def times() -> tuple[Finding, ...]:
    """The shift, and the laws that training times are drawn from."""
    t, u = _f64(0.1, 0.25, 0.5, 0.75, 0.9), torch.linspace(0, 1, 100_001, dtype=torch.float64)
    normal, mode, cosmap = LogitNormal(), Mode(1.29), CosMap()
    inside = ((normal.sample(u) > 0.25) & (normal.sample(u) < 0.75)).double().mean()
    return (
        exact("shift of t by 3", (0.25, 0.5, 0.75, 0.9, 0.964286), shift(t, 3.0).tolist(), 1e-6),
        exact("two shifts are the shift by the product, largest difference", 0.0, gap(shift(shift(t, 1.7), 2.5), shift(t, 4.25)), 1e-15),
        exact("shift by 1 changes nothing, largest difference", 0.0, gap(shift(t, 1.0), t)),
        exact("logit-normal density at 0.5 and 0.25", (1.595769, 1.163652), normal.density(_f64(0.5, 0.25)).tolist(), 1e-6),
        exact("logit-normal mass of (0.25, 0.75)", 0.728063, float(torch.trapezoid(normal.density(0.25 + u / 2), u / 2)), 1e-6),
        exact("logit-normal samples in (0.25, 0.75)", 0.728063, float(inside), 1e-4, "share"),
        exact("mode(1.29) at u = 0, 0.25, 0.5, 1", (1.0, 0.616416, 0.5, 0.0), mode.sample(_f64(0.0, 0.25, 0.5, 1.0)).tolist(), 1e-6),
        exact("CosMap at u = 0.1, 0.5", (0.136729, 0.5), cosmap.sample(_f64(0.1, 0.5)).tolist(), 1e-6),
        exact("CosMap density at 0.5", 1.273240, float(cosmap.density(_f64(0.5))), 1e-6),
    )


def network() -> tuple[Finding, ...]:
    """MM-DiT: its start, its special cases, its size."""
    with torch.no_grad():
        fresh, tied = MMDiT(tiny().config), _tied(tiny())
        streams, cond = asked(fresh, words=16)
        state = fresh.start(streams, cond)
        after = fresh.run(state, 0, len(fresh.blocks))
        joint = tied.run(tied.start(streams, cond), 0, len(tied.blocks))
        with_norm, without = (_query_gain(tiny(qk_norm=qk)) for qk in (True, False))
        absent, present = (_apart(tiny(), absent) for absent in (True, False))
        return (
            exact("a new network's blocks are the identity, largest change", 0, max(gap(after[s], state[s]) for s in state.streams)),
            exact("a new network answers 0, largest value", 0, float(fresh(streams, cond).pred["image"].abs().max())),
            exact("tied weights are the shared-weight DiT, largest difference", 0, gap(joint["image"], _shared_dit(tied, streams, cond))),
            *(exact(f"parameters at depth {d}", count, _parameters(d)) for d, count in PARAMETERS.items()),
            exact("parameters at depth 24 without QK-norm", 2_028_328_000, _parameters(24, qk_norm=False)),
            exact("QK-norm: the answer's change when Wq grows 100 times", 0, with_norm, 1e-4, "relative"),
            Finding("without QK-norm: the same", "above 0.01", without, without > 0.01, "relative"),
            exact("absent text: the answers to two prompts differ by", 0, absent),
            Finding("present text: the answers to two prompts differ by", "above 0", present, present > 0),
        )


def sampling() -> tuple[Finding, ...]:
    """The grids of paper and released code, and a step of Euler on a straight path."""
    x0, noise = Rows((7,)).normal((4, 8, 8), "data"), Rows((0,)).normal((4, 8, 8), "noise")
    ode = Ode(Denoiser(_Straight(noise - x0)), Euler(), grid(1), ClassifierFree(1.0))
    drawn = draw(ode, DrawRequest((4, 8, 8), {"cond": Conditions()}), Rows((0,)))
    return (
        exact("one Euler step with eps - x0 gives x0, largest error", 0.0, gap(drawn, x0), 1e-6),
        exact("grid of 4 steps, shift 3", (1.0, 0.9, 0.75, 0.5, 0.0), grid(4, 3.0).tolist(), 1e-6),
        exact("released code's grid of 4 steps, shift 3", (1.0, 0.8577, 0.6022, 0.0089, 0.0), grid(4, 3.0, "released").tolist(), 5e-5),
    )


class _Straight(Network):
    """Answers with the flow it was given."""

    def __init__(self, flow: Tensor) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None = None) -> Out:
        return Out({"image": self.flow})


def _f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _tied(net: MMDiT) -> MMDiT:
    """`net` with the image's weights for the text too; the last text modulation has no gate to take."""
    state = net.state_dict()
    image = {name: state[name.replace(".text.", ".image.")] for name in state if name.startswith("blocks.")}
    net.load_state_dict(state | {name: value[: len(state[name])] for name, value in image.items()})
    return net


def _shared_dit(net: Any, streams: Mapping[str, Stream], cond: Conditions) -> Tensor:
    """A plain DiT on the concatenated sequence with the image's weights of `net`; the image tokens after the last block."""
    state = net.start(streams, cond)
    x, c = torch.cat([state["image"], state["text"]], 1), state.cond["c"]
    for block in net.blocks:
        (shift_a, scale_a, gate_a), (shift_m, scale_m, gate_m) = (branch.modulation["image"](c) for branch in (block.attention, block.mlp))
        projections = block.attention.core.projections["image"]
        heads = projections.project(y := modulate(block.attention.norm(x), shift_a, scale_a), Stream(y), None)
        x = x + gate_a * projections.out(scaled_dot_product_attention(heads.q, heads.k, heads.v).transpose(1, 2).flatten(2))
        x = x + gate_m * block.mlp.core["image"](modulate(block.mlp.norm(x), shift_m, scale_m))
    return x[:, : state["image"].shape[1]]


def _parameters(depth: int, qk_norm: bool = True) -> int:
    return parameters(MMDiTConfig(depth, 64 * depth, depth, channels=16, text_width=4096, pooled_width=2048, qk_norm=qk_norm))


def _query_gain(net: Any) -> float:
    """Relative change of the answer when every query projection is 100 times as large."""
    streams, cond = asked(net, words=16)
    before = net(streams, cond).pred["image"]
    for parameter in (p for name, p in net.named_parameters() if ".q.weight" in name or ".q.bias" in name):
        parameter.mul_(100)
    return gap(net(streams, cond).pred["image"], before) / float(before.abs().max())


def _apart(net: MMDiT, absent: bool) -> float:
    """How far the answers to two prompts lie apart; `absent`: both prompts replaced by their null form."""
    (streams, first), (_, second) = (asked(net, seed, 16) for seed in (1, 2))
    everyone = {slot.group: torch.ones(2, dtype=torch.bool) for slot in TEXT_SLOTS}
    told = [nulled(cond, TEXT_SLOTS, everyone) if absent else cond for cond in (first, second)]
    return gap(*(net(streams, cond).pred["image"] for cond in told))
