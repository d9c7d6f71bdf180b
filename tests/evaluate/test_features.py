"""Extractors and scorers from folders: tiny random networks saved as users have them, and folders that lack something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sfumato.core.errors import NonFiniteError, SfumatoError, UnknownNameError, UsageError, WeightsError
from sfumato.evaluate.features import JudgeFeatures, Preparation, load_features, preparation
from sfumato.evaluate.inception import Inception, tensorflow_resize
from sfumato.evaluate.metrics import frechet
from sfumato.evaluate.scorers import REWARD_MEAN, REWARD_STD, load_scorer

from .conftest import tiny_judge

PROMPTS = ["a red cat", "a dog", "a red dog under a cat"]


def pictures(count: int = 3, side: int = 40) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(5)) * 2 - 1


def tokenizer(folder: Path) -> int:
    """A tokenizer of words between [CLS] and [SEP]; its size."""
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "cat", "dog", "under"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tf.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", eos_token="[SEP]").save_pretrained(folder)
    return len(words)


SHAPE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SHAPE, "image_size": 24, "patch_size": 8}


def clip(folder: Path) -> tf.CLIPModel:
    size = tokenizer(folder)
    torch.manual_seed(0)
    text = {**SHAPE, "vocab_size": size, "max_position_embeddings": 6, "eos_token_id": 3, "pad_token_id": 0, "bos_token_id": 2}
    model = tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)).eval()
    model.save_pretrained(folder)
    return model


def blip(folder: Path) -> tuple[tf.BlipForImageTextRetrieval, list[torch.nn.Linear]]:
    """ImageReward's folder, with the key names of its own publication."""
    size = tokenizer(folder)
    torch.manual_seed(0)
    text = {**SHAPE, "vocab_size": size, "encoder_hidden_size": 16, "max_position_embeddings": 40, "bos_token_id": 2, "sep_token_id": 3}
    config = tf.BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=8, architectures=["BlipForImageTextRetrieval"])
    model = tf.BlipForImageTextRetrieval(config).eval()
    config.save_pretrained(folder)
    tower = [torch.nn.Linear(16, 8), torch.nn.Linear(8, 1)]
    names = {
        "vision_model.embeddings.class_embedding": "visual_encoder.cls_token",
        "vision_model.embeddings.position_embedding": "visual_encoder.pos_embed",
        "vision_model.embeddings.patch_embedding": "visual_encoder.patch_embed.proj",
        "vision_model.post_layernorm": "visual_encoder.norm",
        "vision_model.encoder.layers": "visual_encoder.blocks",
        "self_attn.projection": "attn.proj",
        "self_attn": "attn",
        "layer_norm": "norm",
    }
    state = {}
    for key, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs) if key.startswith(("vision_model", "visual_encoder")) else key
        state[f"blip.{key}"] = tensor.clone()
    for place, layer in zip((0, 2), tower, strict=True):
        state |= {f"mlp.layers.{place}.{n}": t.clone() for n, t in layer.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    return model, tower


def test_clip_is_transformers_own(tmp_path: Path) -> None:
    model, features = clip(tmp_path), load_features(tmp_path)
    assert (features.size, features.dims) == (24, 12) and features.name == f"CLIP ({tmp_path.name})"
    seen = preparation(tmp_path, 24, ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))(pictures())
    with torch.no_grad():
        expected = model(pixel_values=seen, input_ids=torch.tensor([[2, 4, 3]])).image_embeds
    found = features(pictures())
    assert torch.allclose(found / found.norm(dim=1, keepdim=True), expected, atol=1e-5)
    assert torch.allclose(features(pictures()[1:2]), found[1:2], atol=1e-5) and features(pictures()[:0]).shape == (0, 12)
    assert frechet(found, found).reason == "not estimable: 3 pictures, 13 needed for 12 features"
    scorer = load_scorer(str(tmp_path))
    with torch.no_grad():
        words = model.text_model(torch.tensor([[2, 4, 5, 6, 3]])).pooler_output
        said = torch.nn.functional.normalize(model.text_projection(words), dim=1)
    assert float(scorer(pictures()[:1], PROMPTS[:1])) == pytest.approx(float((said * expected[:1]).sum()), abs=1e-5)
    # Padding beside a longer prompt changes nothing, and words beyond the reach are cut.
    assert torch.allclose(scorer(pictures(), PROMPTS)[:1], scorer(pictures()[:1], PROMPTS[:1]), atol=1e-5)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters", "ViT", "DINOv3ViT"])
def test_dino_is_transformers_own(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = getattr(tf, f"{kind}Model")(getattr(tf, f"{kind}Config")(**VISION)).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        )
    )
    features = load_features(tmp_path)
    seen = Preparation(28, 24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(pictures())
    with torch.no_grad():
        expected = model(pixel_values=seen).last_hidden_state[:, 0]
    assert seen.shape[-2:] == (24, 24) and features.dims == 16 and torch.allclose(features(pictures()), expected, atol=1e-6)


def test_preparation_resizes_as_pillow_does() -> None:
    grey = torch.randint(0, 256, (1, 3, 50, 70), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    ours = Preparation(20, 20, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(grey.float() / 127.5 - 1)[0] * 255
    pillow = Image.fromarray(grey[0].permute(1, 2, 0).numpy()).resize((28, 20), Image.Resampling.BICUBIC).crop((4, 0, 24, 20))
    assert np.abs(np.asarray(pillow, np.float32).transpose(2, 0, 1) - ours.numpy()).max() < 1.01


def test_inception_loads_its_published_keys(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Inception().eval()
    state = {n: t for n, t in net.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert len(state) == 94 * 5  # as many convolutions as the published file
    save_file({**state, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, tmp_path / "inception.safetensors")
    features = load_features(tmp_path)
    found = features(pictures(2, 32))
    assert found.shape == (2, features.dims) == (2, 2048) and found.isfinite().all() and not torch.equal(found[0], found[1])
    short = load_file(tmp_path / "inception.safetensors")
    del short["Mixed_7c.branch3x3_2a.conv.weight"]
    save_file({**short, "more": torch.zeros(1)}, tmp_path / "inception.safetensors")
    with pytest.raises(WeightsError, match=r"1 keys missing \(Mixed_7c.branch3x3_2a.conv.weight\), 1 unknown or misshapen \(more\)"):
        load_features(tmp_path)


def test_tensorflows_resize() -> None:
    ramp = torch.arange(4.0).repeat(4, 1)[None, None]
    assert tensorflow_resize(ramp, 8)[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert torch.equal(tensorflow_resize(ramp, 4), ramp) and tensorflow_resize(ramp, 2)[0, 0, 1].tolist() == [0, 2]


def test_image_reward_from_its_own_key_names(tmp_path: Path) -> None:
    model, tower = blip(tmp_path)
    scorer = load_scorer(str(tmp_path))
    found = scorer(pictures(), PROMPTS)
    look = preparation(tmp_path, 24, ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    with torch.no_grad():
        read = model(input_ids=torch.tensor([[2, 4, 7, 3]]), pixel_values=look(pictures())[1:2]).question_embeds
        reward = (tower[1](tower[0](read[:, 0])) - REWARD_MEAN) / REWARD_STD
    assert float(found[1]) == pytest.approx(float(reward), abs=1e-5) and len(found) == 3
    state = load_file(tmp_path / "model.safetensors")
    bare = {n: t for n, t in state.items() if not n.startswith("mlp.")}
    save_file(bare, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="without ImageReward's tower"):
        load_scorer(str(tmp_path))
    del state["blip.visual_encoder.cls_token"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing \(vision_model.embeddings.class_embedding\)"):
        load_scorer(str(tmp_path))


def test_the_judge_is_an_extractor_and_a_scorer(tmp_path: Path) -> None:
    judge = tiny_judge()
    features = JudgeFeatures(judge)
    seen = pictures(3, 32)
    assert torch.allclose(features(seen).norm(dim=1), torch.full((3,), 8**0.5), atol=1e-4)
    maps = features.maps(seen)
    assert [tuple(m.shape) for m in maps] == [(3, 8, 8, 8), (3, 8, 4, 4), (3, 16, 2, 2), (3, 16, 1, 1)]
    assert torch.allclose(features.maps(seen[:1])[2], maps[2][:1], atol=1e-5) and not judge.net.levels[0]._forward_hooks
    judge.save(tmp_path / "eye")
    scorer = load_scorer(str(tmp_path / "eye"))
    assert scorer(seen, PROMPTS).shape == (3,) and scorer.name.startswith("eye (")
    assert load_scorer("judge").name.startswith("judge (")


def test_missing_weights_say_what_to_put_where(tmp_path: Path) -> None:
    loaders: list[Any] = [load_features, lambda folder: load_scorer(str(folder))]
    for load in loaders:
        with pytest.raises(WeightsError, match=r"config.json is missing\n  put there .*CLIP"):
            load(tmp_path / "nowhere")
    clip(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    for load in loaders:
        with pytest.raises(WeightsError, match="is pickled"):
            load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["CLIPModle"]}))
    for load in loaders:
        with pytest.raises(UnknownNameError, match="did you mean 'CLIPModel'"):
            load(tmp_path)


def test_bad_pictures_are_named(tmp_path: Path) -> None:
    clip(tmp_path)
    bad = pictures()
    bad[1, 0, 0, 0] = torch.nan
    scorer, features = load_scorer(str(tmp_path)), load_features(tmp_path)
    for broken in (lambda: features(bad), lambda: scorer(bad, PROMPTS)):
        with pytest.raises(NonFiniteError, match=r"1 of 3 pictures hold NaN or infinity: rows \[1\]"):
            broken()
    with pytest.raises(UsageError, match="one prompt for each picture"):
        scorer(pictures(), PROMPTS[:2])
    with pytest.raises(SfumatoError, match=r"\(N, 3, H, W\)"):
        features(pictures()[:, :1])
