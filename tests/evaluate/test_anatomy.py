"""The anatomy adds up: parameters to the network's, FLOPs of sites and the rest to an evaluation's."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
import resvg_py
from PIL import Image
from tests.builders import codec, mmdit
from tests.pipelines.peers import TOKENS, flux, saved, unidiffuser

import sfumato
from sfumato.backbones import backbones
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


# Those that draw prompts as MiniLM reads them: DiT draws classes.
PROMPTED = sorted(name for name in backbones if backbones.get(name).tiny().slots <= {"text", "pooled", "guidance", "sizes"})


@pytest.mark.parametrize("family", PROMPTED)
def test_every_family_can_be_seen(family: str) -> None:
    found, config, vae = backbones.get(family), backbones.get(family).config, codec()
    widths = {f: 384 for f in ("text_width", "pooled_width") if f in config.__dataclass_fields__}
    net = found.tiny(**widths, channels=vae.latent_channels)
    slots = tuple(Slot(name) for name in ("text", "pooled") if name in net.slots)
    pipe = TextToImage(load_minilm(max_tokens=32), Denoiser(net), vae, slots, Defaults(size=(64, 96), steps=2), {"name": "tiny & <odd>"})
    seen = anatomy(pipe)
    tree = ElementTree.fromstring(seen.svg())
    width, height = (float(tree.get(side, "0")) for side in ("width", "height"))
    boxes = [e for e in tree.iter() if e.tag.endswith("rect") and e.get("rx")]
    assert len(boxes) == len(seen.sites) and all(float(b.get("x")) + float(b.get("width")) <= width for b in boxes)
    assert max(float(e.get("y")) for e in tree.iter() if e.get("y")) < height
    with Image.open(BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=seen.svg())))) as drawn:
        assert drawn.size == (width, height) and len(drawn.convert("RGB").getcolors(1 << 20)) > 3


def test_a_published_pipeline_is_counted_whole(tmp_path: Path) -> None:
    found = anatomy(sfumato.load(saved(flux(), tmp_path / "flux"), text_tokens=20), (16, 16))
    assert [part.name for part in found.parts] == ["text_encoder", "text_encoder_2", "network", "codec"]
    assert found.lanes == 1, "it is told its guidance"


def test_a_network_of_several_streams_is_counted_whole(tmp_path: Path) -> None:
    pipe = sfumato.load(saved(unidiffuser(), tmp_path / "unidiffuser"))
    found = anatomy(pipe, (16, 12))
    assert [part.name for part in found.parts] == ["text_encoder", "network", "codec", "captioner", "image_encoder"]
    assert found.tokens == {"image": 4 * 3, "clip": 1, "text": TOKENS, "time": 3} and found.lanes == 2
    _, drawn = profile(lambda: pipe("a b", steps=1, guidance=1.0, size=(16, 12)), {"network": pipe.denoiser.net})
    assert found.flops == drawn.total(lambda row: row.stage == "network").flops and found.outside > 0


def test_impossible_requests() -> None:
    with pytest.raises(UsageError, match="2 text tokens"):
        anatomy(PIPE, text_tokens=2)
    with pytest.raises(UsageError, match="the nearest is"):
        anatomy(PIPE, (30, 33))
