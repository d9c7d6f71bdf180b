"""U-ViT and UniDiffuser: picture and caption latent in one sequence and one set of weights, each with its own noise level, both predicted.

Exercises long skips (push and merge as program items), a role that several streams share, norms after the residual sum (`Branch.close`),
a time per stream, and a Process whose lanes fill the same streams differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sfumato.core.blocks import Block, Rewire
from sfumato.core.call import Call
from sfumato.core.conditions import Conditions
from sfumato.core.denoiser import Denoiser
from sfumato.core.process import NetCall, finish
from sfumato.core.program import Network
from sfumato.core.rng import Rows
from sfumato.core.state import Out, State, Stream
from sfumato.nn.embeddings import PatchEmbedding, sinusoid, unpatchify
from sfumato.sampling.loop import evaluate

from .sketches import Attention, Feed, gradients, same, seeded

WIDTH, CHANNELS, SIDE, WORDS, LETTERS = 16, 3, 4, 3, 5
SEQUENCE = ("time", "text", "image")


class PostAttention(Attention):
    """UniDiffuser's x = LN(x + Attn(x))."""

    def prepare(self, state: State, call: Call | None) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        return {n: s.x for n, s in state.streams.items()}, {}

    def close(self, tokens: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {n: self.norm(x) for n, x in tokens.items()}


class PostFeed(Feed):
    prepare = PostAttention.prepare
    close = PostAttention.close


class Push(Rewire):
    def forward(self, state: State, call: object = None) -> State:
        return state.push(*SEQUENCE)


class Merge(Rewire):
    """x = W [x, skip] + b, the same W for every token."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, state: State, call: object = None) -> State:
        state, skip = state.pop()
        return state.with_x({n: self.linear(torch.cat([state[n], s.x], dim=-1)) for n, s in skip.items()})


class UViT(Network):
    """Two blocks in, one in the middle, two out."""

    inputs = ("image", "text")

    def __init__(self, post: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        attention, feed = (PostAttention, PostFeed) if post else (Attention, Feed)
        self.patch, self.letters = PatchEmbedding(CHANNELS, WIDTH, 1), nn.Linear(LETTERS, WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 2 + WORDS + SIDE**2, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.heads = nn.ModuleDict({"image": nn.Linear(WIDTH, CHANNELS), "text": nn.Linear(WIDTH, LETTERS)})
        blocks = [Block(attention(WIDTH, ("token",)), feed(WIDTH, ("token",))) for _ in range(5)]
        between = [Push(), Push(), Merge(), Merge()]
        self.set_program([blocks[0], *(item for pair in zip(between, blocks[1:], strict=True) for item in pair)])

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        return {}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        image, text = streams["image"], streams["text"]
        clocks = torch.stack([sinusoid(1000 * s.t, WIDTH) for s in (image, text)], dim=1)
        time, words, cells = self.positions.split([2, WORDS, SIDE**2], dim=1)
        tokens = {"time": clocks + time, "text": self.letters(text.x) + words, "image": self.patch(image.x) + cells}
        return {n: Stream(tokens[n], role="token", grid=(SIDE, SIDE) if n == "image" else None) for n in SEQUENCE}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        out = {n: self.heads[n](self.norm(state[n])) for n in self.inputs}
        return {"image": unpatchify(out["image"], (SIDE, SIDE), 1), "text": out["text"]}


def streams(tx: float, ty: float, rows: int = 2) -> dict[str, Stream]:
    random = seeded(1)
    x, y = torch.randn(2, CHANNELS, SIDE, SIDE, generator=random)[:rows], torch.randn(2, WORDS, LETTERS, generator=random)[:rows]
    return {"image": Stream(x, t=torch.full((rows,), tx)), "text": Stream(y, t=torch.full((rows,), ty))}


@pytest.mark.parametrize("post", [False, True])
def test_both_streams_are_predicted_and_both_times_matter(post: bool) -> None:
    net = UViT(post)
    base = net(streams(0.3, 0.7), Conditions()).pred
    assert {n: p.shape for n, p in base.items()} == {n: s.x.shape for n, s in streams(0, 0).items()}
    for other in (net(streams(0.3, 0.2), Conditions()).pred, net(streams(0.9, 0.7), Conditions()).pred):
        assert not any(torch.allclose(base[n], other[n], atol=1e-4) for n in base)
    alone = net(streams(0.3, 0.7, rows=1), Conditions()).pred
    assert all(torch.allclose(base[n][:1], alone[n], atol=1e-5) for n in base)


def test_skips_are_last_in_first_out_and_used() -> None:
    net = UViT()
    state = net.start(streams(0.3, 0.7), Conditions())
    first, second = net.run(state, 0, 1), net.run(state, 0, 3)
    held = net.run(state, 0, 5).skips
    assert [torch.equal(skip["image"].x, s["image"]) for skip, s in zip(held, (first, second), strict=True)] == [True, True]
    assert len(net.run(state, 0, 6).skips) == 1 and torch.equal(net.run(state, 0, 6).skips[0]["text"].x, first["text"])
    assert net.run(state, 0, 9).skips == ()

    ignoring, bare = deepcopy(net), deepcopy(net)
    for item in (ignoring.blocks[5], ignoring.blocks[7]):
        nn.init.zeros_(item.linear.bias)
        item.linear.weight.data = torch.cat([torch.eye(WIDTH), torch.zeros(WIDTH, WIDTH)], dim=1)
    bare.set_program([b for b in bare.blocks if isinstance(b, Block)])

    def ask(n: UViT) -> Tensor:
        return n(streams(0.3, 0.7), Conditions()).pred["image"]

    assert torch.allclose(ask(ignoring), ask(bare), atol=1e-6)
    ignoring.blocks[7].linear.weight.data[:, WIDTH:] = torch.eye(WIDTH)
    assert not torch.allclose(ask(ignoring), ask(bare), atol=1e-3)


def test_one_sequence_without_positions_is_equivariant_and_post_norm_closes_every_block() -> None:
    net = UViT(post=True)
    nn.init.zeros_(net.positions)
    base, order = streams(0.3, 0.7), torch.randperm(SIDE**2, generator=seeded())

    def shuffle(x: Tensor) -> Tensor:
        return x.flatten(2)[:, :, order].view_as(x)

    moved = {**base, "image": replace(base["image"], x=shuffle(base["image"].x))}
    assert torch.allclose(net(moved, Conditions()).pred["image"], shuffle(net(base, Conditions()).pred["image"]), atol=1e-5)
    after = net.run(net.start(base, Conditions()), 0, 1)
    for name in SEQUENCE:
        assert after[name].mean(-1).abs().max() < 1e-5 and (after[name].var(-1, correction=0) - 1).abs().max() < 1e-2


def test_skips_survive_activation_checkpointing() -> None:
    found = []
    for checkpointing in (False, True):
        net = UViT()
        net.checkpointing = checkpointing
        pred = net(streams(0.3, 0.7), Conditions()).pred
        (pred["image"].square().mean() + pred["text"].square().mean()).backward()
        found.append(gradients(net))
    assert same(*found) and "blocks.5.linear.weight" in found[0]


def timed(x: Tensor, t: float) -> Stream:
    return Stream(x, t=torch.full((len(x),), t))


@dataclass(frozen=True)
class JointRun:
    values: Mapping[str, Tensor]
    ignored: Mapping[str, Tensor]
    step: int = 0


@dataclass(frozen=True)
class Joint:
    """Draw the streams that are not `given`, which sit at t = 0. A stream's unconditional lane fills the other with new noise at t = 1."""

    times: tuple[float, ...]
    weight: float = 1.0
    given: frozenset[str] = frozenset()

    def init(self, request: Mapping[str, Tensor], rows: Rows) -> JointRun:
        shapes = {"image": (CHANNELS, SIDE, SIDE), "text": (WORDS, LETTERS)}
        return JointRun({n: request[n] if n in self.given else rows.normal(s, n) for n, s in shapes.items()}, self._noise(rows, shapes, 0))

    def calls(self, run: JointRun) -> dict[str, NetCall]:
        now = {n: timed(x, 0.0 if n in self.given else self.times[run.step]) for n, x in run.values.items()}
        lanes = {"joint": NetCall(now, Conditions())}
        for name in now.keys() - self.given if self.weight != 1.0 else ():
            lanes[name] = NetCall({n: s if n == name else timed(run.ignored[n], 1.0) for n, s in now.items()}, Conditions())
        return lanes

    def update(self, run: JointRun, outs: Mapping[str, Out], rows: Rows) -> JointRun:
        values, length = dict(run.values), self.times[run.step + 1] - self.times[run.step]
        for name in values.keys() - self.given:
            flow, plain = outs["joint"].pred[name], outs[name if self.weight != 1.0 else "joint"].pred[name]
            values[name] = values[name] + length * (plain + self.weight * (flow - plain))
        return JointRun(values, self._noise(rows, {n: x.shape[1:] for n, x in values.items()}, run.step + 1), run.step + 1)

    def done(self, run: JointRun) -> bool:
        return run.step == len(self.times) - 1

    @staticmethod
    def _noise(rows: Rows, shapes: Mapping[str, tuple[int, ...]], step: int) -> dict[str, Tensor]:
        return {n: rows.normal(s, f"ignored {n}", step) for n, s in shapes.items()}


@torch.no_grad()
def test_every_mode_is_one_process() -> None:
    denoiser = Denoiser(UViT())

    def sample(seeds: tuple[int, ...], weight: float = 3.0, given: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        process, rows = Joint((1.0, 0.6, 0.3, 0.0), weight, frozenset(given or {})), Rows(seeds)
        return finish(process, process.init(given or {}, rows), rows, partial(evaluate, denoiser)).values

    pair = sample((7, 8))
    assert all(torch.allclose(pair[n][1:], sample((8,))[n], atol=1e-5) for n in pair)
    assert not torch.allclose(pair["image"], sample((7, 8), weight=1.0)["image"], atol=1e-3)
    text = streams(0, 0)["text"].x
    to_image = sample((7, 8), given={"text": text})
    assert torch.equal(to_image["text"], text) and not torch.allclose(to_image["image"], pair["image"], atol=1e-3)
