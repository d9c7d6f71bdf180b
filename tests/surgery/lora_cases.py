"""What the LoRA tests share: diffusers' networks with random LoRAs, files in every naming, and our networks asked with adapters."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.backbones.peers import FLUX, HIDREAM, PIXART, SD1, SD3, SDXL, asked, ours_of, peer
from torch import Tensor, nn

from sfumato.core.call import Call
from sfumato.core.conditions import Conditions
from sfumato.core.program import Network
from sfumato.core.state import Out, Stream
from sfumato.surgery import Delta, Lora, adapters, fresh

CASES: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "flux": ("FluxTransformer2DModel", FLUX, (8, 8)),
    "sd3": ("SD3Transformer2DModel", {**SD3, "qk_norm": "rms_norm", "dual_attention_layers": (0, 2)}, (6, 10)),
    "pixart": ("PixArtTransformer2DModel", {**PIXART, "sample_size": 128, "patch_size": 1}, (4, 3)),
    "sd1": ("UNet2DConditionModel", {**SD1, "layers_per_block": 1}, (5, 4)),
    "sdxl": ("UNet2DConditionModel", {**SDXL, "layers_per_block": 2}, (4, 6)),
    "hidream": ("HiDreamImageTransformer2DModel", HIDREAM, (6, 10)),
}


@dataclass
class Pair:
    """diffusers' network, ours with its weights, and the size of latent both are asked about."""

    theirs: nn.Module
    net: Network
    size: tuple[int, int]


def pair(case: str) -> Pair:
    name, config, size = CASES[case]
    theirs = peer(name, config)
    # Copies: `ours_of` shares what a rule hands on whole.
    return Pair(theirs, ours_of(copy.deepcopy(theirs))[1].requires_grad_(False), size)


@dataclass
class With:
    """A network that is always called with these LoRAs."""

    net: Network
    loras: Sequence[Lora]

    @property
    def config(self) -> Any:
        return self.net.config

    @property
    def slots(self) -> frozenset[str]:
        return self.net.slots

    def __call__(self, streams: Mapping[str, Stream], cond: Conditions) -> Out:
        return self.net(streams, cond, Call(adapters=adapters(self.net, self.loras)))


def answers(pair: Pair, loras: Sequence[Lora], theirs: nn.Module) -> tuple[Tensor, Tensor]:
    """Ours with `loras`, and `theirs`, asked the same."""
    with torch.no_grad():
        return asked(With(pair.net, loras), theirs, pair.size)


@dataclass(frozen=True)
class Low:
    """A module's LoRA before it is written."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def matrix(self) -> Tensor:
        return self.alpha / len(self.down) * self.up.double() @ self.down.double()


def random_loras(shapes: Mapping[str, tuple[int, int]], seed: int = 0) -> dict[str, Low]:
    """Ranks 2 to 4 and alphas that are not the rank, by module; shapes are (outputs, inputs)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    return {n: Low(draw(2 + i % 3, ins), draw(outs, 2 + i % 3), 1.0 + i % 5) for i, (n, (outs, ins)) in enumerate(shapes.items())}


def shapes_of(theirs: nn.Module) -> dict[str, tuple[int, int]]:
    """Of the modules that are Linears here, by name: theirs, and a U-Net's 1 x 1 convolutions."""
    pointwise = ("proj_in", "proj_out", "conv_shortcut")
    named = {n: m for n, m in theirs.named_modules() if isinstance(m, nn.Linear) or n.endswith(pointwise)}
    return {n: tuple(m.weight.shape[:2]) for n, m in named.items()}


def write(path: Path, loras: Mapping[str, Low], naming: str) -> Path:
    """A file (for PEFT a folder) as the tool of this naming writes it."""
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    ranks, alphas = {n: len(x.down) for n, x in loras.items()}, {n: x.alpha for n, x in loras.items()}
    config = {"r": 2, "lora_alpha": 7.0, "rank_pattern": ranks, "alpha_pattern": alphas}
    component = "unet" if any("down_blocks" in n for n in loras) else "transformer"
    if naming == "diffusers, at first":
        old = {f"attn{i}.to_{p}.": f"attn{i}.processor.to_{p.split('.')[0]}_lora." for i in (1, 2) for p in ("q", "k", "v", "out.0")}
        newer = load_file(write(path, loras, "diffusers, older"))
        tensors = {next((n.replace(a + "lora.", b) for a, b in old.items() if a in n), n): t for n, t in newer.items()}
        save_file(tensors, path)
        return path
    prefix, a, b, alpha_key = {
        "diffusers": (f"{component}.", "lora_A.weight", "lora_B.weight", False),
        "diffusers, older": (f"{component}.", "lora.down.weight", "lora.up.weight", True),
        "PEFT": ("base_model.model.", "lora_A.weight", "lora_B.weight", False),
        "kohya": ("lora_unet_", "lora_down.weight", "lora_up.weight", True),
        "kohya, diffusers' modules": ("lora_transformer_", "lora_down.weight", "lora_up.weight", True),
        "ai-toolkit": ("diffusion_model.", "lora_A.weight", "lora_B.weight", True),
    }[naming]
    for name, lora in loras.items():
        module = prefix + (name.replace(".", "_") if naming.startswith("kohya") else name)
        tensors |= {f"{module}.{a}": lora.down, f"{module}.{b}": lora.up}
        tensors |= {f"{module}.alpha": torch.tensor(lora.alpha)} if alpha_key else {}
    if naming == "diffusers":
        metadata["lora_adapter_metadata"] = json.dumps({f"{component}.{k}": v for k, v in config.items()})
    if naming == "PEFT":
        path.mkdir(parents=True)
        (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    file = path / "adapter_model.safetensors" if naming == "PEFT" else path
    save_file({n: t.contiguous() for n, t in tensors.items()}, file, metadata=metadata or None)
    return path


def dense(theirs: nn.Module, changes: Mapping[str, Tensor]) -> nn.Module:
    """A copy of diffusers' network with dense changes added to the weights of its modules."""
    changed = copy.deepcopy(theirs)
    with torch.no_grad():
        for name, change in changes.items():
            weight = changed.get_submodule(name).weight
            weight.copy_((weight.double() + change.double().view_as(weight)).to(weight.dtype))
    return changed


def alive(net: nn.Module, seed: int = 0) -> Lora:
    """A LoRA on every Linear, with matrices of their own, ranks and alphas that differ."""
    lora = fresh(net, 2, roles=tuple({m.role for m in net.modules() if hasattr(m, "role")}), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    deltas = {
        n: Delta(d.down.detach(), 0.2 * torch.randn(d.up.shape, generator=generator), 1.0 + i % 4)
        for i, (n, d) in enumerate(lora.deltas.items())
    }
    return Lora(deltas, 0.7)
