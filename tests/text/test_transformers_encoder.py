"""CLIP, T5 and language models of diffusers folders: the library's own numbers at batch 1, and strict loading."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.core.errors import ConfigError, UnknownNameError, WeightsError
from sfumato.text import Cached, load_text_encoder

Folder = Callable[[str], Path]
PROMPTS = ["a red fox in the snow", "", "a cat under a yellow house, don't draw", "猫 🎉 été"]


def reference(kind: str, folder: Path, prompt: str) -> Any:
    """transformers' output for one unpadded prompt, cut as its own tokenizer cuts."""
    import transformers as tf

    classes = {
        "clip": "CLIPTextModel",
        "clip-projection": "CLIPTextModelWithProjection",
        "t5": "T5EncoderModel",
        "qwen2": "Qwen2ForCausalLM",
    }
    model = getattr(tf, classes[kind]).from_pretrained(folder / "text_encoder").eval()
    ids = tf.AutoTokenizer.from_pretrained(folder / "tokenizer")(prompt, truncation=True, max_length=24, return_tensors="pt").input_ids
    if ids.numel() == 0:  # a language model adds no token to the empty prompt; ours is its first special token
        ids = torch.zeros(1, 1)
    with torch.no_grad():
        return model(input_ids=ids.long(), output_hidden_states=True)


@pytest.mark.parametrize("prompt", [*PROMPTS, "snow fox " * 30])
@pytest.mark.parametrize("kind", ["clip", "clip-projection", "t5", "qwen2"])
def test_parity_at_batch_1_and_padded(kind: str, prompt: str, folder: Folder) -> None:
    out = reference(kind, folder(kind), prompt)
    hidden = out.hidden_states
    layers, expected = {
        "clip": ((-1,), None),
        "clip-projection": ((-2,), hidden[-2]),
        "t5": ((-1,), None),
        "qwen2": ((1, 2, -1), torch.cat([hidden[1], hidden[2], hidden[-1]], dim=-1)),
    }[kind]
    expected = out.last_hidden_state if expected is None else expected
    encoder = load_text_encoder(folder(kind), layers=layers)
    for batch in ([prompt], [prompt, "a cat under a yellow house in the snow"]):
        states = encoder.encode(batch).row(0)
        torch.testing.assert_close(states.tokens, expected, rtol=0, atol=1e-5)
        pooled = out.text_embeds if kind == "clip-projection" else getattr(out, "pooler_output", None)
        assert (states.pooled is None) == (pooled is None) == (kind in ("t5", "qwen2"))
        if pooled is not None:
            torch.testing.assert_close(states.pooled, pooled, rtol=0, atol=1e-5)


def test_layers_bite(folder: Folder) -> None:
    one, two = (load_text_encoder(folder("clip"), layers=layers).encode(["fox"]).tokens for layers in ((-1,), (-2,)))
    assert (one - two).abs().max() > 1e-2
    assert load_text_encoder(folder("qwen2"), layers=(0, 3)).width == 32


@pytest.mark.parametrize("layers", [(4,), (-5,), ()])
def test_impossible_layers_are_refused(layers: tuple[int, ...], folder: Folder) -> None:
    with pytest.raises(ConfigError, match="layer"):
        load_text_encoder(folder("clip"), layers=layers)


def test_max_tokens(folder: Folder) -> None:
    assert load_text_encoder(folder("t5")).max_tokens == 24
    short = load_text_encoder(folder("t5"), max_tokens=4).encode(["a red fox in the snow"])
    assert short.tokens.shape[1] == 4 and short.dropped[0][-1] == "snow"
    with pytest.raises(ConfigError, match="from 3 to 24"):
        load_text_encoder(folder("clip"), max_tokens=77)


def test_an_instruction_is_read_before_prompts_and_words_are_counted_behind_it(folder: Folder) -> None:
    before, prompt, layers = "in the snow, ", "a red fox", (1, -1)
    plain = load_text_encoder(folder("qwen2"), layers=layers)
    told = load_text_encoder(folder("qwen2"), layers=layers, instruction=before)
    whole, read = plain.encode([before + prompt]), told.encode([prompt])
    assert torch.equal(read.tokens, whole.tokens) and read.words[0] == whole.words[0][3:]
    assert torch.equal(told.bare.encode([prompt]).tokens, plain.encode([prompt]).tokens) and plain.bare is plain
    hidden = load_text_encoder(folder("qwen2"), layers=layers, max_tokens=5, instruction=before, hidden=True)
    length = len(hidden.tokenizer([""])[0].ids)
    some = hidden.encode([prompt, "fox"])
    kept = torch.cat([whole.tokens[:, :1], whole.tokens[:, length - 1 :]], dim=1)[:, :5]
    torch.testing.assert_close(some.tokens[:1], kept, rtol=0, atol=1e-5)
    assert not some.mask[1, -1] and [word.text for word in some.words[1]] == ["fox"] and some.words[1][0].start in (1, 2)
    assert Cached(plain).bare.encoder is plain and torch.equal(Cached(told).bare.encode([prompt]).tokens, told.bare.encode([prompt]).tokens)
    changed = told.adapted({}, "a language model")
    assert changed.model is not told.model and changed.bare.model is changed.model


@pytest.fixture
def clip(folder: Folder, tmp_path: Path) -> Path:
    """A CLIP folder of one's own, to damage."""
    return Path(shutil.copytree(folder("clip"), tmp_path / "clip"))


def test_pickles_are_refused_with_a_way_out(clip: Path) -> None:
    (clip / "text_encoder/model.safetensors").rename(clip / "text_encoder/pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is pickled(.|\n)*save_pretrained"):
        load_text_encoder(clip)


@pytest.mark.parametrize("name", ["text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer"])
def test_what_is_missing_is_named(name: str, clip: Path) -> None:
    (clip / name).rename(clip / "elsewhere")
    with pytest.raises(WeightsError, match=name):
        load_text_encoder(clip)


def test_a_missing_shard_is_named(clip: Path) -> None:
    (clip / "text_encoder/model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (clip / "text_encoder/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="model-00001-of-00002"):
        load_text_encoder(clip)


def test_damaged_files_are_named(clip: Path) -> None:
    weights = clip / "text_encoder/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cannot load .*text_encoder"):
        load_text_encoder(clip)
    (clip / "text_encoder/config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"damaged file .*config\.json"):
        load_text_encoder(clip)


def test_a_damaged_tokenizer_is_named(clip: Path) -> None:
    (clip / "tokenizer/tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot load the tokenizer"):
        load_text_encoder(clip)


def test_unknown_architecture_names_the_nearest(clip: Path) -> None:
    config = json.loads((clip / "text_encoder/config.json").read_text())
    (clip / "text_encoder/config.json").write_text(json.dumps(config | {"architectures": ["ClipTextModel"]}))
    with pytest.raises(UnknownNameError, match="did you mean 'CLIPTextModel'"):
        load_text_encoder(clip)
    (clip / "text_encoder/config.json").write_text(json.dumps(config | {"architectures": None}))
    with pytest.raises(WeightsError, match="names no architecture"):
        load_text_encoder(clip)


@pytest.mark.parametrize("fault", ["missing", "misshapen", "unknown"])
def test_every_key_counts(fault: str, clip: Path) -> None:
    path = clip / "text_encoder/model.safetensors"
    weights = load_file(path)
    name = next(n for n in weights if n.endswith("layers.1.mlp.fc1.weight"))
    if fault == "missing":
        del weights[name]
    elif fault == "misshapen":
        weights[name] = weights[name][:-1].clone()
    else:
        name = "text_model.encoder.layers.1.extra.weight"
        weights[name] = torch.zeros(2)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(WeightsError, match=rf"1 {fault} \(.*layers\.1\.(mlp\.fc1|extra)\.weight\)"):
        load_text_encoder(clip)
