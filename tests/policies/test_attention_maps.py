"""The attention recorder: it changes no bit, its rows are those of the full softmax, and they add up to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from tests.builders import codec, conditions, image, mmdit
from torch import Tensor

from sfumato.core.attention import Attend, Group, Heads, Stored, attend
from sfumato.core.call import Call, Footprint, Policy, Session, Site
from sfumato.core.conditions import Slot
from sfumato.core.denoiser import Denoiser
from sfumato.core.errors import ConflictError, UnknownNameError, UsageError
from sfumato.core.rng import Rows
from sfumato.pipelines import Defaults, TextToImage
from sfumato.sampling.guidance import ClassifierFree
from sfumato.sampling.loop import draw
from sfumato.sampling.ode import DrawRequest, Ode
from sfumato.sampling.policies.attention_maps import (
    AttentionRecorder,
    AttentionRecording,
    Place,
    merged,
    probabilities,
    renormalised,
    resized,
)
from sfumato.sampling.schedules import grid
from sfumato.sampling.solvers import solvers
from sfumato.text import load_minilm

NET = mmdit()
LANES = {"cond": conditions([5, 3]), "uncond": conditions([2, 2], seed=9)}
ALL = frozenset({"sites", "steps", "heads"})


def sample(*policies: Policy, solver: str = "euler", guidance: float = 3.0, rows: tuple[int, ...] = (4, 7), height: int = 8):
    sessions = tuple(p.begin(None) for p in policies)
    process = Ode(Denoiser(NET), solvers.get(solver)(), grid(3), ClassifierFree(guidance), sessions)
    lanes = {n: c.rows(slice(0, len(rows))) for n, c in LANES.items()}
    return draw(process, DrawRequest((4, height, 8), lanes), Rows(rows)), sessions


@torch.no_grad()
def recorded(config: AttentionRecorder, *outer: Session, net=NET, cond=LANES["cond"], batch: int = 2) -> AttentionRecording:
    session = config.begin()
    net(image(batch), cond, Call((*outer, session)))
    return session


@dataclass
class Crossing(Session):
    """Turns joint attention into cross attention: the picture reads the text alone."""

    footprint = Footprint(frozenset({"attention"}), writes=frozenset({"attention"}), requires=frozenset({"softmax"}))

    def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
        return attend(heads, {"image": [Group(("text",))], "text": [Group(("text",))]})


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++2m"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_picture_is_bit_for_bit_the_same(solver: str, guidance: float) -> None:
    plain, _ = sample(solver=solver, guidance=guidance)
    watched, (session,) = sample(AttentionRecorder(), solver=solver, guidance=guidance)
    assert torch.equal(plain, watched) and session.mean().shape == (2, 5, 4, 4)


def test_any_other_policy_keeps_its_lanes_apart() -> None:
    """What makes the test above hold: an observer leaves the lanes in one batch, where another session would part them."""
    lanes: list[str] = []

    class Looks(Session):
        footprint = Footprint(frozenset({"attention"}), observes=True)

        def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
            lanes.append(call.lane)
            assert {n: call.rows_of(n) for n in ("cond", "uncond", "x")} == {"cond": slice(0, 2), "uncond": slice(2, 4), "x": None}
            return attend(heads, None)

    class Opens:
        footprint = Looks.footprint

        def begin(self, run: object) -> Session:
            return Looks()

    sample(Opens())
    assert set(lanes) == {"cond+uncond"}
    assert Call(lane="cond").rows_of("cond") == slice(None) and Call(lane="cond").rows_of("uncond") is None


def test_only_the_lane_asked_for_is_recorded() -> None:
    _, (with_guidance,) = sample(AttentionRecorder(steps=frozenset({0})), guidance=3.0)
    _, (without,) = sample(AttentionRecorder(steps=frozenset({0})), guidance=1.0)
    torch.testing.assert_close(with_guidance.mean(), without.mean(), rtol=1e-5, atol=1e-6)
    _, (uncond,) = sample(AttentionRecorder(steps=frozenset({0}), lane="uncond"), guidance=3.0)
    assert not torch.allclose(uncond.mean()[:, :2], without.mean()[:, :2], atol=1e-3)


def test_text_and_picture_share_the_mass() -> None:
    text, picture = (recorded(AttentionRecorder(keys=keys)).mean() for keys in ("text", "image"))
    assert text.shape == (2, 5, 4, 4) and picture.shape == (2, 16, 4, 4)
    torch.testing.assert_close(text.sum(1) + picture.sum(1), torch.ones(2, 4, 4))
    assert text[1, 3:].abs().max() == 0  # the second prompt has three tokens; padding gets nothing
    torch.testing.assert_close(renormalised(text).sum(1), torch.ones(2, 4, 4))
    keep = torch.tensor([[False, True, True, True, False]]).expand(2, -1)
    torch.testing.assert_close(renormalised(text, keep).sum(1), torch.ones(2, 4, 4))


def test_in_cross_attention_the_text_holds_all_of_it() -> None:
    text = recorded(AttentionRecorder(), Crossing()).mean()
    torch.testing.assert_close(text.sum(1), torch.ones(2, 4, 4))


def test_the_columns_are_those_of_the_full_softmax() -> None:
    seen: dict[Site, Tensor] = {}

    class Whole(Session):
        footprint = Footprint(frozenset({"attention"}), observes=True)

        def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
            q, k = (torch.cat([getattr(heads[n], part) for n in ("image", "text")], 2) for part in ("q", "k"))
            logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            keep = torch.cat([torch.ones(2, 16, dtype=torch.bool), heads["text"].keep], 1)[:, None, None]
            seen[site] = logits.masked_fill(~keep, -torch.inf).softmax(-1)[:, :, :16, 16:]
            return attend(heads, None)

    maps = recorded(AttentionRecorder(apart=frozenset({"sites", "heads"})), Whole()).maps()
    assert len(seen) == len(maps) == 3
    for site, expected in seen.items():
        found = maps[Place((4, 4), site)]
        torch.testing.assert_close(found.flatten(-2), expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


def test_a_text_longer_than_a_head_is_wide_is_read_in_parts() -> None:
    heads = {n: Heads(*(torch.randn(1, 2, count, 4) for _ in range(3))) for n, count in (("image", 6), ("text", 11))}
    q, k = heads["image"].q, torch.cat([heads["image"].k, heads["text"].k], 2)
    expected = (q @ k.transpose(-1, -2) / 2).softmax(-1)[..., 6:]
    torch.testing.assert_close(probabilities(heads, attend, "image", "text"), expected, rtol=1e-5, atol=1e-6)
    rotate = lambda x, pos: x * (1 + pos[:, None])  # noqa: E731
    turned = {n: replace(h, pos=torch.rand(1, h.q.shape[2], 1)) for n, h in heads.items()}
    q, k = (torch.cat([rotate(getattr(h, part), h.pos) for h in turned.values()], 2) for part in ("q", "k"))
    expected = (q @ k.transpose(-1, -2) / 2).softmax(-1)[:, :, :6, 6:]
    found = probabilities(turned, lambda h, p: attend(h, p, rotate), "image", "text")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_running_sums_equal_the_mean_of_what_is_kept_apart() -> None:
    _, (mean, apart) = sample(AttentionRecorder(), AttentionRecorder(ALL))
    assert len(mean.sums) == 1 and len(apart.sums) == 3 * 3
    assert {(p.step, p.site.block) for p in apart.sums if p.site} == {(s, b) for s in range(3) for b in range(3)}
    torch.testing.assert_close(mean.mean(), apart.mean())
    assert all(total.dtype == torch.float32 and total.shape == (2, 5, 2, 4, 4) for total in apart.sums.values())
    _, (some,) = sample(AttentionRecorder(frozenset({"steps"}), blocks=frozenset({1}), steps=frozenset({2})))
    (found,) = (maps.mean(2) for place, maps in apart.maps().items() if place.step == 2 and place.site and place.site.block == 1)
    torch.testing.assert_close(some.mean(), found)
    assert list(some.seen.values()) == [1]


def test_a_row_is_itself() -> None:
    batch, alone = sample(AttentionRecorder())[1][0].mean(), sample(AttentionRecorder(), rows=(4,))[1][0].mean()
    torch.testing.assert_close(batch[:1], alone, rtol=1e-5, atol=1e-6)


def test_maps_lie_on_the_grid_of_the_latent() -> None:
    _, (session,) = sample(AttentionRecorder(), height=12)
    assert session.mean().shape == (2, 5, 6, 4)


def test_half_precision_is_recorded_in_full() -> None:
    net = mmdit().to(torch.bfloat16)
    found = recorded(AttentionRecorder(), net=net).mean()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, recorded(AttentionRecorder()).mean(), rtol=0.1, atol=0.02)


def test_it_is_listed_last_and_refuses_what_it_cannot_tell_apart() -> None:
    with pytest.raises(ConflictError, match=r"AttentionRecording would not see what Crossing does\n.*list AttentionRecording last"):
        NET(image(2), LANES["cond"], Call((AttentionRecorder().begin(), Crossing())))

    class Banking(Crossing):
        def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
            own = heads["text"]
            return attend(heads, {n: [Group((Stored(own.k, own.v), *heads))] for n in heads})

    with pytest.raises(ConflictError, match="stored keys and values"):
        recorded(AttentionRecorder(), Banking())
    with pytest.raises(UsageError, match="no attention from 'image' to 'words'"):
        recorded(AttentionRecorder(keys="words")).maps()
    with pytest.raises(UnknownNameError, match="did you mean 'heads'"):
        AttentionRecorder(frozenset({"head"}))  # type: ignore[arg-type]


def test_words_of_several_tokens() -> None:
    maps = torch.arange(12.0).view(3, 2, 2)
    assert torch.equal(merged(maps, (0, 1, 2)), maps.mean(0)) and torch.equal(merged(maps, (2, 1), "first"), maps[1])
    assert torch.equal(merged(maps, (0, 2), "sum"), maps[0] + maps[2]) and torch.equal(merged(maps, (0, 2), "max"), maps[2])
    assert resized(maps, (2, 2)) is maps and resized(maps, (8, 4)).shape == (3, 8, 4)


def test_the_pipeline_hands_the_sessions_back() -> None:
    slots = (Slot("text"), Slot("pooled"))
    net = mmdit(text_width=384, pooled_width=384, base_grid=8)
    pipe = TextToImage(load_minilm(max_tokens=32), Denoiser(net), codec(), slots, Defaults(size=(32, 32), steps=2))
    plain = pipe(["a cat", "an unbelievable dog"])
    watched = pipe(["a cat", "an unbelievable dog"], policies=(AttentionRecorder(),))
    assert torch.equal(plain.images, watched.images) and plain.sessions == ()
    (session,) = watched.sessions
    assert isinstance(session, AttentionRecording) and session.mean().shape[2:] == (8, 8)
