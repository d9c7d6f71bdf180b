"""Fluid: continuous picture tokens drawn in a random order, several a step, each by a small diffusion head on the transformer's features.

Exercises autoregression as a Process, `Stream.known` (mask tokens stand where nothing is known), answers that are features rather than
predictions, and a nested Process: the sampling room's own ODE, with guidance, run to its end inside one outer step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sfumato.core.blocks import Block, Branch
from sfumato.core.call import Call, Site
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.denoiser import Denoiser
from sfumato.core.process import NetCall, finish
from sfumato.core.program import Network
from sfumato.core.rng import Draws, Rows
from sfumato.core.state import Out, State, Stream
from sfumato.nn.embeddings import TimeEmbedding
from sfumato.nn.mlp import MLP
from sfumato.nn.modulation import Modulation, modulate
from sfumato.objectives.denoising import Denoising
from sfumato.sampling.guidance import ClassifierFree
from sfumato.sampling.loop import evaluate
from sfumato.sampling.ode import DrawRequest, Ode
from sfumato.sampling.schedules import grid
from sfumato.sampling.solvers import Euler

from .sketches import Attention, Feed, prompt, same

LENGTH, CHANNELS, WIDTH = 16, 3, 16


def words(seed: int = 0) -> Conditions:
    """Two prompts' tokens, without the pooled vector: Fluid reads none, and a slot that nothing reads is refused."""
    return replace(prompt(2, seed=seed), vectors={})


class Transformer(Network):
    """Tokens (B, L, C), known or not, to features z (B, L, D) of every position."""

    slots = frozenset({"text"})

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.text = nn.Linear(CHANNELS, WIDTH), nn.Linear(12, WIDTH)
        self.mask, self.positions = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(1, LENGTH, WIDTH))
        self.set_program([Block(Attention(WIDTH, ("image", "text")), Feed(WIDTH, ("image",))) for _ in range(2)])

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        return {}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        image, text = streams["image"], cond.tokens["text"]
        tokens = torch.where(image.known[..., None], self.enter(image.x), self.mask) + self.positions
        return {"image": replace(image, x=tokens), "text": Stream(self.text(text.states), keep=text.keep, update=False)}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        return {"image": state["image"]}


class Residual(Branch):
    """x += g MLP((1 + s) x + b), all three from each token's own condition."""

    name = "mlp"

    def __init__(self) -> None:
        super().__init__()
        self.modulation, self.core = Modulation(WIDTH, 3), MLP(WIDTH, WIDTH)
        nn.init.normal_(self.modulation.linear.weight, std=0.3)

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        shift, scale, gate = self.modulation(state.cond["z"], call)
        return {"image": modulate(state["image"], shift, scale)}, {"image": gate}

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        return {"image": self.core(inputs["image"], call)}


class Head(Network):
    """The diffusion head: tokens (B, n, C), each under its own z and none seeing another."""

    slots = frozenset({"z"})

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.enter, self.time, self.leave = nn.Linear(CHANNELS, WIDTH), TimeEmbedding(WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.set_program([Block(Residual()), Block(Residual())])

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        return {"z": self.time(streams["image"].t, call)[:, None] + cond.tokens["z"].states}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        return {"image": Stream(self.enter(streams["image"].x))}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        return {"image": self.leave(state["image"])}


def under(z: Tensor) -> Conditions:
    return Conditions(tokens={"z": Tokens(z, torch.ones(z.shape[:2], dtype=torch.bool))})


@dataclass(frozen=True)
class Request:
    """Conditions by lane, and tokens (B, L, C) of which the first `given` stand."""

    conds: Mapping[str, Conditions]
    tokens: Tensor
    given: int = 0


@dataclass(frozen=True)
class ArRun:
    """`order` (B, L): positions in the order they become known, the first `count` of which are."""

    tokens: Tensor
    order: Tensor
    count: int
    step: int
    conds: Mapping[str, Conditions]

    @property
    def known(self) -> Tensor:
        ranks = self.order.argsort(1)
        return ranks < self.count


@dataclass(frozen=True)
class RandomOrder:
    """A cosine schedule of mask counts; the guidance weight grows with the share of known tokens and acts inside the head."""

    head: Denoiser
    iterations: int = 4
    weight: float = 3.0

    def init(self, request: Request, rows: Rows) -> ArRun:
        length = request.tokens.shape[1]
        order = (rows.uniform((length,), "order") - (torch.arange(length) < request.given).float()).argsort(1)
        return ArRun(request.tokens, order, request.given, 0, request.conds)

    def calls(self, run: ArRun) -> dict[str, NetCall]:
        image = Stream(run.tokens, known=run.known)
        return {lane: NetCall({"image": image}, cond, Call(lane=lane, step=run.step)) for lane, cond in run.conds.items()}

    def update(self, run: ArRun, outs: Mapping[str, Out], rows: Rows) -> ArRun:
        length = run.order.shape[1]
        count = length - self.masked(run.step, length, length - run.count)
        index = run.order[:, run.count : count, None]
        z = {lane: under(out.pred["image"].gather(1, index.expand(-1, -1, WIDTH))) for lane, out in outs.items()}
        inner = Ode(self.head, Euler(), grid(3), ClassifierFree(1 + (self.weight - 1) * count / length))
        nested = rows.within("head", run.step)
        drawn = finish(inner, inner.init(DrawRequest((index.shape[1], CHANNELS), z), nested), nested, partial(evaluate, self.head))
        tokens = run.tokens.scatter(1, index.expand(-1, -1, CHANNELS), inner.result(drawn))
        return replace(run, tokens=tokens, count=count, step=run.step + 1)

    def masked(self, step: int, length: int, current: int) -> int:
        """How many stay unknown after `step`."""
        if step == self.iterations - 1:
            return 0
        wanted = math.floor(length * math.cos(math.pi * (step + 1) / (2 * self.iterations)))
        return max(1, min(wanted, current - 1))

    def done(self, run: ArRun) -> bool:
        return run.count == run.order.shape[1]


def answer(net: Network, calls: Mapping[str, NetCall]) -> dict[str, Out]:
    return {lane: net(c.streams, c.cond, c.call) for lane, c in calls.items()}


def request(rows: slice = slice(None), given: int = 0) -> Request:
    tokens = torch.full((2, LENGTH, CHANNELS), 0.25)
    conds = {"cond": words().rows(rows), "uncond": words(5).rows(rows)}
    return Request(conds, tokens[rows], given)


@torch.no_grad()
def draw(seeds: tuple[int, ...], asked: Request, iterations: int = 4) -> ArRun:
    process, net = RandomOrder(Denoiser(Head()), iterations), Transformer()
    return finish(process, process.init(asked, Rows(seeds)), Rows(seeds), partial(answer, net))


@pytest.mark.parametrize(
    ("length", "steps", "first", "last"), [(64, 12, [1, 2, 2, 4, 5, 5], [8, 8, 8, 8]), (256, 64, [1] * 6, [7, 6, 6, 6])]
)
def test_the_schedule_of_counts(length: int, steps: int, first: list[int], last: list[int]) -> None:
    process, current, counts = RandomOrder(Denoiser(Head()), steps), length, []
    for step in range(steps):
        left = process.masked(step, length, current)
        counts.append(current - left)
        current = left
    assert counts[: len(first)] == first and counts[-4:] == last and sum(counts) == length


@torch.no_grad()
def test_only_known_tokens_speak_and_everybody_listens() -> None:
    net, x = Transformer(), torch.randn(2, LENGTH, CHANNELS, generator=torch.Generator().manual_seed(0))
    known = (torch.arange(LENGTH) % 3 == 0).expand(2, -1)
    z = net({"image": Stream(x, known=known)}, words()).pred["image"]
    other = x.clone()
    other[:, 1] = 9.0
    assert torch.equal(net({"image": Stream(other, known=known)}, words()).pred["image"], z)
    other[:, 15] = 9.0
    moved = net({"image": Stream(other, known=known)}, words()).pred["image"]
    assert (moved - z).abs().amax((0, 2)).min() > 1e-4
    full = torch.ones_like(known)
    before = net({"image": Stream(x, known=full)}, words()).pred["image"]
    net.mask.zero_()
    assert torch.equal(net({"image": Stream(x, known=full)}, words()).pred["image"], before)


def test_rows_are_themselves_and_given_tokens_stand() -> None:
    both = draw((3, 4), request())
    assert both.known.all() and both.step == 4 and not (both.tokens == 0.25).any()
    assert torch.allclose(draw((4,), request(slice(1, 2))).tokens, both.tokens[1:], atol=1e-5)
    assert not torch.allclose(draw((3, 5), request()).tokens[1:], both.tokens[1:], atol=1e-2)
    kept = draw((3, 4), request(given=5)).tokens
    assert (kept[:, :5] == 0.25).all() and not (kept[:, 5:] == 0.25).any()
    assert draw((3, 4), request(), iterations=1).step == 1


def test_a_nested_run_never_repeats_a_number() -> None:
    rows = Rows((3, 4))
    first, second = (rows.within("head", step) for step in (0, 1))
    draws = [r.normal((2,), "noise") for r in (rows, first, second, first.within("head", 1))]
    assert len({tuple(d.flatten().tolist()) for d in draws}) == len(draws)
    assert torch.equal(rows.within("head", 1).normal((2,), "noise"), draws[2])


def test_the_head_trains_the_transformer_on_unknown_tokens_only() -> None:
    net, head, objective = Transformer(), Denoiser(Head()), Denoising()
    x0, known = torch.randn(2, LENGTH, CHANNELS, generator=torch.Generator().manual_seed(0)), torch.zeros(2, LENGTH, dtype=torch.bool)
    known[:, :4] = True

    def loss(clean: Tensor) -> Tensor:
        z = net({"image": Stream(x0, known=known)}, words()).pred["image"][:, 4:]
        sample = objective.draw(clean[:, 4:], Draws(0, 0))
        return objective.loss(head.out(sample.x_t, sample.t, under(z)).pred["image"], sample).mean()

    loss(x0).backward()
    assert all(p.grad is not None and p.grad.any() for n, p in net.named_parameters() if n.startswith("blocks.0") and "image" in n)
    altered = x0.clone()
    altered[:, :4] = 7.0
    assert same({"loss": loss(altered).detach()}, {"loss": loss(x0).detach()})
