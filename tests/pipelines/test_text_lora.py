"""LoRAs of text encoders: what diffusers and PEFT draw with them, as an argument of a call that leaves every weight as it was."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli.conftest import Cli, cli
from tests.pipelines.peers import drawn, flux, relative, saved, sd3
from tests.pipelines.test_flux import noise
from tests.surgery.lora_cases import Low, random_loras, shapes_of
from torch import Tensor

import sfumato
from sfumato.core.errors import UsageError, WeightsError
from sfumato.core.rng import Rows
from sfumato.pipelines import TextToImage
from sfumato.pipelines.conditioning import text_models, with_loras
from sfumato.surgery import examine

__all__ = ["cli"]
PROMPT = "a red fox in the snow"
CALL = {"size": (16, 16), "steps": 2}


def of(pipe: Any, *folders: str, seed: int = 0) -> dict[str, dict[str, Low]]:
    """Random LoRAs on every Linear of some text encoders, by folder and module, named as in files: CLIP's begin with text_model."""
    found = {}
    for i, folder in enumerate(folders):
        model = getattr(pipe, folder)
        shapes = {_published(type(model).__name__, n): s for n, s in shapes_of(model).items() if n != "text_projection"}
        found[folder] = random_loras(shapes, seed + i)
    return found


def _published(kind: str, module: str) -> str:
    return module if kind.startswith("T5") or module.startswith("text_model.") else f"text_model.{module}"


def tensors(loras: dict[str, dict[str, Low]], kohya: dict[str, str] | None = None) -> dict[str, Tensor]:
    """A file's tensors; `kohya`: its prefix for each folder."""
    out: dict[str, Tensor] = {}
    for folder, group in loras.items():
        for name, lora in group.items():
            stem = f"{folder}.{name}" if kohya is None else f"{kohya[folder]}_{name.replace('.', '_')}"
            a, b = ("lora_A", "lora_B") if kohya is None else ("lora_down", "lora_up")
            out |= {
                f"{stem}.{a}.weight": lora.down.clone(),
                f"{stem}.{b}.weight": lora.up.clone(),
                f"{stem}.alpha": torch.tensor(lora.alpha),
            }
    return out


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    return {"flux": flux(), "sd3": sd3()}


@pytest.fixture(scope="module")
def ours(theirs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextToImage]:
    home = tmp_path_factory.mktemp("text-lora")
    return {name: sfumato.load(saved(pipe, home / name), text_tokens=20) for name, pipe in theirs.items()}


REFERENCES: dict[str, Callable[..., Tensor]] = {
    "flux": lambda pipe: drawn(
        pipe, noise((3,), 16, 16), prompt=PROMPT, height=16, width=16, num_inference_steps=2, max_sequence_length=20,
    ),
    "sd3": lambda pipe: drawn(
        pipe, Rows((3,)).normal((4, 8, 8), "noise"), prompt=PROMPT, height=16, width=16, num_inference_steps=2, max_sequence_length=20,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("case", "folders"), [("flux", ("text_encoder",)), ("sd3", ("text_encoder", "text_encoder_2"))])
def test_pictures_are_those_of_diffusers(case: str, folders: tuple[str, ...], theirs: dict, ours: dict, tmp_path: Path) -> None:
    """With alphas in the header, where diffusers writes them."""
    loras = of(theirs[case], *folders)
    parts = {k: v for k, v in tensors(loras).items() if not k.endswith(".alpha")}
    header = {
        f"{folder}.{key}": value
        for folder, group in loras.items()
        for key, value in {
            "r": 2, "lora_alpha": 2, "target_modules": sorted({n.rpartition(".")[2] for n in group}),
            "rank_pattern": {n: len(x.down) for n, x in group.items()}, "alpha_pattern": {n: x.alpha for n, x in group.items()},
        }.items()
    }  # fmt: skip
    file = tmp_path / "style.safetensors"
    save_file(parts, file, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(header)})
    pipe, peer = ours[case], copy.deepcopy(theirs[case])
    if case == "flux":
        # transformers' CLIP has no text_model any more, so their patterns would match nothing: plain alphas for both.
        header = {k: v for k, v in header.items() if not k.endswith("pattern")}
        save_file(parts, file, metadata={"format": "pt"})
    peer.load_lora_weights(tmp_path, weight_name="style.safetensors")
    lora = pipe.lora(file)
    assert lora.report is not None and len(lora.report.texts) == len(parts) // 2 and not lora.report.extra and not lora.deltas
    assert relative(pipe(PROMPT, seed=3, loras=[lora], **CALL).images, REFERENCES[case](peer)) <= 1e-4
    assert relative(pipe(PROMPT, seed=3, **CALL).images, REFERENCES[case](peer)) > 1e-3, "the LoRA bites"


@pytest.mark.parametrize(
    ("case", "kohya"),
    [
        ("flux", {"text_encoder": "lora_te1", "text_encoder_2": "lora_te3"}),
        ("flux", {"text_encoder": "lora_te"}),
        ("sd3", {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2", "text_encoder_3": "lora_te3"}),
    ],
)
def test_kohya_says_the_same_and_peft_agrees(case: str, kohya: dict[str, str], theirs: dict, ours: dict, tmp_path: Path) -> None:
    """T5 too, which diffusers has no LoRA loader for: PEFT's own layers in its place."""
    loras, pipe = of(theirs[case], *kohya, seed=5), ours[case]
    for name, content in (("a", tensors(loras)), ("b", tensors(loras, kohya))):
        save_file(content, tmp_path / f"{name}.safetensors")
    diffusers_naming, kohya_naming = (pipe.lora(tmp_path / f"{name}.safetensors") for name in "ab")
    assert (diffusers_naming.report.naming, kohya_naming.report.naming) == ("diffusers", "kohya")
    states = [pipe(PROMPT, seed=3, loras=[lora], **CALL).images for lora in (diffusers_naming, kohya_naming)]
    assert torch.equal(*states)
    peer = copy.deepcopy(theirs[case])
    for folder, group in loras.items():
        model = getattr(peer, folder)
        group = {n if n in dict(model.named_modules()) else n.removeprefix("text_model."): x for n, x in group.items()}
        pattern = {"rank_pattern": {n: len(x.down) for n, x in group.items()}, "alpha_pattern": {n: x.alpha for n, x in group.items()}}
        config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=list(group), **pattern)
        peft.inject_adapter_in_model(config, model)
        told = peft.set_peft_model_state_dict(
            model, {f"{n}.lora_{p}.weight": t for n, x in group.items() for p, t in (("A", x.down), ("B", x.up))}
        )
        assert not told.unexpected_keys
        model.eval()
    assert relative(states[0], REFERENCES[case](peer)) <= 1e-4


def test_a_thousand_swaps_leave_every_weight_as_it_was(theirs: dict, ours: dict, tmp_path: Path) -> None:
    pipe = ours["sd3"]
    for seed in (0, 1):
        save_file(tensors(of(theirs["sd3"], "text_encoder_2", seed=seed)), tmp_path / f"{seed}.safetensors")
    loras = [pipe.lora(tmp_path / f"{seed}.safetensors", 0.5) for seed in (0, 1)]
    models = text_models(pipe.encoder)
    before = {f"{part}.{n}": (p.data_ptr(), p.clone()) for part, model in models.items() for n, p in model.named_parameters()}
    plain = pipe._conditioning().lanes(["a fox"], "", 1.0, (16, 16), 1.0)[0]["cond"].tokens["text"].states
    first = [pipe._conditioning([lora]).lanes(["a fox"], "", 1.0, (16, 16), 1.0)[0]["cond"].tokens["text"].states for lora in loras]
    for i in range(1000):
        held = pipe._conditioning([loras[i % 2]])
        if i % 250 < 2:
            assert torch.equal(held.lanes(["a fox"], "", 1.0, (16, 16), 1.0)[0]["cond"].tokens["text"].states, first[i % 2])
    assert not torch.equal(*first)
    after = {f"{part}.{n}": p for part, model in models.items() for n, p in model.named_parameters()}
    assert after.keys() == before.keys()
    assert all(p.data_ptr() == before[n][0] and torch.equal(p, before[n][1]) for n, p in after.items())
    assert torch.equal(pipe._conditioning().lanes(["a fox"], "", 1.0, (16, 16), 1.0)[0]["cond"].tokens["text"].states, plain)
    assert pipe._conditioning([loras[0].at(0.0)]).encoder is pipe.encoder


def test_a_hook_on_a_copy_is_none_on_the_original(theirs: dict, ours: dict, tmp_path: Path) -> None:
    save_file(tensors(of(theirs["flux"], "text_encoder")), tmp_path / "a.safetensors")
    model = text_models(ours["flux"].encoder)["text_encoder"]
    (part,) = [
        p for n, p in with_loras(ours["flux"].encoder, [ours["flux"].lora(tmp_path / "a.safetensors")]).parts.items() if n == "text_encoder"
    ]
    part.model.register_forward_hook(lambda *asked: None)
    assert not model._forward_hooks and part.model is not model
    shared = {id(p) for p in model.parameters()}
    assert {id(p) for p in part.model.parameters()} == shared


def test_they_add_up_with_weights_and_are_saved(theirs: dict, ours: dict, tmp_path: Path) -> None:
    pipe = ours["flux"]
    save_file(tensors(of(theirs["flux"], "text_encoder", "text_encoder_2")), tmp_path / "a.safetensors")
    lora = pipe.lora(tmp_path / "a.safetensors")
    once, halves = (pipe(PROMPT, seed=3, loras=x, **CALL).images for x in ([lora], [lora.at(0.25), lora.at(0.75)]))
    assert relative(halves, once) <= 1e-5
    again = pipe.lora(pipe.save_lora(lora.at(0.7), tmp_path / "again.safetensors"))
    assert relative(pipe(PROMPT, seed=3, loras=[again], **CALL).images, pipe(PROMPT, seed=3, loras=[lora.at(0.7)], **CALL).images) <= 1e-5
    assert {key.split(".")[0] for key in load_file(tmp_path / "again.safetensors")} == {"text_encoder", "text_encoder_2"}
    assert len(lora.parameters()) == 2 * len(lora.report.texts) and lora.to(dtype=torch.float64).texts["text_encoder"]


def test_what_does_not_fit_is_told(theirs: dict, ours: dict, tmp_path: Path, pipe: TextToImage) -> None:
    loras = of(theirs["flux"], "text_encoder")
    file = tmp_path / "a.safetensors"
    save_file(tensors(loras), file)
    own = ours["flux"].lora(file)
    with pytest.raises(UsageError, match="a weight for each picture"):
        ours["flux"](PROMPT, num=2, loras=[own.at((0.5, 1.0))], **CALL)
    with pytest.raises(UsageError, match="cannot be merged"):
        ours["flux"].merged([own], "merged")
    # A model that ships has a text encoder of its own, which no LoRA changes.
    with pytest.raises(WeightsError, match="text_encoder, which this pipeline lacks"):
        pipe(PROMPT, loras=[own])
    with pytest.raises(WeightsError, match="only the network is adapted here"):
        pipe.lora(file)
    wide = {k: torch.cat([v, v], 1) if "lora_A" in k else v for k, v in tensors(loras).items()}
    save_file(wide, file)
    with pytest.raises(WeightsError, match="for a text_encoder of another size"):
        ours["flux"].lora(file)
    save_file({k.replace("layers", "lairs"): v for k, v in tensors(loras).items()}, file)
    with pytest.raises(WeightsError, match="none of this pipeline's has such a Linear"):
        ours["flux"].lora(file)
    save_file(tensors(loras) | tensors(loras, {"text_encoder": "lora_te1"}), file)
    with pytest.raises(WeightsError, match="twice"):
        ours["flux"].lora(file)


def test_it_is_held_against_a_folder(cli: Cli, theirs: dict, tmp_path: Path) -> None:
    model = saved(theirs["flux"], tmp_path / "flux")
    save_file(tensors(of(theirs["flux"], "text_encoder", "text_encoder_2")), tmp_path / "a.safetensors")
    ran = cli("inspect", "a.safetensors", "--against", model)
    assert ran.code == 0 and "changes 0 of" in ran.out and "text_encoder_2.encoder.block" in ran.out, ran.err
    assert cli("inspect", "a.safetensors", "--against", model / "transformer").code == 1
    drawn = ("generate", "a fox", "--model", model, "--size", 16, "--steps", 1, "--lora", "a.safetensors", "--json")
    picture = cli(*drawn).lines[0]["path"]
    assert cli("generate", "--again", picture, "--json").lines[0]["identical"] is True


def test_the_report_names_them(theirs: dict, ours: dict, tmp_path: Path) -> None:
    save_file(tensors(of(theirs["sd3"], "text_encoder", "text_encoder_3")), tmp_path / "a.safetensors")
    pipe = ours["sd3"]
    report = examine(tmp_path / "a.safetensors", pipe.denoiser.net, text_models(pipe.encoder))
    assert f"and {len(report.texts)} of its text encoders" in report.summary and "changed in text encoders:\n" in str(report)
    assert "text_encoder_3.encoder.block.*.layer.*.SelfAttention.q (2)" in str(report)
    assert len(report.record()["texts"]) == len(report.texts) and not report.extra
