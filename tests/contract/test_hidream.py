"""HiDream-I1: each block sees fresh language-model tokens of its own depth, which leave after it; image MLPs are mixtures of experts.

Exercises attach and detach as program items, a transient stream that borrows the text's weights by role, and a balance loss that is
returned through `Branch.aux` and `Out.aux` instead of being appended to a module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from sfumato.core.attention import Attend, Heads
from sfumato.core.blocks import Block, Branch, Rewire
from sfumato.core.call import Call, Footprint, Session, Site
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.program import Network
from sfumato.core.state import State, Stream
from sfumato.nn.mlp import MLP

from .sketches import Attention, Feed, gradients, same, seeded

WIDTH, DEPTH, ALPHA = 16, 3, 0.01


class Attach(Rewire):
    """Tap k of the language model joins, under the text's weights."""

    def __init__(self, tap: int) -> None:
        super().__init__()
        self.tap, self.project = tap, nn.Linear(8, WIDTH, bias=False)

    def forward(self, state: State, call: Call | None = None) -> State:
        return state.attach("tap", Stream(self.project(state.cond[f"tap{self.tap}"]), role="text", keep=state.cond["taps.keep"]))


class Detach(Rewire):
    def forward(self, state: State, call: Call | None = None) -> State:
        return state.detach("tap")


class Experts(nn.Module):
    """y = shared(x) + sum over the top two of w_j E_j(x), weights not renormalised."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 4, bias=False)
        self.experts = nn.ModuleList(MLP(WIDTH, WIDTH) for _ in range(4))
        self.shared = MLP(WIDTH, WIDTH // 2)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and the mask of chosen experts, both (B, N, 4)."""
        scores = self.router(x).softmax(-1)
        return scores, torch.zeros_like(scores).scatter(-1, scores.topk(2).indices, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        scores, chosen = self.route(x)
        return self.shared(x) + sum((scores * chosen)[..., e : e + 1] * expert(x) for e, expert in enumerate(self.experts))

    def balance(self, x: Tensor) -> Tensor:
        scores, chosen = self.route(x)
        return ALPHA * (scores.mean((0, 1)) * 4 * chosen.mean((0, 1)) / 2).sum()


class Gated(Attention):
    """Attention with a gate, so that a sketch can close it."""

    def __init__(self) -> None:
        super().__init__(WIDTH, ("image", "text"))
        self.gate = nn.Parameter(torch.ones(WIDTH))

    def prepare(self, state: State, call: Call | None) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        inputs, _ = super().prepare(state, call)
        return inputs, dict.fromkeys(inputs, self.gate)


class Mixture(Branch):
    name = "experts"

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.core = nn.LayerNorm(WIDTH), Experts()

    def prepare(self, state: State, call: Call | None) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        return {"image": self.norm(state["image"])}, {}

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> Mapping[str, Tensor]:
        return {"image": self.core(inputs["image"])}

    def aux(self, inputs: Mapping[str, Tensor], state: State, call: Call | None) -> Mapping[str, Tensor]:
        return {"balance": self.core.balance(inputs["image"])}


class HiDream(Network):
    slots = frozenset({"text", *(f"tap{k}" for k in range(DEPTH))})

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.text, self.final = nn.Linear(8, WIDTH), nn.Linear(WIDTH, WIDTH)
        items = [(Attach(k), Block(Gated(), (Mixture(), Feed(WIDTH, ("text",)))), Detach()) for k in range(DEPTH)]
        self.set_program([item for group in items for item in group])

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        taps = {name: tokens.states for name, tokens in cond.tokens.items() if name.startswith("tap")}
        return {**taps, "taps.keep": cond.tokens["tap0"].keep}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        text = cond.tokens["text"]
        return {"image": streams["image"], "text": Stream(self.text(text.states), keep=text.keep)}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        assert list(state.streams) == ["image", "text"]
        return {"image": self.final(state["image"])}


@dataclass
class Watch(Session):
    """Which streams attend in which block."""

    footprint = Footprint(frozenset({"attention"}))
    seen: dict[int, dict[str, int]] = field(default_factory=dict)

    def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
        self.seen[site.block] = {n: h.q.shape[2] for n, h in heads.items()}
        return attend(heads, None)


IMAGE = {"image": Stream(torch.randn(2, 6, WIDTH, generator=seeded()), t=torch.full((2,), 0.5))}


def conditions(**changed: Tensor) -> Conditions:
    """Two rows; every tap is four tokens, of which the last is padding."""
    random, keep = seeded(1), torch.tensor([[True, True, True, False]]).expand(2, -1)
    slots = {n: torch.randn(2, 4, 8, generator=random) for n in ("text", *(f"tap{k}" for k in range(DEPTH)))}
    return Conditions(tokens={n: Tokens(changed.get(n, x), keep) for n, x in slots.items()})


def test_taps_act_in_their_block_and_leave() -> None:
    net, watch = HiDream(), Watch()
    base = net(IMAGE, conditions(), Call((watch,))).pred["image"]
    assert watch.seen == {3 * k + 1: {"image": 6, "text": 4, "tap": 4} for k in range(DEPTH)}
    assert list(net.run(net.start(IMAGE, conditions()), 0, 3).streams) == ["image", "text"]
    for k in range(DEPTH):
        other = conditions().tokens[f"tap{k}"].states.flip(0)
        assert not torch.allclose(net(IMAGE, conditions(**{f"tap{k}": other})).pred["image"], base, atol=1e-3)
        net.blocks[3 * k + 1].get_submodule("attention").gate.data.zero_()
        closed = net(IMAGE, conditions()).pred["image"]
        assert torch.equal(net(IMAGE, conditions(**{f"tap{k}": other})).pred["image"], closed)
        net.blocks[3 * k + 1].get_submodule("attention").gate.data.fill_(1.0)


def test_a_tap_has_no_order_and_its_padding_no_voice() -> None:
    net, states = HiDream(), conditions().tokens["tap1"].states
    base = net(IMAGE, conditions()).pred["image"]
    assert torch.allclose(net(IMAGE, conditions(tap1=states[:, [2, 0, 1, 3]])).pred["image"], base, atol=1e-5)
    garbage = states.index_fill(1, torch.tensor([3]), 1e4)
    assert torch.equal(net(IMAGE, conditions(tap1=garbage)).pred["image"], base)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_balance_loss_is_returned_and_trains_the_router(checkpointing: bool) -> None:
    net = HiDream()
    net.checkpointing = checkpointing
    before = set(vars(net.blocks[1].get_submodule("experts").core))
    first, out = net(IMAGE, conditions()), net(IMAGE, conditions())
    assert same(first.aux, out.aux) and list(out.aux) == [f"blocks.{3 * k + 1}.experts.balance" for k in range(DEPTH)]
    assert set(vars(net.blocks[1].get_submodule("experts").core)) == before

    branch = net.blocks[1].get_submodule("experts")
    state = net.run(net.start(IMAGE, conditions()), 0, 1)
    x = branch.norm(state["image"] + net.blocks[1].get_submodule("attention")(state, Site(1, "attention"), None)[0]["image"])
    scores = branch.core.router(x).softmax(-1).flatten(0, 1)
    counts = torch.bincount(scores.topk(2).indices.flatten(), minlength=4)
    assert torch.allclose(out.aux["blocks.1.experts.balance"], ALPHA * (scores.mean(0) * 4 * counts / counts.sum()).sum(), rtol=1e-5)

    sum(out.aux.values()).backward()
    assert all(gradients(net)[f"blocks.{3 * k + 1}.experts.core.router.weight"].any() for k in range(DEPTH))
    nn.init.zeros_(branch.core.router.weight)
    assert net(IMAGE, conditions()).aux["blocks.1.experts.balance"].item() == pytest.approx(ALPHA, abs=1e-8)
