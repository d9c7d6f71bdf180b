"""Packed weights: the same picture from every family, adapters on top, and what cannot be packed."""

from __future__ import annotations

import pytest
import torch
from tests.backbones.gate import batch

from sfumato.backbones import backbones
from sfumato.core.call import Call
from sfumato.core.errors import UsageError
from sfumato.core.program import Network
from sfumato.nn.linear import Linear
from sfumato.surgery import adapters, fresh, is_packed, pack
from sfumato.surgery.lora import Delta, Lora
from sfumato.surgery.pack import Packed


def tiny(family: str, dtype: torch.dtype = torch.float32) -> Network:
    return backbones.get(family).tiny().eval().to(dtype)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


@torch.no_grad()
def answer(net: Network, call: Call | None = None) -> dict[str, torch.Tensor]:
    return dict(net(*batch(net), call).pred)


@pytest.mark.parametrize("family", sorted(backbones))
def test_every_family_draws_the_same(family: str) -> None:
    net = tiny(family)
    plain, parameters = answer(net), sum(p.numel() for p in net.parameters())
    assert pack(net) is net and is_packed(net)
    assert all(isinstance(part, Packed) for part in net.modules() if isinstance(part, Linear))
    packed = answer(net)
    assert all(relative(packed[n], x) <= 1e-6 for n, x in plain.items())
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert all(p.is_meta for n, p in net.named_parameters() if n.endswith(".q.weight"))
    once = answer(pack(net))
    assert all(torch.equal(packed[n], x) for n, x in once.items()), "packing twice is packing once"


@pytest.mark.parametrize("family", sorted(backbones))
def test_in_bf16_it_is_as_near_the_truth_as_the_plain_network(family: str) -> None:
    exact, net = answer(tiny(family)), tiny(family, torch.bfloat16)
    plain, packed = answer(net), answer(pack(net))
    for n, x in exact.items():
        assert relative(packed[n], x) <= 1.5 * relative(plain[n], x) <= 0.03


@pytest.mark.parametrize("activation", ["gelu", "gelu tanh", "silu"])
@pytest.mark.parametrize("rows", [0, 1, 3, 700])
def test_products_and_activations(activation, rows: int) -> None:
    linear = Linear(24, 40, "up", bias=activation != "silu").requires_grad_(False)
    x, packed = torch.randn(2, rows, 24), Packed(linear)
    for found, plain in ((packed(x), linear(x)), (packed.activated(x, activation), linear.activated(x, activation))):
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)


def test_a_lora_acts_on_top() -> None:
    net = tiny("MMDiT")
    lora = Lora(
        {n: Delta(d.down, 0.2 * torch.randn_like(d.up), d.alpha) for n, d in fresh(net, 4, roles=("q", "out", "up")).deltas.items()}
    )
    call = Call(adapters=adapters(net, [lora]))
    plain, adapted = answer(net), answer(net, call)
    pack(net)
    assert relative(answer(net, call)["image"], adapted["image"]) <= 1e-6 < 1e-3 < relative(adapted["image"], plain["image"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_tokens_take_the_weights_type(dtype: torch.dtype) -> None:
    exact, net = answer(tiny("MMDiT")), pack(tiny("MMDiT", dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = answer(net)
    assert relative(found["image"], exact["image"]) <= 0.03


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(UsageError, match="packed network cannot be trained with a LoRA"):
        fresh(pack(tiny("DiT")), 2)
    with pytest.raises(UsageError, match="float16"):
        pack(tiny("DiT", torch.float16))
    with pytest.raises(UsageError, match="is on meta"):
        pack(tiny("DiT").to("meta"))
