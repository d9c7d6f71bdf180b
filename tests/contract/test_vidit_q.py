"""ViDiT-Q: every linear layer quantises its input afresh, token by token, with bits that depend on the noise level and on the lane.

Exercises adapters through the Call: they reach every Linear of a network by name and role, read `call.t` and `call.lane`, and replace the
product (`base` is never called), so one network serves all bit widths at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from tests.builders import conditions, image, mmdit
from torch import Tensor
from torch.nn.functional import linear as product

from sfumato.core.adapters import combine
from sfumato.core.call import Adapter, Call
from sfumato.core.denoiser import Denoiser
from sfumato.core.errors import ConflictError
from sfumato.core.process import NetCall
from sfumato.core.program import Network
from sfumato.core.rng import Rows
from sfumato.nn.linear import Linear, name_linears
from sfumato.sampling.loop import draw
from sfumato.sampling.ode import DrawRequest, Ode, OdeRun
from sfumato.sampling.schedules import grid
from sfumato.sampling.solvers import Euler
from sfumato.surgery import Delta, Lora, adapters, fresh

TEXT = conditions([5, 3])


def fake(x: Tensor, bits: Tensor) -> Tensor:
    """x with each row of its last dimension on its own asymmetric grid of 2^bits levels, 0 among them. bits: broadcastable to (..., 1)."""
    top = 2.0**bits - 1
    low, high = x.amin(-1, keepdim=True).clamp_max(0), x.amax(-1, keepdim=True).clamp_min(0)
    delta = ((high - low) / top).clamp_min(1e-8)
    zero = torch.round(-low / delta)
    return (torch.minimum((torch.round(x / delta) + zero).clamp_min(0), top) - zero) * delta


@dataclass(frozen=True)
class Quantised:
    """W and A bits by range of t (`edges` between ranges, rising) and lane. `balance`: s (C,) and an orthogonal Q (C, C), by C."""

    edges: tuple[float, ...] = (0.25, 0.5, 0.75)
    bits: Mapping[str, Sequence[int]] = field(default_factory=dict)
    balance: Callable[[int], tuple[Tensor, Tensor]] | None = None
    rounding: bool = True
    seen: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)

    def __call__(self, linear: Any, x: Tensor, base: Callable[[Tensor], Tensor], call: Call) -> Tensor:
        assert call.t is not None
        table = torch.tensor(self.bits.get(call.lane, (8,) * (len(self.edges) + 1)))
        bits = table[torch.bucketize(call.t, torch.tensor(self.edges))]
        self.seen.append((linear.name, call.lane, tuple(bits.tolist())))
        s, q = self.balance(linear.in_features) if self.balance else (torch.ones(linear.in_features), torch.eye(linear.in_features))
        x, weight = x / s @ q, linear.weight * s @ q
        if not self.rounding:
            return product(x, weight, linear.bias)
        y = x.new_empty((*x.shape[:-1], linear.out_features))
        for b in bits.unique():  # a weight has one width at a time, the rows of a training batch may need several
            rows = bits == b
            y[rows] = product(fake(x[rows], b), fake(weight, b), linear.bias)
        return y


def on(net: Network, adapter: Adapter, roles: Sequence[str] = ()) -> dict[str, Adapter]:
    return {m.name: adapter for m in net.modules() if isinstance(m, Linear) and (not roles or m.role in roles)}


def answer(net: Network, adapters: Mapping[str, Adapter], t: float | None = None, lane: str = "cond") -> Tensor:
    streams = image(t=t)
    with torch.no_grad():
        return net(streams, TEXT, Call(adapters=adapters, lane=lane, t=streams["image"].t)).pred["image"]


def test_every_linear_of_the_network_is_reached_once() -> None:
    net, adapter = mmdit(), Quantised()
    answer(net, on(net, adapter))
    assert sorted(name for name, _, _ in adapter.seen) == sorted(n for n, m in net.named_modules() if isinstance(m, torch.nn.Linear))
    answer(net, on(net, attention := Quantised(), roles=("q", "k", "v", "out")))
    assert attention.seen and all(".attention.core." in name for name, _, _ in attention.seen)


def test_the_grid_is_the_papers() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0, 3.0])
    assert torch.allclose(fake(x, torch.tensor(4)), torch.tensor([-1.066667, 0.0, 1.066667, 2.933333]), atol=1e-6)


def test_bits_follow_t_and_sixteen_are_enough() -> None:
    net = mmdit()
    plain = answer(net, {}, t=0.9)
    error = lambda b, t: (answer(net, on(net, Quantised(bits={"cond": b})), t) - answer(net, {}, t)).norm() / plain.norm()  # noqa: E731
    assert error((16,) * 4, 0.9) < 1e-3 < error((8,) * 4, 0.9) < error((4,) * 4, 0.9)
    assert torch.equal(error((4, 4, 4, 8), 0.9), error((8,) * 4, 0.9)) and torch.equal(error((4, 4, 4, 8), 0.7), error((4,) * 4, 0.7))


def test_rows_and_tokens_have_their_own_scale() -> None:
    layer = Linear(16, 8, "q")
    layer.name = "q"
    x = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))
    ask = lambda x, t: layer(x, Call(adapters={"q": Quantised(bits={"cond": (3, 4, 6, 8)})}, t=t))  # noqa: E731
    t = torch.tensor([0.1, 0.6, 0.9])
    together = ask(x, t)
    for row in range(3):
        assert torch.allclose(together[row], ask(x[row : row + 1], t[row : row + 1])[0], atol=1e-6)
    scaled = x.clone()
    scaled[1, 2] *= 4.0
    after = ask(scaled, t)
    untouched = torch.ones(3, 4, dtype=torch.bool)
    untouched[1, 2] = False
    assert torch.equal(after[untouched], together[untouched])
    assert torch.allclose(after[1, 2] - layer.bias, 4.0 * (together[1, 2] - layer.bias), atol=1e-5)


@pytest.mark.parametrize("rounding", [False, True])
def test_balancing_changes_nothing_but_the_rounding(rounding: bool) -> None:
    def balance(width: int) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(width)
        return torch.rand(width, generator=random) + 0.5, torch.linalg.qr(torch.randn(width, width, generator=random))[0]

    net = mmdit()
    found = answer(net, on(net, Quantised(balance=balance, rounding=rounding)), t=0.5)
    assert torch.allclose(found, answer(net, {}, t=0.5), atol=1e-4) is not rounding


def test_lanes_and_steps_choose_their_bits_while_sampling() -> None:
    """Ranges switch at the step that crosses their edge; lanes under adapters are never batched together."""
    net = mmdit()
    adapter = Quantised(edges=(0.6,), bits={"cond": (4, 8), "uncond": (6, 16)})
    quantised = on(net, adapter, roles=("up",))

    class Through(Ode):
        def calls(self, run: OdeRun) -> dict[str, NetCall]:
            lanes = super().calls(run)
            return {lane: replace(c, call=replace(c.call, adapters=quantised, t=None)) for lane, c in lanes.items()}

    request = DrawRequest((4, 8, 8), {"cond": conditions([4]), "uncond": conditions([2], seed=9)})
    drawn = draw(Through(Denoiser(net), Euler(), grid(4)), request, Rows((5,)))
    first = [(lane, bits) for name, lane, bits in adapter.seen if name == "blocks.0.mlp.core.image.up"]
    high, low = [("cond", (8,)), ("uncond", (16,))], [("cond", (4,)), ("uncond", (6,))]
    assert first == high + high + low + low
    assert not torch.equal(drawn, draw(Ode(Denoiser(net), Euler(), grid(4)), request, Rows((5,))))


def test_names_follow_the_tree() -> None:
    net = mmdit(depth=2)
    name_linears(net)
    assert all(net.get_submodule(m.name) is m for m in net.modules() if isinstance(m, Linear))


def styled(net: Network) -> dict[str, Adapter]:
    """A LoRA on every Linear."""
    lora = fresh(net, 2, roles=tuple({m.role for m in net.modules() if isinstance(m, Linear)}))
    generator = torch.Generator().manual_seed(4)
    return adapters(
        net, [Lora({n: Delta(d.down.detach(), torch.randn(d.up.shape, generator=generator), 1.0) for n, d in lora.deltas.items()})]
    )


def test_a_lora_adds_to_what_a_quantiser_makes_of_the_product():
    net, streams = mmdit(), image(2)
    quantised, styles = on(net, Quantised(bits={"cond": (4, 4, 4, 4)})), styled(net)
    layer = next(m for m in net.modules() if isinstance(m, Linear) and m.role == "q")
    x, t = torch.randn(2, 3, layer.in_features), torch.tensor([0.3, 0.8])

    def ask(adapters: dict[str, Adapter]) -> Tensor:
        return layer(x, Call(adapters=adapters, t=t))

    both = combine(styles, quantised)
    change = ask(styles) - layer(x)
    torch.testing.assert_close(ask(both), ask(quantised) + change)
    assert torch.equal(ask(combine(quantised)), ask(quantised)) and ask(both).ne(ask(styles)).any()
    assert both[layer.name].laneless is False and combine(styles, styles)[layer.name].laneless is True
    torch.testing.assert_close(ask(combine(styles, combine(styles, quantised))), ask(quantised) + 2 * change)
    out = net(streams, TEXT, Call(adapters=both, t=streams["image"].t)).pred["image"]
    assert out.isfinite().all() and out.ne(net(streams, TEXT, Call(adapters=quantised, t=streams["image"].t)).pred["image"]).any()


def test_what_would_be_lost_is_refused():
    net, streams = mmdit(), image(2)
    wrong = combine(on(net, Quantised()), styled(net))
    with pytest.raises(
        ConflictError, match=r"Quantised replaces the product of \w+, so that LoraAdapter inside it is lost\n.*list Quantised last"
    ):
        net(streams, TEXT, Call(adapters=wrong, t=streams["image"].t))
    # On other Linears each is alone, whatever the order.
    apart = combine(on(net, Quantised(), ("q",)), {n: a for n, a in styled(net).items() if net.get_submodule(n).role == "up"})
    assert net(streams, TEXT, Call(adapters=apart, t=streams["image"].t)).pred["image"].isfinite().all()
