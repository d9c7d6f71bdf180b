"""Larger pictures by other rotary rates, on every family that has any."""

from dataclasses import replace

import pytest
import torch
from tests.backbones.gate import batch, built
from torch import Tensor

from sfumato.backbones import backbones
from sfumato.core.attention import Heads
from sfumato.core.call import Call, Site
from sfumato.core.errors import ConfigError, ConflictError, UnknownNameError, UsageError
from sfumato.core.state import Stream
from sfumato.nn.rope import RULES
from sfumato.sampling.policies.extrapolation import Extrapolation

ROTARY = [name for name in backbones if "rotary" in backbones.get(name).tiny().capabilities]
pytestmark = pytest.mark.parametrize("family", ROTARY)


def answer(family: str, policy: Extrapolation | None, tall: int = 1) -> Tensor:
    """A picture of 4 tokens a side, or `tall` times as high."""
    # HiDream fills oblong pictures up to the tokens of its largest, and none may have more.
    net = backbones.get(family).tiny(**{"filled": 64} if family == "HiDream" else {})
    streams, cond = batch(net)
    image = streams["image"]
    streams = {"image": Stream(image.x.repeat(1, 1, tall, 1), t=image.t)}
    with torch.no_grad():
        return net(streams, cond, Call((policy.begin(),) if policy else (), t=image.t)).pred["image"]


def rule(family: str, **choice: object) -> Extrapolation:
    return replace(Extrapolation(backbones.get(family).tiny().rotary, 4), **choice)


def test_a_picture_of_the_trained_size_keeps_every_bit(family: str):
    plain = answer(family, None)
    for name in RULES:
        assert torch.equal(answer(family, rule(family, rule=name, apart=True)), plain), name
    for sharpen in ("proportional", "magnitude"):
        assert torch.equal(answer(family, rule(family, sharpen=sharpen)), plain)


def test_every_choice_changes_a_larger_picture(family: str):
    # The few waves of a tiny head leave other rules no room to differ; test_rope.py tells them apart.
    choices: list[dict[str, object]] = [{"rule": "interpolated"}, {"rule": "ntk"}, {}, {"trained": 3}, {"apart": True}]
    choices += [{"sharpen": "proportional"}, {"sharpen": "magnitude"}]
    seen = [answer(family, None, tall=4), *(answer(family, rule(family, **choice), tall=4) for choice in choices)]
    assert all(not torch.equal(a, b) for n, a in enumerate(seen) for b in seen[:n])
    assert all(torch.isfinite(a).all() for a in seen)


def test_keys_are_multiplied_once_and_texts_without_positions_not_at_all(family: str):
    session = rule(family, sharpen="magnitude", trained=2).begin()
    seen: dict[str, Heads] = {}
    q = torch.ones(1, 2, 16, 4)
    heads = {"image": Heads(q, q, q, pos=torch.zeros(1, 16, 2), grid=(4, 4)), "text": Heads(q, q, q)}
    session.attention(Site(0, "attention"), heads, lambda h, plan: seen.update(h) or {}, Call())
    torch.testing.assert_close(seen["image"].k, q * 1.0693147**2)
    assert torch.equal(seen["text"].k, q) and seen["image"].q is q


@torch.no_grad()
def test_a_row_is_itself(family: str):
    """Whatever its neighbours' texts are padded to."""
    net = backbones.get(family).tiny(**{"filled": 64} if family == "HiDream" else {})
    streams, cond = batch(net)
    x, t = streams["image"].x.repeat(1, 1, 4, 1), streams["image"].t
    for sharpen in ("proportional", "magnitude"):
        session = rule(family, sharpen=sharpen).begin()
        together = net({"image": Stream(x, t=t)}, cond, Call((session,), t=t)).pred["image"]
        for row in range(4):
            own, rows = slice(row, row + 1), cond.rows(slice(row, row + 1))
            alone = replace(rows, tokens={n: tokens.trimmed() for n, tokens in rows.tokens.items()})
            found = net({"image": Stream(x[own], t=t[own])}, alone, Call((session,), t=t[own])).pred["image"]
            torch.testing.assert_close(found, together[own], rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_told(family: str):
    with pytest.raises(UnknownNameError, match="'ntk'"):
        rule(family, rule="ntkk")
    with pytest.raises(ConfigError, match="trained is 0"):
        rule(family, trained=0)
    net = built(family, None)
    streams, cond = batch(net)
    with pytest.raises(UsageError, match="noise level"):
        net(streams, cond, Call((rule(family).begin(),)))
    other = built("MMDiT", None)
    with pytest.raises(ConflictError, match="needs rotary"):
        other(*batch(other), Call((rule(family).begin(),)))
