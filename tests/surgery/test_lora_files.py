"""LoRA files held strictly against a network: names, reports, and what is refused with which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from sfumato.backbones import backbones
from sfumato.core.errors import OutputError, UsageError, WeightsError
from sfumato.core.program import Network
from sfumato.surgery import examine, load_lora, save_lora
from sfumato.surgery.lora_names import PREFIXES, TEXT_FOLDERS, Names, flat, parse, weight_of

from .lora_cases import alive

Tensors = dict[str, Tensor]
Q = "transformer.transformer_blocks.0.attn.to_q"


def tiny(family: str = "Flux") -> Network:
    return backbones.get(family).tiny().requires_grad_(False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A LoRA of the tiny FLUX."""
    return save_lora(alive(tiny()), tiny(), tmp_path / "good.safetensors")


def pair(module: str, outs: int = 32, ins: int = 32, rank: int = 2, ends: tuple[str, str] = ("lora_A", "lora_B")) -> Tensors:
    return {f"{module}.{ends[0]}.weight": torch.randn(rank, ins), f"{module}.{ends[1]}.weight": torch.randn(outs, rank)}


CLIP = pair("lora_te1_text_model_encoder_layers_0_mlp_fc1", ends=("lora_down", "lora_up"))


def test_keys_of_a_text_encoder_are_never_ignored(file: Path, tmp_path: Path) -> None:
    net, good = tiny(), load_file(file)
    for added in (CLIP, pair("text_encoder.text_model.encoder.layers.0.mlp.fc1"), pair("text_encoders.t5xxl.transformer.encoder.block.0")):
        save_file({**good, **added}, tmp_path / "both.safetensors")
        with pytest.raises(
            WeightsError, match=r"2 keys of .* act on nothing in this Flux\n.*a text encoder's; only the network.*\n.*partial"
        ):
            load_lora(tmp_path / "both.safetensors", net)
        lora = load_lora(tmp_path / "both.safetensors", net, 0.5, partial=True)
        assert lora.report is not None and set(lora.report.extra) == set(added) and len(lora.deltas) == len(load_lora(file, net).deltas)
        assert lora.weight == 0.5
    save_file(CLIP, tmp_path / "text.safetensors")
    for partial in (False, True):
        with pytest.raises(WeightsError, match=r"is no LoRA for this Flux\n.*text encoder's"):
            load_lora(tmp_path / "text.safetensors", net, partial=partial)


def test_no_match_names_the_likely_family(file: Path, tmp_path: Path) -> None:
    made: dict[str, Tensors] = {
        "a Flux": load_file(file),
        "a UViT": load_file(save_lora(alive(tiny("UViT")), tiny("UViT"), tmp_path / "u.safetensors")),
        "a PixArt": pair("lora_unet_blocks_3_cross_attn_q_linear", ends=("lora_down", "lora_up")),
        "a UNet": pair("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", ends=("lora_down", "lora_up")),
        "a MMDiT": pair("diffusion_model.joint_blocks.37.x_block.attn.qkv"),
    }
    for likely, tensors in made.items():
        save_file(tensors, tmp_path / "other.safetensors")
        net = tiny("PixArt") if likely != "a PixArt" else tiny("MMDiT")
        with pytest.raises(WeightsError, match=f"is no LoRA for this {type(net).__name__}: its names are those of {likely}"):
            load_lora(tmp_path / "other.safetensors", net, partial=True)
    save_file(pair("layers.0.self_attn.q_proj"), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"is no LoRA for this Flux\n.*2 keys: no module of this Flux has that name"):
        load_lora(tmp_path / "other.safetensors", tiny())


def without(tensors: Tensors, key: str) -> Tensors:
    return {n: t for n, t in tensors.items() if n != key}


A, B = f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"
WRONG: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "nan": (lambda t: {**t, A: t[A] * float("nan")}, f"damaged file .*{Q} holds values that are not finite"),
    "inf": (lambda t: {**t, B: t[B].masked_fill(t[B] > 0, float("inf"))}, "not finite"),
    "whole numbers": (lambda t: {**t, A: t[A].int()}, "not finite numbers"),
    "half a pair": (lambda t: without(t, B), f"{Q} lacks its up matrix\n  it has only {A}"),
    "other half": (lambda t: without(t, A), "lacks its down matrix"),
    "ranks differ": (lambda t: {**t, A: t[A][:1]}, r"has A \(1, 32\) and B \(32, 2\)"),
    "rank 0": (lambda t: {**t, A: t[A][:0], B: t[B][:, :0]}, r"has A \(0, 32\)"),
    "a vector": (lambda t: {**t, A: t[A][0]}, r"has A \(32,\)"),
    "another size": (lambda t: {**t, A: t[A][:, :8].clone()}, r"for a Flux of another size: .*to_q is 8 -> 32\n.*it is 32 -> 32"),
    "alpha of two": (lambda t: {**t, f"{Q}.alpha": torch.ones(2)}, r"the alpha of .* is \[1.0, 1.0\]"),
    "alpha nan": (lambda t: {**t, f"{Q}.alpha": torch.tensor(float("nan"))}, "the alpha of"),
    "a deeper model": (lambda t: {**t, **pair(Q.replace("0", "7"))}, "2 keys .* act on nothing .*\n.*no module of this Flux has that name"),
    "DoRA": (lambda t: {**t, f"{Q}.dora_scale": torch.ones(32, 1)}, "3 keys: DoRA, which also rescales"),
    "DoRA of PEFT": (lambda t: {**t, f"{Q}.lora_magnitude_vector.weight": torch.ones(32)}, "3 keys: DoRA"),
    "LoHa": (lambda t: {**t, f"{Q}.hada_w1_a": torch.ones(2, 2)}, "LoHa, a Hadamard product"),
    "LoKr": (lambda t: {**t, f"{Q}.lokr_w1": torch.ones(2, 2)}, "LoKr, a Kronecker product"),
    "LoCon": (lambda t: {**t, f"{Q}.lora_mid.weight": torch.ones(2, 2, 1, 1)}, "a LoCon of three factors"),
    "biases": (lambda t: {**t, f"{Q}.lora_B.bias": torch.ones(32)}, "a LoRA with biases"),
    "differences": (lambda t: {**t, "transformer.x_embedder.diff_b": torch.ones(32)}, "a full difference of weights"),
    "a norm": (lambda t: {**t, **pair("transformer.transformer_blocks.0.attn.norm_q", 16, 16)}, "that is no Linear in this Flux"),
    "a stranger": (lambda t: {**t, "step": torch.ones(1)}, r"1 key: no part of a LoRA \(such as step\)"),
    "two adapters": (lambda t: {**t, f"{Q}.lora_A.two.weight": t[A].clone()}, "holds two adapters: .* comes twice"),
    "twice": (
        lambda t: {**t, **pair("diffusion_model.double_blocks.0.img_attn.qkv", 96)},
        r"projections\.image\.. twice, the second time as transformer",
    ),
    "empty": (lambda t: {}, "is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_words_that_teach(name: str, file: Path) -> None:
    change, told = WRONG[name]
    save_file(change(load_file(file)), file)
    with pytest.raises(WeightsError, match=told):
        load_lora(file, tiny())


def test_a_module_of_another_kind_is_left_out_whole(file: Path) -> None:
    save_file({**load_file(file), f"{Q}.dora_scale": torch.ones(32, 1)}, file)
    lora = load_lora(file, tiny(), partial=True)
    assert "blocks.0.attention.core.projections.image.q" not in lora.deltas and lora.report is not None
    assert set(lora.report.extra) == {A, B, f"{Q}.dora_scale"} and "blocks.0.attention.core.projections.image.q" in lora.report.missing


def test_a_convolution_is_refused(tmp_path: Path) -> None:
    save_file(pair("transformer.pos_embed.proj"), tmp_path / "conv.safetensors")
    with pytest.raises(WeightsError, match="a module that is no Linear in this MMDiT"):
        load_lora(tmp_path / "conv.safetensors", tiny("MMDiT"))


def test_linears_written_as_convolutions_load(file: Path) -> None:
    plain = load_lora(file, tiny())
    save_file({n: t[:, :, None, None] for n, t in load_file(file).items()}, file)
    assert all(torch.equal(d.matrix(), plain.deltas[n].matrix()) for n, d in load_lora(file, tiny()).deltas.items())


def test_what_cannot_be_read(file: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "lora.pt")
    (tmp_path / "torn.safetensors").write_bytes(file.read_bytes()[:-7])
    (tmp_path / "text.safetensors").write_text("hello")
    for folder in ("pickled", "none", "many"):
        (tmp_path / folder).mkdir()
    torch.save({}, tmp_path / "pickled" / "pytorch_lora_weights.bin")
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.ones(1)}, tmp_path / "many" / name)
    for name, told in {
        "lora.pt": "is pickled, and opening it can run code",
        "pickled": "is pickled",
        "torn.safetensors": "damaged file",
        "text.safetensors": "damaged file",
        "missing.safetensors": "there is no LoRA file",
        "none": "holds no .safetensors file",
        "many": "holds 2 .safetensors files",
    }.items():
        with pytest.raises(WeightsError, match=told):
            load_lora(tmp_path / name, tiny())


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "LOHA"}, "an adapter of another kind"),
        ({"use_dora": True}, "DoRA, which also rescales"),
        ({"fan_in_fan_out": True}, "transposed"),
        ({"lora_alpha": "8"}, "its alphas are"),
        ({"lora_alpha": 8, "alpha_pattern": {"to_(": 4}}, "regular expressions"),
        ({"alpha_pattern": [3]}, "its alphas are"),
        ([], "an object is needed"),
    ],
)
def test_a_config_that_is_no_plain_loras(config: object, told: str, file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "peft"
    folder.mkdir()
    file.rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for path in (folder, folder / "adapter_model.safetensors"):
        with pytest.raises(WeightsError, match=told):
            load_lora(path, tiny())
    save_file(load_file(folder / "adapter_model.safetensors"), file, metadata={"lora_adapter_metadata": json.dumps(config)})
    with pytest.raises(WeightsError, match=told if config else "is no JSON object"):
        load_lora(file, tiny())


def test_saving_refuses(file: Path) -> None:
    net = tiny()
    with pytest.raises(OutputError, match="exists"):
        save_lora(alive(net), net, file)
    save_lora(alive(net).at(2.0), net, file, overwrite=True)
    for lora, path, told in ((alive(net).at((1.0,)), file, "cannot be saved"), (alive(net), file.with_suffix(".bin"), "good.safetensors")):
        with pytest.raises(UsageError, match=told):
            save_lora(lora, net, path, overwrite=True)
    with pytest.raises(WeightsError, match="made for another network"):
        save_lora(alive(net), tiny("PixArt"), file, overwrite=True)


def test_a_report_says_it_in_words(file: Path) -> None:
    net = tiny()
    save_file({n: t for n, t in load_file(file).items() if "single" not in n} | CLIP, file)
    report = examine(file, net)
    text = str(report)
    assert f"{file}: diffusers naming, changes 40 of 54 Linears of this Flux, rank 2 to 4" in text
    assert "blocks.*.attention.core.projections.image.q (2)" in text and "left alone:\n  blocks.*.attention.modulation.any" in text
    assert "acting on nothing:\n  2 keys: a text encoder's" in text
    record = json.loads(json.dumps(report.record()))
    assert set(record) == {"file", "family", "naming", "matched", "texts", "missing", "extra"}
    assert sum(len(m["linears"]) for m in record["matched"]) == 40 and len(record["missing"]) == 14
    with torch.device("meta"):
        assert examine(file, backbones.get("Flux").network(net.config)).record() == report.record(), "no weight is needed"


@pytest.mark.parametrize("family", sorted(backbones))
def test_no_two_modules_share_a_name(family: str) -> None:
    """With dots and underscores alike, and over all the layouts a family is written in."""
    names = Names(tiny(family))
    found: dict[str, tuple[str, ...]] = {}
    for rules in names.layouts.values():
        for rule in rules:
            assert found.setdefault(flat(weight_of(rule.theirs)), rule.ours) == rule.ours, rule.theirs


ENDS = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_A.style.weight": "down", "lora_up.weight": "up", "lora.down.weight": "down",
        "alpha": "alpha"}  # fmt: skip
MODULES = {family: [(r, weight_of(r.theirs)) for rules in Names(tiny(family)).layouts.values() for r in rules] for family in backbones}
KNOWN = {family: Names(tiny(family)) for family in MODULES}


@pytest.mark.parametrize("family", sorted(MODULES))
def test_names_come_back(family: str) -> None:
    """Every module, behind every prefix and before every ending."""
    for (rule, module), prefix, end in product(MODULES[family], ("", *PREFIXES), ENDS):
        written = flat(module) if prefix.startswith("lora_") else module
        key = parse(f"{prefix}{written}.{end}")
        # A module's own name may go on as a longer prefix would.
        assert key.prefix.startswith(prefix) and key.prefix + key.module == prefix + written, key
        assert (key.part, key.why, key.of_text) == (ENDS[end], "", prefix in TEXT_FOLDERS), key
        found = KNOWN[family].find(key)
        assert found is not None and found[1].ours == rule.ours, key


@given(st.text())
def test_any_key_at_all_is_taken_apart(text: str) -> None:
    key = parse(text)
    assert text.startswith(key.prefix + key.module) and bool(key.part) != bool(key.why)
