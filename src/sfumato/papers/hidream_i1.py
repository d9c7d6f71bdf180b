"""HiDream-I1 (arXiv 2505.22705): a sparse diffusion transformer, each block with its own layer of a language model.

The smoke check holds its parts against the paper's formulas, the released configuration and the schedules of its three releases. No delta
against a dense network was published, and none is measured here yet.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..backbones.hidream import HiDream, HiDreamConfig, swiglu_hidden, tiny
from ..core.conditions import Conditions, Tokens
from ..core.rng import Rows
from ..core.state import Stream
from ..nn.moe import MixtureOfExperts
from ..sampling.schedules import grid, token_shift
from .claims import Budget, Claim, Finding, Outcome, exact

CLAIM = Claim(
    slug="hidream-i1",
    title="HiDream-I1: A High-Efficient Image Generative Foundation Model with Sparse Diffusion Transformer",
    arxiv="2505.22705",
    statement="A diffusion transformer whose MLPs are mixtures of experts, and whose blocks each hear their own layer of a language model, "
    "follows prompts better than dense ones that cost as much a token.",
    budgets=("smoke",),
)
PARAMETERS = 17_105_733_184
# Sigmas of the released few-step models: (shift, steps) -> the first and the last ones before the data.
DEV, FAST = (1.0, 0.99367, 0.98693, 0.21148, 0.03478), (1.0, 0.18297, 0.00893)
Question = tuple[Mapping[str, Stream], Conditions]


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks; there is no other budget."""
    with torch.no_grad():
        return Outcome((*experts(), *network(), *sampling()))


def experts() -> tuple[Finding, ...]:
    """The mixture against its explicit sum, and its balance."""
    torch.manual_seed(0)
    mixed, x = MixtureOfExperts(32, 64, 32), Rows((1, 2)).normal((16, 32), "tokens")
    p, weights, chosen = mixed.route(x)
    kept = torch.zeros_like(p).scatter(-1, chosen, weights)
    summed = mixed.shared(x) + torch.stack([kept[..., e : e + 1] * expert(x) for e, expert in enumerate(mixed.experts)]).sum(0)
    weight, everyone = HiDreamConfig.balance, torch.ones(2, 16, dtype=torch.bool)
    largest = float(weights.detach().sum(-1).max())
    findings = (
        exact("experts against shared(x) + sum of w E(x), largest difference", 0, _gap(mixed(x), summed), 1e-6),
        Finding("the two weights of a token sum to, at most", "below 1", largest, largest < 1),
    )
    nn.init.zeros_(mixed.router.weight)
    return (*findings, exact("balance loss of a router of zeros", 0.01, weight * mixed.balance(x, everyone).item(), 1e-8))


def network() -> tuple[Finding, ...]:
    """Its size, its start, and who hears what."""
    with torch.device("meta"):
        count = sum(p.numel() for p in HiDream(HiDreamConfig()).parameters())
    net, (streams, cond) = tiny(taps=(0, 2, 1)), _question()
    fresh = HiDream(net.config)
    base, shuffled = _answer(net, streams, cond), torch.randperm(16, generator=torch.Generator().manual_seed(0))
    other = Rows((5, 6)).normal((16, 8), "other")
    moved = (_changed(cond, "text", slice(None), cond.tokens["text"].states[:, shuffled]), _tap(cond, 0, _tap_of(cond, 0)[:, shuffled]))
    order = max(_gap(_answer(net, streams, c), base) for c in moved)
    heard = _gap(_answer(net, streams, _tap(cond, 0, other)), base)
    for name, parameter in net.blocks[2].named_parameters():
        if "modulation" in name:
            parameter.zero_()
    closed = _answer(net, streams, cond)
    deaf, last = (_gap(_answer(net, streams, _tap(cond, layer, other)), closed) for layer in (0, 1))
    return (
        exact("parameters of the published network", PARAMETERS, count),
        exact("hidden channels of its routed and shared experts", (6912, 3584), (swiglu_hidden(10_240), swiglu_hidden(5_120))),
        exact("a new network answers 0, largest value", 0, float(_answer(fresh, streams, cond).abs().max())),
        exact("words or a tap in another order: the answer's largest change", 0, order, 1e-5),
        Finding("another tap: the answer's largest change", "above 0.001", heard, heard > 1e-3),
        exact("the same where its block's gates are closed", 0, deaf),
        Finding("another last tap there, which is also among the words", "above 0.001", last, last > 1e-3),
    )


def sampling() -> tuple[Finding, ...]:
    """The shift at 1024 x 1024, and the schedules of Dev and Fast."""
    dev, fast = grid(28, 6.0, "released"), grid(16, 3.0, "released")
    return (
        exact(
            "shift at 256 and at 4096 tokens",
            (1.648721, 3.158193),
            tuple(token_shift(n, (256, 0.5, 4096, 1.15)) for n in (256, 4096)),
            1e-6,
        ),
        exact("Dev, shift 6, 28 steps: first three and last two sigmas", DEV, dev[[0, 1, 2, -3, -2]].tolist(), 5e-6),
        exact("Fast, shift 3, 16 steps: first and last two sigmas", FAST, fast[[0, -3, -2]].tolist(), 5e-6),
    )


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def _question() -> Question:
    """Two rows of latents, words and three layers of taps for `tiny(taps=(0, 2, 1))`."""
    rows, keep = Rows((0, 1)), torch.ones(2, 16, dtype=torch.bool)
    tokens = {name: Tokens(rows.normal((16, width), name), keep) for name, width in (("text", 12), ("taps", 24))}
    image = Stream(rows.normal((4, 8, 8), "image"), t=torch.tensor([0.3, 0.8]))
    return {"image": image}, Conditions(tokens, {"pooled": rows.normal((6,), "pooled")})


def _answer(net: HiDream, streams: Mapping[str, Stream], cond: Conditions) -> Tensor:
    answer: Tensor = net(streams, cond).pred["image"]
    return answer


def _changed(cond: Conditions, slot: str, channels: slice, states: Tensor) -> Conditions:
    whole = cond.tokens[slot].states.clone()
    whole[..., channels] = states
    return Conditions({**cond.tokens, slot: Tokens(whole, cond.tokens[slot].keep)}, cond.vectors)


def _tap_of(cond: Conditions, layer: int) -> Tensor:
    return cond.tokens["taps"].states[..., 8 * layer : 8 * layer + 8]


def _tap(cond: Conditions, layer: int, states: Tensor) -> Conditions:
    """`cond` with another tap, 8 wide as the tiny network's are."""
    return _changed(cond, "taps", slice(8 * layer, 8 * layer + 8), states)
