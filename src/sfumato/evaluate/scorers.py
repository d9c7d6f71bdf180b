"""Scorers: how well each picture fits its prompt, as one number to rank by.

The critic's verdict, the judge's cosine, that of any CLIP (HPSv2 and PickScore are CLIPs trained on people's choices), and ImageReward.
A scorer that chose pictures must not be the one that rates them: `name` travels with every picture it chose. The judge rates models, so
the critic is who should choose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UnknownNameError, WeightsError
from ..core.files import read_tensors, sha256
from ..core.pretrained import load_pretrained, load_tokenizer, require_safetensors
from ..core.weights import read_json
from ..pipelines.best_of import Scorer
from .critic import Critic
from .features import CLIP_LOOK, Preparation, clip_image, named_architecture, preparation
from .judge import Judge
from .metrics import alignment
from .pictures import chunks, paired

WANTED = (
    "a CLIPModel folder (config.json, model.safetensors, tokenizer.json and, best, preprocessor_config.json), of CLIP, HPSv2 or PickScore; "
    "or ImageReward: the config.json and tokenizer.json of a BlipForImageTextRetrieval (large, 224 px) and as model.safetensors "
    "the tensors of ImageReward.pt"
)
SHIPPED = ("critic", "judge")
# ImageReward's own standardisation of its output, and how many tokens of a prompt it reads.
REWARD_MEAN, REWARD_STD, REWARD_TOKENS = 0.16717362830052426, 1.0333394966054072, 35


class JudgeScorer:
    """Cosine of picture and prompt in the judge's space, in [-1, 1]."""

    def __init__(self, judge: Judge, name: str = "judge") -> None:
        self.judge, self.name = judge, name

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        paired(images, prompts)
        return alignment(self.judge(images).embedding, self.judge.embed_captions(prompts)).float()


class ClipScorer:
    """Cosine of picture and prompt in a CLIP's space, in [-1, 1] (CLIPScore, arXiv 2104.08718, without its factor; HPSv2, 2306.09341)."""

    def __init__(self, net: Any, tokenizer: Any, prepare: Preparation, name: str) -> None:
        self.net, self.tokenizer, self.prepare, self.name = net.eval(), tokenizer, prepare, name

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        paired(images, prompts)
        device = next(self.net.parameters()).device
        limit = int(self.net.config.text_config.max_position_embeddings)
        parts, start = [torch.zeros(0)], 0
        for chunk in chunks(images, device):
            said = list(prompts[start : start + len(chunk)])
            start += len(chunk)
            words = self.tokenizer(said, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(device)
            text = self.net.text_model(input_ids=words["input_ids"], attention_mask=words["attention_mask"]).pooler_output
            cosine = F.cosine_similarity(clip_image(self.net, self.prepare(chunk)), self.net.text_projection(text), dim=1)
            parts.append(cosine.float().cpu())
        return torch.cat(parts)


class RewardScorer:
    """ImageReward (arXiv 2304.05977): BLIP's text encoder looks at the picture, its first token goes through a linear tower; mean 0,
    deviation 1 over the publication's pictures."""

    def __init__(self, net: Any, tower: nn.Module, tokenizer: Any, prepare: Preparation, name: str) -> None:
        self.net, self.tower, self.tokenizer, self.prepare, self.name = net.eval(), tower.eval(), tokenizer, prepare, name

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        paired(images, prompts)
        device = next(self.net.parameters()).device
        parts, start = [torch.zeros(0)], 0
        for chunk in chunks(images, device, 16):
            said = list(prompts[start : start + len(chunk)])
            start += len(chunk)
            words = self.tokenizer(said, padding=True, truncation=True, max_length=REWARD_TOKENS, return_tensors="pt").to(device)
            seen = self.net.vision_model(pixel_values=self.prepare(chunk)).last_hidden_state
            read = self.net.text_encoder(
                input_ids=words["input_ids"],
                attention_mask=words["attention_mask"],
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=device),
            )
            parts.append((self.tower(read.last_hidden_state[:, 0]).flatten().float().cpu() - REWARD_MEAN) / REWARD_STD)
        return torch.cat(parts)


def load_scorer(spec: str, device: torch.device | str = "cpu") -> Scorer:
    """ "critic" or "judge" (those that ship), or the scorer in the folder `spec`: a critic's, a judge's, a CLIPModel's, ImageReward's.

    Its name holds the first digits of its weights' sha256. Raises `WeightsError` naming what is missing and what to put where,
    `UnknownNameError` for another architecture, or a word that is neither a name nor a folder.
    """
    folder = Path(spec)
    if spec not in SHIPPED and spec == folder.name and not folder.is_dir():  # a bare word; a path is meant as a folder
        raise UnknownNameError("scorer (and there is no such folder)", spec, SHIPPED)
    if spec == "critic" or (folder / "critic.json").is_file():
        return Critic.load(None if spec == "critic" else folder, device)
    if spec == "judge" or (folder / "judge.json").is_file():
        home = Path(str(package_files("sfumato") / "assets" / "judge")) if spec == "judge" else folder
        return JudgeScorer(Judge.load(home), f"{home.name} ({sha256(home / 'judge.safetensors')[:12]})")
    architecture = named_architecture(folder, ("CLIPModel", "BlipForImageTextRetrieval"), "a scorer", WANTED)
    require_safetensors(folder)
    weights = folder / "model.safetensors"
    name = f"{folder.name} ({sha256(weights)[:12]})" if weights.is_file() else folder.name
    tokenizer = load_tokenizer(folder)
    if architecture == "CLIPModel":
        clip = load_pretrained("CLIPModel", folder, torch.float32).to(device)
        return ClipScorer(clip, tokenizer, preparation(folder, int(clip.config.vision_config.image_size), CLIP_LOOK), name)
    net, tower = _reward_nets(folder)
    prepare = preparation(folder, int(net.config.vision_config.image_size), CLIP_LOOK)
    return RewardScorer(net.to(device), tower.to(device), tokenizer, prepare, name)


# BLIP's own names -> transformers'.
RENAMES = (
    (r"^blip\.", ""),
    (r"^visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj", "vision_model.embeddings.patch_embedding"),
    (r"^visual_encoder\.norm", "vision_model.post_layernorm"),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj", r"vision_model.encoder.layers.\1.self_attn.projection"),
    (r"^visual_encoder\.blocks\.(\d+)\.attn", r"vision_model.encoder.layers.\1.self_attn"),
    (r"^visual_encoder\.blocks\.(\d+)\.norm", r"vision_model.encoder.layers.\1.layer_norm"),
    (r"^visual_encoder\.blocks", "vision_model.encoder.layers"),
)
# What BLIP needs for other work.
UNUSED = ("vision_proj", "text_proj", "itm_head", "text_decoder", "temp", "logit_scale", "text_encoder.embeddings.position_ids")


def _reward_nets(folder: Path) -> tuple[Any, nn.Sequential]:
    """(BLIP, the linear tower) from one file with BLIP's own or transformers' key names and `mlp.layers.N.*`."""
    from transformers import BlipConfig, BlipForImageTextRetrieval

    path = folder / "model.safetensors"
    net = BlipForImageTextRetrieval(BlipConfig.from_dict(read_json(folder / "config.json")))
    state = {}
    for name, tensor in read_tensors(path).items():
        for pattern, plain in RENAMES:
            name = re.sub(pattern, plain, name)
        state[name] = tensor
    steps = sorted({int(name.split(".")[2]) for name in state if re.fullmatch(r"mlp\.layers\.\d+\.weight", name)})
    if not steps:
        raise WeightsError(f"{path} holds no mlp.layers.*: it is a BLIP without ImageReward's tower", f"put there {WANTED}")
    # The published tower has no nonlinearity between its layers, only dropout.
    shapes = [state[f"mlp.layers.{k}.weight"].shape for k in steps]
    tower = nn.Sequential(*(nn.Linear(before, after) for after, before in shapes))
    place = {str(k): str(i) for i, k in enumerate(steps)}
    top = {re.sub(r"^mlp\.layers\.(\d+)", lambda m: place[m[1]], n): t for n, t in state.items() if n.startswith("mlp.layers.")}
    blip = {n: t for n, t in state.items() if not n.startswith(("mlp.", *UNUSED))}
    own = {n: t for n, t in net.state_dict().items() if not n.startswith(UNUSED)}
    missing, extra = sorted(own.keys() - blip.keys()), sorted(blip.keys() - own.keys())
    misshapen = sorted(n for n in own.keys() & blip.keys() if own[n].shape != blip[n].shape)
    if missing or extra or misshapen:
        counts = {"missing": missing, "misshapen": misshapen, "unknown": extra}
        found = ", ".join(f"{len(keys)} {kind} ({', '.join(keys[:3])})" for kind, keys in counts.items() if keys)
        raise WeightsError(f"{path} does not fit its config.json: of {len(own)} keys {found}", f"put there {WANTED}")
    net.load_state_dict(blip, strict=False)
    tower.load_state_dict(top)
    return net, tower
