"""LoRA on a Call: what it adds, what it leaves alone, how it trains, and how it is folded in."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.backbones.gate import batch
from tests.backbones.peers import error
from torch import Tensor

from sfumato.backbones import backbones
from sfumato.core.call import Call
from sfumato.core.errors import ConfigError, UnknownNameError, UsageError, WeightsError
from sfumato.core.program import Network
from sfumato.nn.linear import Linear
from sfumato.surgery import Delta, Lora, adapters, fresh, merge
from sfumato.surgery.lora import linears_of

from .lora_cases import alive

FAMILIES = sorted(backbones)


def built(family: str) -> Network:
    return backbones.get(family).tiny().requires_grad_(False).eval()


def answer(net: Network, *loras: Lora, rows: slice = slice(None)) -> Tensor:
    streams, cond = batch(net, rows)
    pred = net(streams, cond, Call(adapters=adapters(net, loras), t=streams["image"].t)).pred
    return torch.cat([pred[name].flatten(1) for name in sorted(pred)], dim=1)


def plain(net: Network) -> Tensor:
    streams, cond = batch(net)
    pred = net(streams, cond).pred
    return torch.cat([pred[name].flatten(1) for name in sorted(pred)], dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_weight_0_not_a_bit_changes(family: str) -> None:
    net = built(family)
    assert torch.equal(answer(net, alive(net).at(0.0)), plain(net))
    assert torch.equal(answer(net, alive(net).at((0.0,) * 4)), plain(net))
    with torch.no_grad():  # attention has another kernel where gradients are recorded
        assert torch.equal(answer(net, fresh(net, 4)), plain(net)), "a new LoRA starts as no change"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_is_reached(family: str) -> None:
    """An adapter that the Call never asks would be ignored without a word."""
    net = built(family)
    lora, without = alive(net), plain(net)
    # SD3's last block asks no query of its text: that Linear is dead weight in the published models, too.
    dead = {"blocks.2.attention.core.projections.text.q"} if family == "MMDiT" else set()
    for name, delta in ((n, d) for n, d in lora.deltas.items() if n not in dead):
        assert not torch.equal(answer(net, Lora({name: delta})), without), name
    assert set(lora.deltas) == set(linears_of(net))


@pytest.mark.parametrize("family", FAMILIES)
def test_loras_add_and_merge(family: str) -> None:
    net = built(family)
    one, two = alive(net, 0).at(0.8), alive(net, 1).at(-0.3)
    kept = {n: p.clone() for n, p in net.state_dict().items()}
    both = answer(net, one, two)
    assert error(both, answer(net, two, one)) <= 1e-5 and error(both, answer(net, one)) > 1e-3
    merged = merge(net, [one, two])
    assert error(plain(merged), both) <= 1e-5 and error(plain(merge(merge(net, [one]), [two])), both) <= 1e-5
    assert all(torch.equal(p, kept[n]) for n, p in net.state_dict().items())
    last = list(one.deltas)[-1]
    untouched = merge(net, [Lora({last: one.deltas[last]})])
    shared = {n for n, p in untouched.named_parameters() if p.data_ptr() == net.get_parameter(n).data_ptr()}
    assert shared == {n for n, _ in net.named_parameters()} - {f"{last}.weight"}
    assert torch.equal(plain(merge(net, [one.at(0.0)])), plain(net))


def test_a_thousand_swaps_leave_the_weights() -> None:
    net = backbones.get("PixArt").tiny(depth=1, compress=()).requires_grad_(False).eval()
    kept = {n: p.clone() for n, p in net.state_dict().items()}
    loras, first = [alive(net, seed) for seed in range(3)], plain(net)
    with torch.no_grad():
        alone = answer(net, loras[0].at(0.25))
        for swap in range(1000):
            chosen = loras[swap % 3].at(swap / 500 - 1)
            answer(net, chosen, *(loras[:1] if swap % 7 == 0 else []), rows=slice(0, 1))
        assert torch.equal(answer(net, loras[0].at(0.25)), alone) and torch.equal(plain(net), first)
    assert all(torch.equal(p, kept[n]) for n, p in net.state_dict().items()) and not [h for m in net.modules() for h in m._forward_hooks]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_row_has_a_weight_of_its_own(family: str) -> None:
    net = built(family)
    lora, weights = alive(net), (0.0, 0.5, -1.0, 2.0)
    together = answer(net, lora.at(weights))
    for row, weight in enumerate(weights):
        assert error(together[row], answer(net, lora.at(weight))[row]) <= 1e-5, row
    with pytest.raises(UsageError, match="2 weights for 4 rows"):
        answer(net, lora.at((1.0, 0.5)))
    with pytest.raises(UsageError, match="cannot be merged"):
        merge(net, [lora.at(weights)])


@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_under_checkpointing(family: str) -> None:
    """Passed as an argument, an adapter is there when blocks are computed again for the backward pass."""

    def gradients(checkpointing: bool) -> list[Tensor]:
        net = backbones.get(family).tiny().requires_grad_(False).train()
        net.checkpointing = checkpointing
        lora = fresh(net, 3, alpha=2.0, roles=("q", "out", "up"))
        with torch.no_grad():
            for delta in lora.deltas.values():
                delta.up.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        answer(net, lora).square().mean().backward()
        assert all(p.grad is None for p in net.parameters())
        return [p.grad for p in lora.parameters()]

    alive = 0
    for found, expected in zip(gradients(True), gradients(False), strict=True):
        alive += bool(expected.any())
        assert torch.equal(found, expected) or error(found, expected) <= 1e-5
    assert alive > 10


def test_it_runs_in_half_and_under_autocast() -> None:
    net = built("MMDiT")
    lora, full = alive(net), answer(net, alive(net))
    half = merge(net, []).to(torch.bfloat16)
    streams, cond = batch(half)
    for carried in (lora, lora.to(dtype=torch.bfloat16), lora.at((0.7,) * 4)):
        pred = half(streams, cond, Call(adapters=adapters(half, [carried]))).pred["image"].flatten(1)
        assert pred.dtype == torch.bfloat16 and error(pred.float(), full) < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        assert error(answer(net, lora).float(), full) < 0.05
    assert next(net.parameters()).dtype == torch.float32, "what a merge shares, it does not cast"
    trainable = backbones.get("MMDiT").tiny()
    owned = {p.data_ptr() for p in merge(trainable, []).parameters()}
    assert not owned & {p.data_ptr() for p in trainable.parameters()}, "what may be trained is copied"


def test_a_compiled_network_carries_it() -> None:
    net, compiled = built("MMDiT"), built("MMDiT")
    compiled.compile_blocks("eager")
    one = Lora({n: d for n, d in alive(net).deltas.items() if n.startswith("blocks.1.")})
    with torch.no_grad():
        assert torch.equal(answer(compiled, one), answer(net, one)) and torch.equal(plain(compiled), plain(net))


def test_a_move_keeps_what_is_shared_and_what_is_there() -> None:
    down, up = torch.randn(2, 4), torch.randn(4, 2)
    lora = Lora({"a": Delta(down, up, 2.0), "b": Delta(down, torch.randn(4, 2), 2.0)})
    assert lora.to("cpu", torch.float32).deltas["a"].down is down and len(lora.parameters()) == 3
    moved = lora.to(dtype=torch.float64)
    assert moved.deltas["a"].down is moved.deltas["b"].down and moved.deltas["a"].up.dtype == torch.float64


def test_what_does_not_fit_is_refused() -> None:
    net = built("MMDiT")
    lora = alive(net)
    with pytest.raises(WeightsError, match=r"changes nowhere, .* has no such Linear"):
        adapters(net, [Lora({"nowhere": lora.deltas["final"]})])
    with pytest.raises(WeightsError, match="changes text, 32 -> 16, and this network has 12 -> 32 there"):
        merge(net, [Lora({"text": replace(lora.deltas["final"])})])
    for weight in (float("nan"), float("inf"), (1.0, float("nan")), ()):
        with pytest.raises(UsageError, match="the weight of a LoRA"):
            lora.at(weight)
    with pytest.raises(ConfigError, match="rank is 0"):
        fresh(net, 0)
    with pytest.raises(UnknownNameError, match="'out'"):
        fresh(net, 2, roles=("outt",))


def test_fresh_is_a_function_of_its_seed_and_the_linears_name() -> None:
    net = built("MMDiT")
    state = torch.random.get_rng_state()
    one, again, other = fresh(net, 2), fresh(net, 2), fresh(net, 2, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert {m.role for n, m in linears_of(net).items() if n in one.deltas} == {"q", "k", "v", "out"}
    for name, delta in one.deltas.items():
        assert torch.equal(delta.down, again.deltas[name].down) and not torch.equal(delta.down, other.deltas[name].down)
        assert float(delta.down.detach().abs().max()) <= delta.down.shape[1] ** -0.5 and isinstance(net.get_submodule(name), Linear)
    assert len({float(d.down.detach()[0, 0]) for d in one.deltas.values()}) == len(one.deltas)
