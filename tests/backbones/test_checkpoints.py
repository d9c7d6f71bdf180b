"""Published formats: the same answer and gradients as diffusers' class, and the same tensors after a round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.backbones.peers import CASES, PIXART, SD3, asked, copies, error, ours_of, peer

from sfumato.backbones import backbones
from sfumato.backbones.checkpoints import Rule, formats, of_family
from sfumato.backbones.checkpoints.folder import load_network, save_network
from sfumato.core.config import from_dict
from sfumato.core.errors import ConfigError, OutputError, SfumatoError, UnknownNameError, WeightsError


@pytest.mark.parametrize(("name", "config", "size"), CASES)
def test_answers_and_gradients_are_those_of_diffusers(name: str, config: dict[str, Any], size: tuple[int, int]) -> None:
    theirs = peer(name, config)
    form, net = ours_of(theirs)
    ours, expected = asked(net.requires_grad_(True), theirs, size)
    assert error(ours, expected) <= 1e-5
    ours.square().mean().backward()
    expected.square().mean().backward()
    gradients = form.to_theirs(net.config, {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in net.named_parameters()})
    wanted = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    for copy, original in copies(theirs).items():
        wanted[original] = wanted[original] + wanted.pop(copy)
    largest = max(float(g.norm()) for g in wanted.values())
    for parameter, value in wanted.items():
        # The gradient of a key's bias is zero in exact arithmetic: it is measured by the largest.
        assert float((gradients[parameter] - value).norm()) <= 1e-4 * float(value.norm()) + 1e-6 * largest, parameter


@pytest.mark.parametrize(("name", "config", "size"), CASES)
def test_a_round_trip_gives_the_same_tensors_and_a_config_that_diffusers_reads(
    name: str, config: dict[str, Any], size: tuple[int, int]
) -> None:
    theirs = peer(name, config)
    form, net = ours_of(theirs)
    back = form.to_theirs(net.config, net.state_dict())
    again = getattr(diffusers, name)(**{k: v for k, v in form.published(net.config).items() if not k.startswith("_")}).eval()
    missing, extra = again.load_state_dict(back, strict=False)
    assert set(missing) <= form.ignored | form.tables.keys() and not extra
    unread = form.ignored | form.tables.keys() | form.unread.keys()
    assert all(torch.equal(back[n], p) for n, p in theirs.state_dict().items() if n not in unread)
    ours = dict(form.to_ours(net.config, back))
    assert ours.keys() == net.state_dict().keys() and all(torch.equal(ours[n], p) for n, p in net.state_dict().items())
    with torch.no_grad():
        assert error(asked(net, again, size)[0], asked(net, theirs, size)[1]) <= 1e-5
    assert from_dict(type(net.config), form.config(form.published(net.config))) == net.config


@pytest.mark.parametrize(("name", "config", "size"), [CASES[0], CASES[5], CASES[7], CASES[10]])
def test_folders_pass_to_and_fro(tmp_path: Path, name: str, config: dict[str, Any], size: tuple[int, int]) -> None:
    """From diffusers' shards to a network, to a folder that diffusers loads."""
    theirs = peer(name, config)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="8KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2, "several shards"
    net = load_network(tmp_path / "theirs")
    save_network(net, tmp_path / "ours")
    again = getattr(diffusers, name).from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        ours, expected = asked(net, again, size)
        assert error(ours, asked(net, theirs, size)[1]) <= 1e-5 and error(expected, ours) <= 1e-5
    assert next(load_network(tmp_path / "theirs", torch.bfloat16).parameters()).dtype == torch.bfloat16
    with pytest.raises(OutputError, match="exists"):
        save_network(net, tmp_path / "ours")


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    peer("PixArtTransformer2DModel", PIXART).save_pretrained(folder, max_shard_size="8KB")
    config, index = folder / "config.json", folder / "diffusion_pytorch_model.safetensors.index.json"
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    shard = sorted(folder.glob("*.safetensors"))[1]

    def refused(kind: type[SfumatoError], message: str) -> None:
        with pytest.raises(kind, match=message):
            load_network(folder)
        for path, content in kept.items():
            path.write_bytes(content)

    shard.write_bytes(kept[shard][:100])
    refused(WeightsError, f"damaged file .*{shard.name}")
    shard.unlink()
    refused(WeightsError, f"missing file .*{shard.name}")
    index.write_text("{}")
    refused(WeightsError, "damaged file .*index.json")
    index.write_text(json.dumps({"weight_map": {"stranger": shard.name}}))
    refused(WeightsError, "lacks stranger")
    config.write_text("[]")
    refused(WeightsError, "an object is needed")
    config.write_text("{")
    refused(WeightsError, "damaged file .*config.json")
    config.unlink()
    refused(WeightsError, "missing file .*config.json")
    content = json.loads(kept[config])
    config.write_text(json.dumps({**content, "_class_name": "PixartTransformer2DModel"}))
    refused(UnknownNameError, "'PixArtTransformer2DModel'")
    config.write_text(json.dumps({**content, "num_layers": 3}))
    refused(WeightsError, "missing")
    config.write_text(json.dumps({**content, "norm_type": "layer_norm"}))
    refused(ConfigError, r"config\.json: .*norm_type = 'layer_norm'")
    index.unlink()
    refused(WeightsError, r"missing file .*diffusion_pytorch_model\.safetensors")


def test_what_is_not_understood_is_named() -> None:
    form = formats.get("PixArtTransformer2DModel")
    for wrong, message in (
        ({"norm_typ": "x"}, "norm_typ"),
        ({"activation_fn": "swiglu"}, "activation_fn = 'swiglu'"),
        ({"out_channels": 5}, "out_channels 5"),
        ({"only_cross_attention": True}, "only_cross_attention = True"),
        ({"cross_attention_dim": 7}, "cross_attention_dim is 7"),
    ):
        with pytest.raises(ConfigError, match=message):
            form.config({**peer("PixArtTransformer2DModel", PIXART).config, **wrong})
    with pytest.raises(ConfigError, match="lacks caption_channels, in_channels"):
        form.config({"num_layers": 2})
    with pytest.raises(ConfigError, match="caption_projection_dim is 8"):
        formats.get("SD3Transformer2DModel").config({**peer("SD3Transformer2DModel", SD3).config, "caption_projection_dim": 8})
    theirs = peer("PixArtTransformer2DModel", PIXART)
    config = ours_of(theirs)[1].config
    with pytest.raises(WeightsError, match=r"belong to no part of a PixArtTransformer2DModel: lora\.down"):
        dict(form.to_ours(config, {**theirs.state_dict(), "lora.down": torch.zeros(1)}))
    with pytest.raises(UnknownNameError, match="PixArtTransformer2DModel"):
        formats.get("PixartTransformer2DModel")
    with pytest.raises(UnknownNameError):
        of_family("Pixart")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [{}, {"pos_embed_max_size": 9, "sample_size": 10}])
def test_a_stored_table_of_positions_is_ours_or_refused(shape: dict[str, Any], dtype: torch.dtype) -> None:
    theirs = peer("SD3Transformer2DModel", {**SD3, **shape})
    form, net = ours_of(theirs)
    stored, name = {n: t.to(dtype) for n, t in theirs.state_dict().items()}, "pos_embed.pos_embed"
    assert dict(form.to_ours(net.config, stored)).keys() == net.state_dict().keys()
    learned = stored[name].clone()
    learned[0, -1, -1] -= 0.05
    for table, told in ((learned, "lies up to 0.0"), (0 * stored[name] / 0, "lies up to nan"), (stored[name][:, 1:], "has the shape")):
        with pytest.raises(WeightsError, match=rf"pos_embed\.pos_embed {told}"):
            dict(form.to_ours(net.config, {**stored, name: table}))


def test_positions_are_of_a_square() -> None:
    for name, config in (("SD3Transformer2DModel", SD3), ("PixArtTransformer2DModel", PIXART)):
        form, theirs = formats.get(name), dict(peer(name, config).config)
        assert form.config({**theirs, "sample_size": None}) == form.config({**theirs, "sample_size": 128})
        with pytest.raises(ConfigError, match=r"sample_size is \[8, 8\]"):
            form.config({**theirs, "sample_size": [8, 8]})


def test_what_the_format_has_no_place_for_is_refused() -> None:
    net = backbones.get("PixArt").tiny()
    form = of_family("PixArt")
    with pytest.raises(WeightsError, match=r"has no place for blocks\.2\.attention\.core\.projections\.image\.reduce"):
        form.to_theirs(net.config, net.state_dict())
    with pytest.raises(ConfigError, match="no compressed keys"):
        form.published(net.config)


@given(parts=st.integers(1, 4), each=st.integers(1, 3), data=st.data())
def test_rules_are_their_own_inverse(parts: int, each: int, data: st.DataObject) -> None:
    order = tuple(data.draw(st.permutations(range(parts))))
    one = Rule("theirs", tuple(f"ours{i}" for i in range(parts)), order)
    tensor = torch.randn(parts * each, 2)
    assert torch.equal(one.join(one.split(tensor)), tensor)
    assert [p.shape[0] for p in one.split(tensor)] == [each] * parts
