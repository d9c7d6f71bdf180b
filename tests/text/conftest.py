"""The real MiniLM, and tiny random CLIP, T5 and Qwen2 text encoders in diffusers folders with tokenizers made of one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.tokenizing import tiny_tokenizer

from sfumato.text import MiniLM, load_minilm, load_text_encoder

# What `load_text_encoder` is asked for, by kind: single and several taps, plain and projected.
KINDS = {"clip": (-1,), "clip-projection": (-2,), "t5": (-1,), "qwen2": (1, 2, -1)}


def build(kind: str, folder: Path) -> Path:
    """Write `folder/text_encoder` and `folder/tokenizer` of a tiny random model."""
    import transformers as tf

    raw = tiny_tokenizer(kind)
    size = raw.get_vocab_size()
    ends = {"t5": {"pad_token": "<pad>", "eos_token": "</s>"}, "qwen2": {"pad_token": "<|startoftext|>"}}
    names = ends.get(kind, {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    tf.PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=24, **names).save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    if kind == "t5":
        model = tf.T5EncoderModel(tf.T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0))
    elif kind == "qwen2":
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1}
        model = tf.Qwen2ForCausalLM(tf.Qwen2Config(vocab_size=size, **shape))
    else:
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "projection_dim": 12}
        marks = {"bos_token_id": size - 2, "eos_token_id": size - 1 if kind == "clip" else 2, "pad_token_id": size - 1}
        cls = tf.CLIPTextModel if kind == "clip" else tf.CLIPTextModelWithProjection
        model = cls(tf.CLIPTextConfig(vocab_size=size, max_position_embeddings=24, **shape, **marks))
    # Fresh CLIP and T5 weights are so small that two prompts would differ by less than the tolerance.
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    model.save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder(kind)`: the folder of a tiny encoder, made once; not to be written to."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = build(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return get


@pytest.fixture(scope="session")
def minilm() -> MiniLM:
    return load_minilm()


@pytest.fixture(scope="session", params=["minilm", *KINDS])
def encoder(request: pytest.FixtureRequest, folder: Callable[[str], Path]):
    """Every kind of encoder in turn."""
    if request.param == "minilm":
        return request.getfixturevalue("minilm")
    return load_text_encoder(folder(request.param), layers=KINDS[request.param])
