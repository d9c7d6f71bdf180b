"""LoRA files give the answers that diffusers and PEFT give: real adapters of theirs in both directions, every naming, every family."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from tests.backbones.peers import error
from torch import Tensor

from sfumato.backbones import backbones
from sfumato.surgery import load_lora, save_lora
from sfumato.surgery.lora import linears_of
from sfumato.surgery.lora_names import Names

from .lora_cases import CASES, Low, Pair, alive, answers, dense, pair, random_loras, shapes_of, write

NAMINGS = ("diffusers", "diffusers, older", "diffusers, at first", "PEFT", "kohya, diffusers' modules", "ai-toolkit")


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_peft_saved(case: str, stabilised: bool, tmp_path: Path) -> None:
    both = pair(case)
    shapes = shapes_of(both.theirs)
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=list(shapes), rank_pattern={"to_q": 2, "proj_out": 3}, alpha_pattern={"to_k": 5, "proj_out": 2},
        init_lora_weights=False, use_rslora=stabilised,
    )  # fmt: skip
    model = peft.get_peft_model(copy.deepcopy(both.theirs), config)
    model.save_pretrained(tmp_path / "theirs")
    lora = load_lora(tmp_path / "theirs", both.net)
    assert lora.report is not None and lora.report.naming == "PEFT" and not lora.report.extra
    # diffusers' router is no Linear, and PEFT leaves it alone.
    assert all(name.endswith(".router") for name in lora.report.missing) and bool(lora.report.missing) == (case == "hidream")
    assert {m.module for m in lora.report.matched} == set(shapes)
    ours, expected = answers(both, [lora], model.base_model.model.eval())
    assert error(ours, expected) <= 1e-5
    assert error(*answers(both, [], model.base_model.model)) > 1e-2, "the LoRA bites"


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("case", CASES)
def test_every_naming_gives_the_same_delta(case: str, naming: str, tmp_path: Path) -> None:
    both = pair(case)
    loras = random_loras(shapes_of(both.theirs))
    expected = dense(both.theirs, {n: x.matrix for n, x in loras.items()})
    first = load_lora(write(tmp_path / "first.safetensors", loras, "diffusers"), both.net)
    lora = load_lora(write(tmp_path / "file.safetensors", loras, naming), both.net)
    assert lora.report is not None and lora.report.naming.split(" (")[0] == naming.split(",")[0]
    assert {n: (d.rank, d.alpha) for n, d in lora.deltas.items()} == {n: (d.rank, d.alpha) for n, d in first.deltas.items()}
    assert all(torch.equal(d.matrix(), first.deltas[n].matrix()) for n, d in lora.deltas.items())
    assert error(*answers(both, [lora], expected)) <= 1e-5


class Deltas(dict[str, Tensor]):
    """A checkpoint of changes: what no LoRA touches did not change."""

    def pop(self, name: str, *default: Any) -> Tensor:
        return super().pop(name, torch.zeros(6, 1))


def released(case: str, both: Pair) -> tuple[dict[str, Low], dict[str, Tensor]]:
    """LoRAs on the modules of the first release, and what each changes in diffusers' modules, by diffusers' own converters where they
    know a small network and by hand where not.
    """
    width, sizes = both.net.config.width, shapes_of(both.theirs)
    wide = (width, width)
    if case == "sd3":
        names = {f"joint_blocks.{i}.{side}.attn.qkv": (3 * width, width) for i in range(3) for side in ("x_block", "context_block")}
        names |= {f"joint_blocks.{i}.x_block.attn2.qkv": (3 * width, width) for i in (0, 2)}
        names |= {f"joint_blocks.{i}.x_block.attn2.proj": wide for i in (0, 2)}
        names |= {f"joint_blocks.{i}.x_block.adaLN_modulation.1": ((6 if i == 1 else 9) * width, width) for i in range(3)}
        names |= {f"joint_blocks.{i}.context_block.adaLN_modulation.1": ((2 if i == 2 else 6) * width, width) for i in range(3)}
        names |= {f"joint_blocks.{i}.{s}.attn.proj": wide for i, s in ((0, "x_block"), (2, "x_block"), (1, "context_block"))}
        names |= {
            f"joint_blocks.{i}.x_block.mlp.{p}": s for i in (0, 2) for p, s in (("fc1", (4 * width, width)), ("fc2", (width, 4 * width)))
        }
        names |= {"joint_blocks.1.context_block.mlp.fc1": (4 * width, width), "final_layer.adaLN_modulation.1": (2 * width, width)}
        names |= {"context_embedder": sizes["context_embedder"], "final_layer.linear": sizes["proj_out"]}
        names |= {f"{t}.mlp.{k}": sizes[f"time_text_embed.{o}.linear_{1 + k // 2}"] for t, o in SD3_EMBEDDERS for k in (0, 2)}
        loras = random_loras(names)
        changes = convert_sd3_transformer_checkpoint_to_diffusers(Deltas({f"{n}.weight": x.matrix for n, x in loras.items()}))
        return loras, {n.removesuffix(".weight"): x for n, x in changes.items() if sizes.get(n.removesuffix(".weight")) == tuple(x.shape)}
    if case == "pixart":
        names = {n: (k * width, width) for n, k in {"blocks.0.attn.qkv": 3, "blocks.1.cross_attn.kv_linear": 2, "t_block.1": 6}.items()}
        plain = {theirs: sizes[ours] for theirs, ours in PIXART_PLAIN.items()}
        loras = random_loras(names | plain)
        cut = {
            "blocks.0.attn.qkv": [f"transformer_blocks.0.attn1.to_{p}" for p in "qkv"],
            "blocks.1.cross_attn.kv_linear": [f"transformer_blocks.1.attn2.to_{p}" for p in "kv"],
            "t_block.1": ["adaln_single.linear"],
            **{theirs: [ours] for theirs, ours in PIXART_PLAIN.items()},
        }
        return loras, {o: part for n, ours in cut.items() for o, part in zip(ours, loras[n].matrix.chunk(len(ours)), strict=True)}
    if case == "hidream":  # the first release has diffusers' names
        loras = random_loras(sizes)
        return loras, {n: x.matrix for n, x in loras.items()}
    return _flux(sizes, width)


SD3_EMBEDDERS = (("t_embedder", "timestep_embedder"), ("y_embedder", "text_embedder"))
PIXART_PLAIN = {
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
    "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "blocks.1.attn.proj": "transformer_blocks.1.attn1.to_out.0",
    "blocks.0.cross_attn.q_linear": "transformer_blocks.0.attn2.to_q",
    "blocks.0.cross_attn.proj": "transformer_blocks.0.attn2.to_out.0",
    "blocks.1.mlp.fc1": "transformer_blocks.1.ff.net.0.proj",
    "blocks.0.mlp.fc2": "transformer_blocks.0.ff.net.2",
    "final_layer.linear": "proj_out",
}


def _flux(sizes: dict[str, tuple[int, int]], width: int) -> tuple[dict[str, Low], dict[str, Tensor]]:
    each = {"attn_qkv": (3, 1), "attn_proj": (1, 1), "mlp_0": (4, 1), "mlp_2": (1, 4), "mod_lin": (6, 1)}
    names = {
        f"double_blocks.{i}.{side}_{n.replace('_', '.', 1)}": (outs * width, ins * width)
        for i in range(2) for side in ("img", "txt") for n, (outs, ins) in each.items()
    }  # fmt: skip
    names |= {
        f"single_blocks.{i}.{n}": (o * width, k * width) for i in range(2) for n, o, k in (("linear2", 1, 5), ("modulation.lin", 3, 1))
    }
    names |= {
        f"{t}.{layer}": sizes[f"time_text_embed.{o}.linear_{k}"]
        for t, o in (("time_in", "timestep_embedder"), ("vector_in", "text_embedder"), ("guidance_in", "guidance_embedder"))
        for k, layer in ((1, "in_layer"), (2, "out_layer"))
    }
    names |= {"img_in": sizes["x_embedder"], "txt_in": sizes["context_embedder"]}
    loras = random_loras(names)
    plain: dict[str, Tensor] = {}
    for n, x in loras.items():
        plain |= {f"lora_unet_{flat}.{part}": t for flat in [n.replace(".", "_")] for part, t in _kohya(x).items()}
    made = {n.removeprefix("transformer."): t for n, t in _convert_kohya_flux_lora_to_diffusers(plain).items()}
    stems = {n.removesuffix(".lora_A.weight") for n in made if n.endswith(".lora_A.weight")}
    changes = {n: made[f"{n}.lora_B.weight"].double() @ made[f"{n}.lora_A.weight"].double() for n in stems}
    # Their converter expects FLUX.1's own width here, and drops the alphas of the last layer.
    more = random_loras({"single_blocks.1.linear1": (7 * width, width), "final_layer.adaLN_modulation.1": (2 * width, width)}, seed=1)
    q, k, v, up = more["single_blocks.1.linear1"].matrix.split([width, width, width, 4 * width])
    shift, scale = more["final_layer.adaLN_modulation.1"].matrix.chunk(2)
    there = "single_transformer_blocks.1"
    changes |= {f"{there}.attn.to_{n}": x for n, x in (("q", q), ("k", k), ("v", v))}
    return {**loras, **more}, {**changes, f"{there}.proj_mlp": up, "norm_out.linear": torch.cat([scale, shift])}


def _kohya(lora: Low) -> dict[str, Tensor]:
    return {"lora_down.weight": lora.down, "lora_up.weight": lora.up, "alpha": torch.tensor(lora.alpha)}


@pytest.mark.parametrize("naming", ["kohya", "ai-toolkit"])
@pytest.mark.parametrize("case", ["flux", "sd3", "pixart"])
def test_names_of_the_first_release(case: str, naming: str, tmp_path: Path) -> None:
    both = pair(case)
    loras, changes = released(case, both)
    lora = load_lora(write(tmp_path / "file.safetensors", loras, naming), both.net)
    assert (
        lora.report is not None
        and lora.report.naming == naming
        and {m.module.replace(".", "_") for m in lora.report.matched} == {n.replace(".", "_") for n in loras}
    )
    ours, expected = answers(both, [lora], dense(both.theirs, changes))
    assert error(ours, expected) <= 1e-5
    assert error(*answers(both, [], dense(both.theirs, changes))) > 1e-2


@pytest.mark.parametrize("case", ["sd1", "sdxl"])
def test_a_file_of_kohya_acts_on_a_unet_as_it_does_in_diffusers(case: str, tmp_path: Path) -> None:
    """kohya names the modules of Stable Diffusion 1 as diffusers does and those of XL as their first release."""
    both = pair(case)
    if case == "sd1":
        shapes = {n: s for n, s in shapes_of(both.theirs).items() if "transformer_blocks" in n or "proj_" in n}
    else:
        rules = Names(both.net).layouts["first release"]
        named = {r.theirs: Names(both.net).ours(r) for r in rules if "_block" in r.theirs}
        width = {n: (both.net.get_submodule(n).out_features, both.net.get_submodule(n).in_features) for n in linears_of(both.net)}
        shapes = {n: (sum(width[o][0] for o in ours), width[ours[0]][1]) for n, ours in named.items() if ours is not None}
        assert {n.split(".")[0] for n in shapes} == {"input_blocks", "middle_block", "output_blocks"}
        # The 1 x 1 convolution of a shortcut is one there too, which their converter does not expect.
        shapes = {n: s for n, s in shapes.items() if "skip" not in n}
    # Of one rank and alpha, as kohya's are: diffusers forgets the alphas of attention where they differ.
    generator = torch.Generator().manual_seed(0)
    draws = {n: (torch.randn(3, ins, generator=generator), torch.randn(outs, 3, generator=generator)) for n, (outs, ins) in shapes.items()}
    if case == "sd1":  # 1 x 1 convolutions keep their last two dimensions
        draws = {n: tuple(x[..., None, None] for x in pair) if "proj_" in n else pair for n, pair in draws.items()}
    loras = {n: Low(0.3 * down, 0.3 * up, 2.0) for n, (down, up) in draws.items()}
    file = write(tmp_path / "kohya.safetensors", loras, "kohya")
    lora = load_lora(file, both.net)
    assert lora.report is not None and lora.report.naming.startswith("kohya") and len(lora.report.matched) == len(loras)
    theirs = copy.deepcopy(both.theirs)
    carrier(case, theirs).load_lora_weights(tmp_path, weight_name="kohya.safetensors")
    assert error(*answers(both, [lora], theirs.eval())) <= 1e-5
    assert error(*answers(both, [], theirs.eval())) > 1e-2


def carrier(case: str, theirs: torch.nn.Module) -> Any:
    """diffusers' pipeline around a network, with nothing else in it."""
    kind, part = {
        "flux": (diffusers.FluxPipeline, "transformer"),
        "sd3": (diffusers.StableDiffusion3Pipeline, "transformer"),
        "hidream": (diffusers.HiDreamImagePipeline, "transformer"),
        "sd1": (diffusers.StableDiffusionPipeline, "unet"),
        "sdxl": (diffusers.StableDiffusionXLPipeline, "unet"),
    }[case]
    names = [p for p in kind.__init__.__annotations__ if p not in (part, "return", "requires_safety_checker", "add_watermarker")]
    return kind(**{**dict.fromkeys(names), part: theirs})


@pytest.mark.parametrize("case", CASES)
def test_what_we_save_loads_in_diffusers(case: str, tmp_path: Path) -> None:
    both = pair(case)
    lora = alive(both.net)
    # diffusers' router is no Linear, so that nothing can be added to it there.
    lora = replace(lora, deltas={n: d for n, d in lora.deltas.items() if both.net.get_submodule(n).role != "router"})
    save_lora(lora, both.net, tmp_path / "pytorch_lora_weights.safetensors")
    theirs = copy.deepcopy(both.theirs)
    if case == "pixart":  # diffusers has no LoRA loader for PixArt; PEFT's way in is the one people use
        saved = {k.removeprefix("transformer."): v for k, v in _stored(tmp_path).items()}
        ranks = {k.removesuffix(".lora_A.weight"): len(v) for k, v in saved.items() if "lora_A" in k}
        config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=ranks)
        model = peft.inject_adapter_in_model(config, theirs)
        told = peft.set_peft_model_state_dict(model, saved)
        assert not told.unexpected_keys and not [k for k in told.missing_keys if "lora" in k]
    else:
        carrier(case, theirs).load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    assert error(*answers(both, [lora], theirs.eval())) <= 1e-5
    again = load_lora(tmp_path, both.net)
    assert error(answers(both, [again], both.theirs)[0], answers(both, [lora], both.theirs)[0]) <= 1e-5


def _stored(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "pytorch_lora_weights.safetensors")


@pytest.mark.parametrize("family", sorted(backbones))
def test_saved_and_loaded_on_every_family(family: str, tmp_path: Path) -> None:
    net = backbones.get(family).tiny(dual=(1,)) if family == "MMDiT" else backbones.get(family).tiny()
    lora = alive(net)
    again = load_lora(save_lora(lora, net, tmp_path / "a.safetensors"), net)
    assert again.report is not None and not again.report.missing and not again.report.extra
    for name, delta in lora.deltas.items():
        assert error(again.deltas[name].matrix(), 0.7 * delta.matrix()) <= 1e-6, name
    halved = load_lora(save_lora(lora.to(dtype=torch.bfloat16), net, tmp_path / "half.safetensors"), net)
    for name, delta in lora.to(dtype=torch.bfloat16).deltas.items():
        assert error(halved.deltas[name].matrix(), 0.7 * delta.matrix()) <= 1e-6, name
    # What is split from one of their modules joins to one of the same rank.
    third = load_lora(save_lora(again, net, tmp_path / "b.safetensors"), net)
    assert [(m.module, m.rank) for m in third.report.matched] == [(m.module, m.rank) for m in again.report.matched]
