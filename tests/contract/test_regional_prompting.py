"""Regional prompting: two texts beside one picture, the region prompts under a mask, their attention outputs blended in the image rows.

Exercises a further stream of the text's role (its state is carried through the blocks by the text's weights), attention as a plan of
masked and weighted groups, and a lane whose streams and sessions change with the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from tests.builders import conditions, image, mmdit
from torch import Tensor

from sfumato.core.attention import Attend, Group, Heads
from sfumato.core.call import Call, Footprint, Session, Site
from sfumato.core.conditions import Conditions
from sfumato.core.denoiser import Denoiser
from sfumato.core.errors import UsageError
from sfumato.core.process import NetCall, finish
from sfumato.core.rng import Rows
from sfumato.core.state import Out, Stream
from sfumato.sampling.loop import evaluate
from sfumato.sampling.ode import DrawRequest, Ode, OdeRun
from sfumato.sampling.schedules import grid
from sfumato.sampling.solvers import Euler

WORDS = 4
LEFT = torch.tensor([[True, True, False, False]] * 4).flatten()


def allowed(masks: Tensor, words: int) -> Tensor:
    """(T + N, T + N) True = attend, in the order [texts, image]. masks: (n, N), a region each; every text has `words` tokens."""
    texts = masks.repeat_interleave(words, 0)
    outside = ~masks.any(0)
    own = torch.block_diag(*torch.ones(len(masks), words, words)).bool()
    inside = (masks.float().T @ masks.float()).bool() | (outside[:, None] & outside)
    return torch.cat([torch.cat([own, texts], 1), torch.cat([texts.T, inside], 1)])


@dataclass
class Regions(Session):
    """Image rows: (1 - beta) masked attention with the region texts + beta plain attention with the base text."""

    masks: Tensor
    beta: float = 0.2
    every: int = 1
    footprint = Footprint(frozenset({"attention"}), writes=frozenset({"attention"}), requires=frozenset({"softmax", "joint"}))

    def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
        if "regions" not in heads:
            return attend(heads, None)
        count = heads["regions"].q.shape[2]
        mask = allowed(self.masks, count // len(self.masks)) if site.block % self.every == 0 else None
        of = lambda rows: None if mask is None else mask[rows]  # noqa: E731
        regions, base = ("regions", "image"), ("text", "image")
        return attend(
            heads,
            {
                "image": [Group(regions, of(slice(count, None)), 1 - self.beta), Group(base, weight=self.beta)],
                "regions": [Group(regions, of(slice(count)))],
                "text": [Group(base)],
            },
        )


@dataclass(frozen=True)
class Injected:
    """`base`, with region texts beside the picture in the cond lane of the first `steps` steps."""

    base: Ode
    session: Regions
    regions: Stream
    steps: int

    def calls(self, run: OdeRun) -> Mapping[str, NetCall]:
        lanes = self.base.calls(run)
        if run.walk.index >= self.steps:
            return lanes
        cond = lanes["cond"]
        streams = {**cond.streams, "regions": self.regions}
        return {**lanes, "cond": replace(cond, streams=streams, call=replace(cond.call, sessions=(self.session,)))}

    def update(self, run: OdeRun, outs: Mapping[str, Out], rows: Rows) -> OdeRun:
        return self.base.update(run, outs, rows)

    def done(self, run: OdeRun) -> bool:
        return self.base.done(run)


BASE = conditions([WORDS])
NET = mmdit()


def texts(*states: Tensor) -> Stream:
    return Stream(torch.cat(states, 1), role="text")


def words(seed: int) -> Tensor:
    return conditions([WORDS], seed=seed).tokens["text"].states


@torch.no_grad()
def regional(session: Regions, regions: Stream) -> Tensor:
    return NET({**image(1), "regions": regions}, BASE, Call((session,))).pred["image"]


@torch.no_grad()
def plain(cond: Conditions = BASE) -> Tensor:
    return NET(image(1), cond).pred["image"]


def test_the_mask_is_the_papers() -> None:
    columns = torch.tensor([[True, False, True, False], [False, True, False, True]])
    mask = allowed(columns, 2)
    assert mask.shape == (8, 8) and mask.sum() == 32 and mask[0].tolist() == [True, True, False, False, True, False, True, False]
    corner = allowed(torch.tensor([[True, False, False, False]]), 2)
    assert corner.sum() == 18 and corner[3:, :3].sum() == 0
    assert allowed(torch.ones(2, 4, dtype=torch.bool), 2).sum() == 56
    assert all(allowed(m, 2).any(1).all() for m in (columns, columns[:1], torch.zeros(1, 4, dtype=torch.bool)))


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_one_region_with_the_base_prompt_is_the_plain_model(beta: float) -> None:
    whole = Regions(torch.ones(1, 16, dtype=torch.bool), beta)
    assert torch.allclose(regional(whole, texts(BASE.tokens["text"].states)), plain(), atol=1e-5)


def test_beta_one_ignores_the_regions_and_beta_zero_obeys_them() -> None:
    halves = torch.stack([LEFT, ~LEFT])
    pair, other = texts(words(1), words(2)), texts(words(1), words(3))
    assert torch.allclose(regional(Regions(halves, 1.0), pair), plain(), atol=1e-5)
    before, after = regional(Regions(halves, 0.0), pair), regional(Regions(halves, 0.0), other)
    assert torch.equal(before[..., :4], after[..., :4]) and not torch.allclose(before[..., 4:], after[..., 4:], atol=1e-3)
    leaking = regional(Regions(halves, 0.0, every=2), other)
    assert not torch.equal(leaking[..., :4], regional(Regions(halves, 0.0, every=2), pair)[..., :4])


def test_region_texts_go_through_the_text_weights_of_every_block() -> None:
    """With everything attending everything, a second text stream is the same as more words of the first."""
    state = NET.start({**image(1), "regions": texts(words(1))}, BASE)
    joined = conditions([WORDS])
    longer = replace(joined.tokens["text"], states=torch.cat([joined.tokens["text"].states, words(1)], 1))
    keep = torch.ones(1, 2 * WORDS, dtype=torch.bool)
    one = NET.start(image(1), replace(joined, tokens={"text": replace(longer, keep=keep)}))
    count = len(NET.blocks)
    for a in range(count - 1):
        state, one = NET.run(state, a, a + 1), NET.run(one, a, a + 1)
        assert torch.allclose(torch.cat([state["text"], state["regions"]], 1), one["text"], atol=1e-5)
        assert torch.allclose(state["image"], one["image"], atol=1e-5)
    with pytest.raises(UsageError, match="layout"):
        NET({**image(1), "layout": Stream(words(1), role="layout")}, BASE)


@torch.no_grad()
def test_injection_stops_after_its_steps_and_keeps_nothing() -> None:
    denoiser, rows = Denoiser(NET), Rows((5,))
    ode = Ode(denoiser, Euler(), grid(4))
    request = DrawRequest((4, 8, 8), {"cond": BASE, "uncond": conditions([2], seed=9)})

    def sample(mask: Tensor, steps: int) -> Tensor:
        process = Injected(ode, Regions(torch.stack([mask, ~mask])), texts(words(1), words(2)), steps)
        return ode.result(finish(process, ode.init(request, rows), rows, partial(evaluate, denoiser)))

    base = finish(ode, ode.init(request, rows), rows, partial(evaluate, denoiser)).walk.y
    assert torch.equal(sample(LEFT, 0), base)
    first = sample(LEFT, 2)
    rotated = LEFT.view(4, 4).T.flatten()
    assert not torch.allclose(first, base, atol=1e-4) and not torch.allclose(first, sample(rotated, 2), atol=1e-4)
    assert torch.equal(first, sample(LEFT, 2)) and not torch.allclose(first, sample(LEFT, 4), atol=1e-4)
