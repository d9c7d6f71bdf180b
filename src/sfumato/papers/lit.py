"""LiT (Wang et al., arXiv 2501.12976): a trained diffusion transformer made linear in its tokens, with a depth-wise convolution beside
linear attention, few heads, everything inherited but attention, and hybrid distillation.

The smoke check holds linear attention and what a network inherits against the paper. What conversion costs in quality is not measured yet:
it needs a converged teacher with 1024 or more picture tokens, whose training alone takes a CPU days.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..backbones import pixart
from ..core.attention import Heads, linear_attend
from ..core.call import Site
from ..core.rng import normal
from ..core.state import State, Stream
from ..nn.linear_attention import FLOOR, LocalLinearAttention
from ..nn.projections import AttentionShape
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import asked, gap

CLAIM = Claim(
    slug="lit",
    title="LiT: Delving into a Simple Linear Diffusion Transformer for Image Generation",
    arxiv="2501.12976",
    statement="A converged diffusion transformer becomes linear in its tokens at nearly its quality in a fifth of its training steps, when "
    "a depth-wise convolution stands beside ReLU linear attention with few heads and all weights but those of attention are inherited.",
    budgets=("smoke",),
)
GRID, WIDTH = (5, 7), 12


def check(budget: Budget) -> Outcome:
    """The exact checks."""
    return Outcome((*mixing(), *convolution(), *costs(), *inheritance()))


def mixing() -> tuple[Finding, ...]:
    """Linear in the tokens or in their square, it is one formula."""
    q, k, v = (_f64((2, 3, 35, 4), part) for part in "qkv")
    weights = (q.relu() + FLOOR) @ (k.relu() + FLOOR).transpose(-1, -2)
    square = weights / weights.sum(-1, keepdim=True) @ v
    constant = v[:, :, :1].expand_as(v)
    apart = _f64((2, 12, 35, 1), "q"), _f64((2, 12, 35, 1), "k"), _f64((2, 12, 35, 1), "v")
    one = _linear(*apart)
    return (
        exact("q (k v) / (q sum k) v (q k / row sum) v, largest difference", 0, gap(_linear(q, k, v), square), 1e-12),
        exact("equal values come back as they are, largest difference", 0, gap(_linear(q, k, constant), constant), 1e-12),
        exact("heads of width 1: how far two queries' answers differ", 0, gap(one, one[:, :, :1].expand_as(one)), 1e-12),
    )


@torch.no_grad()
def convolution() -> tuple[Finding, ...]:
    """What stands beside it: nothing while closed, the values where a kernel sees itself alone; and it alone knows places."""
    x, order = _f64((2, 35, WIDTH), "x"), torch.randperm(35, generator=torch.Generator().manual_seed(0))
    plain, values, inputs = _core(""), _core("v"), _core("x")
    moved = {name: gap(_said(core, x[:, order]), _said(core, x)[:, order]) for name, core in (("off", plain), ("on", values))}
    for core in (values, inputs):
        nn.init.zeros_(core.conv.weight)
        nn.init.zeros_(core.conv.bias)  # type: ignore[arg-type]
    closed = max(gap(_said(core, x), _said(plain, x)) for core in (values, inputs))
    values.conv.weight[:, :, 2, 2] = 1.0
    value, out = (values.projections["image"].get_submodule(part) for part in ("v", "out"))
    added = gap(_said(values, x) - _said(plain, x), out(value(x)) - out(torch.zeros_like(x)))
    return (
        exact("a convolution of zeros v none, largest difference", 0, closed, 1e-14),
        exact("a kernel of one place adds the values, largest difference", 0, added, 1e-12),
        exact("tokens shuffled, no convolution: the answers shuffle likewise, largest difference", 0, moved["off"], 1e-12),
        Finding("the same with a convolution", "above 0.01", moved["on"], moved["on"] > 0.01),
    )


def costs() -> tuple[Finding, ...]:
    """The paper's numbers at 256 tokens of 1152 channels; its count leaves out the normaliser, one channel's worth a head's."""
    shapes = {heads: AttentionShape(1152, heads, qk_norm=False) for heads in (4, 16)}
    linear = {h: LocalLinearAttention(s, ("image",), "").cost({"image": 256}, ("image",)) - 256 * s.projecting for h, s in shapes.items()}
    mixed = [(linear[h] - 2 * 256 * 1152) / 1e6 for h in (16, 4)]
    small = LocalLinearAttention(AttentionShape(384, 2, qk_norm=False), ("image",))
    return (
        exact("multiply-adds in millions, 16 heads and 4", (42.5, 169.9), mixed, 0.05),
        exact("the same of softmax", 151.0, shapes[16].cost(256, 256) / 1e6, 0.05),
        exact("parameters of a convolution for heads of 192", 4992, sum(p.numel() for p in small.conv.parameters())),
    )


@torch.no_grad()
def inheritance() -> tuple[Finding, ...]:
    """What a linear network takes from a softmax one: all but attention, cross-attention included."""
    teacher, student = pixart.tiny(seed=1, compress=()), pixart.tiny(attention="linear+v", compress=())
    weights, own = teacher.state_dict(), student.state_dict()
    loaded = {n for n in weights if ".attention.core." not in n}
    excluded = {n for n in own if ".attention.core." in n}
    student.load_state_dict(own | {n: weights[n] for n in loaded})
    cross = [n for n in own if ".cross." in n]
    equal = sum(torch.equal(student.state_dict()[n], weights[n]) for n in cross)
    apart = gap(*(net(*asked(net)).pred["image"] for net in (teacher, student)))
    return (
        exact("tensors that are neither inherited nor of attention", 0, len(own.keys() ^ (loaded | excluded))),
        exact("tensors of attention that the softmax network lacks: a kernel and a bias a block", 6, len(own.keys() - weights.keys())),
        exact("tensors of cross-attention bit-equal to the teacher's", len(cross), equal),
        Finding("teacher and student differ by", "above 0", apart, apart > 0),
    )


def _f64(shape: tuple[int, ...], purpose: str) -> Tensor:
    return normal(shape, (0, purpose, 0)).double()


def _linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return linear_attend({"image": Heads(q, k, v)}, None, FLOOR)["image"]


def _core(reads: str) -> LocalLinearAttention:
    torch.manual_seed(0)
    return LocalLinearAttention(AttentionShape(WIDTH, 2, qk_norm=False), ("image",), reads).double()  # type: ignore[arg-type]


def _said(core: LocalLinearAttention, x: Tensor) -> Tensor:
    found: Tensor = core({"image": x}, State({"image": Stream(x, grid=GRID)}), Site(0, "attention"), None)["image"]
    return found
