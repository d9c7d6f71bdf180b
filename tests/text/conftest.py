"""The real MiniLM, and tiny random CLIP, T5 and Qwen2 text encoders in diffusers folders with tokenizers made of one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from sfumato.text import MiniLM, load_minilm, load_text_encoder

CORPUS = ["a red fox in the snow, a cat under a yellow house; don't draw unhappiness with thick outlines"] * 4
# What `load_text_encoder` is asked for, by kind: single and several taps, plain and projected.
KINDS = {"clip": (-1,), "clip-projection": (-2,), "t5": (-1,), "qwen2": (1, 2, -1)}


def _tokenizer(kind: str) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "t5":
        pieces = [*"abcdefghijklmnopqrstuvwxyz,;'▁", *(f"▁{word}" for word in ["a", "red", "fox", "the", "cat", "house", "snow"])]
        vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *((piece, -9.0 + len(piece)) for piece in pieces)]
        tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
        return tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|startoftext|>"] if kind == "qwen2" else []
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=specials))
    if kind != "qwen2":
        tokenizer.normalizer = normalizers.Lowercase()
        # CLIP's end-of-text token has the highest id, and old configs lean on it.
        tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
        specials = [(t, tokenizer.token_to_id(t)) for t in ("<|startoftext|>", "<|endoftext|>")]
        tokenizer.post_processor = processors.TemplateProcessing("<|startoftext|> $A <|endoftext|>", special_tokens=specials)
    return tokenizer


def build(kind: str, folder: Path) -> Path:
    """Write `folder/text_encoder` and `folder/tokenizer` of a tiny random model."""
    import transformers as tf

    raw = _tokenizer(kind)
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
