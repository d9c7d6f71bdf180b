"""The anatomy adds up: parameters to the network's, FLOPs of sites and the rest to an evaluation's."""

from __future__ import annotations

import pytest
from tests.builders import codec, mmdit

from sfumato.core.conditions import Slot
from sfumato.core.denoiser import Denoiser
from sfumato.core.errors import UsageError
from sfumato.data.render import rasterise
from sfumato.evaluate.anatomy import anatomy
from sfumato.evaluate.profiler import profile
from sfumato.pipelines import Defaults, TextToImage
from sfumato.text import load_minilm

NET = mmdit(text_width=384, pooled_width=384, base_grid=8)
PIPE = TextToImage(
    load_minilm(max_tokens=32), Denoiser(NET), codec(), (Slot("text"), Slot("pooled")), Defaults(size=(32, 32), steps=2), {"name": "tiny"}
)


def test_it_adds_up() -> None:
    found = anatomy(PIPE, text_tokens=7)
    assert found.tokens == {"image": 64, "text": 7} and len(found.sites) == 6 and found.outside > 0
    network = next(part for part in found.parts if part.name == "network")
    assert network.parameters == sum(p.numel() for p in NET.parameters()) and network.dtypes == {"float32": 4 * network.parameters}
    blocks = sum(p.numel() for n, p in NET.named_parameters() if n.startswith("blocks."))
    assert sum(site.parameters for site in found.sites) == blocks
    assert network.bytes_as["bfloat16"] == 2 * network.parameters
    _, drawn = profile(lambda: PIPE("a b c d e", steps=1, guidance=1.0), {"network": NET})
    assert found.flops == drawn.total(lambda row: row.stage == "network").flops


def test_larger_pictures_cost_more() -> None:
    small, large = anatomy(PIPE), anatomy(PIPE, (64, 32))
    assert large.tokens["image"] == 128 and large.flops > 1.8 * small.flops
    assert small.record()["flops_per_guided_step"] == 2 * small.flops


def test_it_can_be_seen() -> None:
    found = anatomy(PIPE)
    assert rasterise(found.svg(), 400).startswith(b"\x89PNG") and "block 2" in found.svg()
    weights, branches = found.tables()
    assert weights.row_count == 3 and branches.row_count == 6 + 4


def test_impossible_requests() -> None:
    with pytest.raises(UsageError, match="2 text tokens"):
        anatomy(PIPE, text_tokens=2)
    with pytest.raises(UsageError, match="the nearest is"):
        anatomy(PIPE, (30, 33))
