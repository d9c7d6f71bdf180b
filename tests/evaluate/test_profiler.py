"""The profiler: it changes no bit, and what it counts are the closed forms, torch's own counts and the sites' costs."""

from __future__ import annotations

import pytest
import torch
from tests.builders import conditions, image, mmdit
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sfumato.evaluate import roofline
from sfumato.evaluate.profiler import KINDS, Profile, Work, profile
from sfumato.text import load_minilm

NET = mmdit()
COND = conditions([5, 3])


@torch.no_grad()
def watched(batch: int = 2) -> tuple[torch.Tensor, Profile]:
    out, seen = profile(lambda: NET(image(batch), COND), {"network": NET})
    return out.pred["image"], seen


def test_it_changes_no_bit_and_leaves_no_hook() -> None:
    with torch.no_grad():
        plain = NET(image(2), COND).pred["image"]
    assert torch.equal(plain, watched()[0])
    assert not nn.modules.module._global_forward_pre_hooks and not nn.modules.module._global_forward_hooks


def test_shares_add_up_to_one() -> None:
    _, seen = watched()
    assert sum(seen.shares().values()) == pytest.approx(1) and set(seen.shares()) == set(KINDS)
    assert seen.total().seconds <= seen.wall and all(row.work.seconds >= 0 for row in seen.rows)
    assert {row.stage for row in seen.rows} == {"network", "sampler"} or {row.stage for row in seen.rows} == {"network"}


def test_products_are_counted_as_torch_counts_them() -> None:
    """In parts: torch has no formula for its own fused attention on a CPU, which is exactly ours on top."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        NET(image(2), COND)
    seen = watched()[1]
    in_attention = seen.total(lambda row: row.kind == "attention").flops
    picture, tokens, width = 16, 16 + 5, 32
    # The last block's text asks nothing.
    each = 2 * roofline.attention(tokens, tokens, width).flops + roofline.attention(picture, tokens, width).flops
    assert in_attention == 2 * each
    assert seen.total().flops - counter.get_total_flops() in (0, in_attention)


def test_a_sites_flops_are_its_cost() -> None:
    """All products of a branch but those of its modulation, which are per row and not per token."""
    seen, tokens, rows = watched()[1], {"image": 16, "text": 5}, 2
    for info in NET.sites():
        of_site = [row.work for row in seen.rows if row.site == str(info.site) and ".modulation." not in row.module]
        assert sum(of_site, Work()).flops == 2 * rows * info.cost(tokens) > 0, info.site


@pytest.mark.parametrize(
    ("layer", "shape", "expected", "kind"),
    [
        (nn.Linear(8, 24, bias=False), (10, 8), roofline.linear(10, 8, 24, 4), "linear"),
        (nn.Conv2d(3, 6, 3, padding=1, bias=False), (1, 3, 8, 10), roofline.convolution(3, 3, 6, 8, 10, 4), "convolution"),
    ],
)
def test_one_layer_is_its_closed_form(layer: nn.Module, shape: tuple[int, ...], expected: Work, kind: str) -> None:
    with torch.no_grad():
        _, seen = profile(lambda: layer(torch.ones(shape)), {"layer": layer})
    found = seen.total(lambda row: row.kind == kind)
    assert (found.flops, found.bytes) == (expected.flops, expected.bytes)


def test_attention_is_its_closed_form_fused_and_in_steps() -> None:
    class Attention(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, fused: bool) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(q, k, k) if fused else (q @ k.transpose(-1, -2)).softmax(-1) @ k

    layer, q, k = Attention(), torch.ones(1, 2, 6, 4), torch.ones(1, 2, 10, 4)
    expected = roofline.attention(6, 10, 8, heads=2, itemsize=4)
    for fused in (True, False):
        _, seen = profile(lambda fused=fused: layer(q, k, fused), {"layer": layer})  # type: ignore[misc]
        found = seen.total(lambda row: row.kind == "attention")
        assert found.flops == expected.flops and [(at.queries, at.keys) for at in seen.lengths] == [(6, 10)]
        assert found.bytes >= (expected.bytes if fused else roofline.attention(6, 10, 8, 2, 4, fused=False).bytes)
        assert found.calls == (1 if fused else 3)


def test_lengths_follow_the_calls() -> None:
    found = [(at.site, at.queries, at.keys) for at in watched()[1].lengths]
    assert found == [(f"blocks.{i}.attention", queries, 21) for i, queries in enumerate((21, 21, 16))]


def test_the_text_encoder_is_counted() -> None:
    encoder = load_minilm()
    _, seen = profile(lambda: encoder.encode(["a happy cat"]), {"text": encoder.bert})
    tokens, width, hidden = 5, 384, 1536
    layer = sum(roofline.linear(tokens, a, b).flops for a, b in [(width, width)] * 4 + [(width, hidden), (hidden, width)])
    assert seen.total().flops == 6 * (layer + roofline.attention(tokens, tokens, width).flops)


def test_what_follows_a_failed_module_is_not_its_own() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("broken")

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Broken()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with pytest.raises(ValueError):
                self.inner(x)
            return x + 1

    outer = Outer()
    _, seen = profile(lambda: outer(torch.ones(1)), {"outer": outer})
    assert {row.module for row in seen.rows if row.kind == "elementwise"} == {"outer"}


def test_the_roof() -> None:
    machine = roofline.Machine("m", 100.0, 10.0)
    assert machine.ridge == 10 and machine.attainable(5) == 50 and machine.attainable(50) == 100
    assert roofline.amdahl(0.5, 4) == 1.6 and roofline.amdahl(0.1, 4) == pytest.approx(1.081, abs=1e-3)
    here = roofline.measured(torch.device("cpu"), torch.float32, tries=1)
    assert here.flops > 1e8 and here.bandwidth > 1e7 and Work(0, 10, 5).intensity == 2
