"""The text encoders of published pipelines (diffusers folders): CLIP, T5 and decoder-only language models, run by transformers.

One class serves all three: they differ in which hidden states are taken (`layers`) and in whether there is a pooled vector, not in
what is done with them. Sources of the conventions: SD1.5 takes CLIP's output, SDXL the layer before the last (-2), SD3 and FLUX.1 T5's
output, FLUX.2 several layers of a language model side by side. Nothing is fetched and no code of a checkpoint is run.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from sfumato.core.errors import ConfigError, UnknownNameError, WeightsError
from sfumato.core.pretrained import load_pretrained, load_tokenizer, require_safetensors
from sfumato.core.weights import read_json

from .adapted import Changes, adapted
from .captions import Prepare, as_it_is
from .encoded import TextStates
from .tokens import PromptTokenizer, check_prompts, padded, states

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Padding = Literal["masked", "attended", "kept"]

_CAUSAL = ("Gemma", "Gemma2", "Llama", "Mistral", "Phi3", "Qwen2", "Qwen3")

# `architectures` of a config.json -> the transformers class that computes its text states (a language model without its word head).
ARCHITECTURES: dict[str, str] = {
    "CLIPTextModel": "CLIPTextModel",
    "CLIPTextModelWithProjection": "CLIPTextModelWithProjection",
    "T5EncoderModel": "T5EncoderModel",
    "T5ForConditionalGeneration": "T5EncoderModel",
    "UMT5EncoderModel": "UMT5EncoderModel",
    **{f"{family}Model": f"{family}Model" for family in _CAUSAL},
    **{f"{family}ForCausalLM": f"{family}Model" for family in _CAUSAL},
}

# Weights that a text encoder rightly leaves behind: word heads, T5's decoder, a tower's other half, tables that newer versions compute.
_LEFT_BEHIND = ("lm_head", "decoder", "vision_model", "visual_projection", "logit_scale", "text_projection")

# Where neither model nor tokenizer says how much it reads: what most published pipelines use.
_DEFAULT_TOKENS = 512


class TransformersEncoder:
    """A transformers text model as a `TextEncoder`.

    `layers` index the model's hidden states: 0 the embeddings, i the output of block i, -1 the model's output (after its final norm), -2
    the last block but one. Several are laid side by side: width = len(layers) * hidden size.
    Pooled: CLIP's vector at the end-of-text token, projected where the checkpoint has a projection; None for the others.

    padding "masked": states at padding are nothing. "attended": SD3 and FLUX pad every prompt to `max_tokens` with the tokenizer's own
    token, attend to it here and hand its states on; their networks know no other input. "kept": HiDream pads likewise, does not attend to
    it here, and hands its states on.   prepare: what is done to a prompt first.
    instruction: words put before every prompt, which a language model reads it by; `bare` reads without them.   hidden: of an
    instruction's states only the first and the last are handed on, and its tokens do not count in `max_tokens` (Sana).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        layers: Sequence[int],
        max_tokens: int | None = None,
        padding: Padding = "masked",
        prepare: Prepare = as_it_is,
        instruction: str = "",
        hidden: bool = False,
    ) -> None:
        config: Any = model.config
        depth = int(config.num_hidden_layers)
        for layer in layers:
            if not -depth - 1 <= layer <= depth:
                choices = f"from 0 (embeddings) to {depth}, or from -1 down to {-depth - 1}"
                raise ConfigError(f"layer {layer} of a text encoder of {depth} blocks", choices)
        if not layers:
            raise ConfigError("no layers to take states from", "layers=(-1,) takes the model's output")
        self.model = model.eval().requires_grad_(False)
        self.layers = tuple(layer % (depth + 1) for layer in layers)
        self.name = str(config.model_type)
        self.width = int(config.hidden_size) * len(layers)
        self.pooled_width: int | None = None
        if self.name.startswith("clip"):
            self.pooled_width = int(config.projection_dim if hasattr(model, "text_projection") else config.hidden_size)
        # T5's positions are relative: it declares no limit. A tokenizer without one declares an absurd number.
        limit = getattr(config, "max_position_embeddings", None)
        self.max_tokens = min(limit or _DEFAULT_TOKENS, tokenizer.model_max_length, _DEFAULT_TOKENS) if max_tokens is None else max_tokens
        specials = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
        empty = next((token for token in specials if token is not None), 0)
        self.published_tokenizer = tokenizer
        # A copy: the published one is saved again as it came, without our truncation.
        backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        self.skipped = max(len(backend.encode(instruction).ids) - 2, 0) if hidden and instruction else 0
        self.tokenizer = PromptTokenizer(backend, self.max_tokens + self.skipped, empty, limit, instruction)
        self.depth = depth
        self.prepare, self.instruction = prepare, instruction
        if padding != "masked" and tokenizer.pad_token_id is None:
            raise ConfigError(f"padding is {padding}, and the tokenizer has no padding token", "its tokenizer_config.json names one")
        self.padding = None if padding == "masked" else int(tokenizer.pad_token_id)
        self.attends = padding != "kept"

    @property
    def bare(self) -> TransformersEncoder:
        """The same encoder without its instruction."""
        if not self.instruction:
            return self
        other = copy.copy(self)
        other.tokenizer, other.instruction, other.skipped = self._plain, "", 0
        return other

    @cached_property
    def _plain(self) -> PromptTokenizer:
        """The tokenizer without the instruction."""
        backend = type(self.tokenizer.tokenizer).from_str(self.tokenizer.tokenizer.to_str())
        return PromptTokenizer(backend, self.max_tokens, self.tokenizer.empty, before="")

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextStates:
        """See `TextEncoder.encode`."""
        rows = self.tokenizer([self.prepare(prompt) for prompt in check_prompts(prompts)])
        deep = any(i != self.depth for i in self.layers)
        if self.padding is None:
            # Any id will do for padding. 0 is valid everywhere and is never taken for CLIP's end-of-text token.
            ids, mask = padded(rows, 0, self.model.device)
            out = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=deep)
        else:
            ids, words = padded(rows, self.padding, self.model.device, self.max_tokens)
            mask = torch.ones_like(words)
            out = self.model(input_ids=ids, attention_mask=None if self.attends else words.long(), output_hidden_states=deep)
        taps = [out.last_hidden_state if i == self.depth else out.hidden_states[i] for i in self.layers]
        pooled = (out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output) if self.pooled_width else None
        return self._handed_on(states(torch.cat([tap.float() for tap in taps], dim=-1), mask, pooled, rows))

    def _handed_on(self, read: TextStates) -> TextStates:
        """`read` without the states of a hidden instruction between its first and its last."""
        if not (skipped := self.skipped):
            return read
        kept = torch.tensor([0, *range(1 + skipped, read.tokens.shape[1])], device=read.mask.device)
        words = tuple(tuple(w._replace(start=w.start - skipped, end=w.end - skipped) for w in row) for row in read.words)
        return replace(read, tokens=read.tokens[:, kept], mask=read.mask[:, kept], words=words)

    def adapted(self, changes: Changes, name: str) -> TransformersEncoder:
        """This encoder with low-rank changes by module of its model; see `adapted.py`. Raises `WeightsError` for one that does not fit."""
        other = copy.copy(self)
        other.model = adapted(self.model, changes, name)
        return other

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TransformersEncoder:
        """See `TextEncoder.to`. What transformers keeps in fp32 beside fp16 stays so, T5's `wo`, which overflows; and so do tables that
        are no weights (rotary rates).
        """
        self.model.to(device=device)
        kept = set(self.model._keep_in_fp32_modules or ()) if dtype == torch.float16 else set()
        for name, weight in self.model.named_parameters() if dtype is not None else ():
            weight.data = weight.data.to(torch.float32 if kept.intersection(name.split(".")) else dtype)
        return self


def load_text_encoder(
    folder: Path | str,
    subfolder: str = "text_encoder",
    tokenizer: str = "tokenizer",
    layers: Sequence[int] = (-1,),
    max_tokens: int | None = None,
    *,
    padding: Padding = "masked",
    prepare: Prepare = as_it_is,
    instruction: str = "",
    hidden: bool = False,
    ends: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TransformersEncoder:
    """The text encoder in `folder/subfolder` with the tokenizer in `folder/tokenizer`. States come out float32 whatever the `dtype`.

    `max_tokens` defaults to what the model and its tokenizer declare, at most 512.   `ends`: the token that ends a text also pads.
    Raises `WeightsError` for a missing or damaged file, for pickled weights and for weights that do not match the model (every missing,
    misshapen or unknown key counts); `UnknownNameError` for an architecture that is not in `ARCHITECTURES`; `ConfigError` for
    impossible `layers` or `max_tokens`.
    """
    weights_in, words_in = Path(folder) / subfolder, Path(folder) / tokenizer
    model_class = _architecture(weights_in)
    require_safetensors(weights_in)
    if not words_in.is_dir():
        raise WeightsError(f"missing folder {words_in}", "the tokenizer's folder lies beside the text encoder's; name it with tokenizer=")
    model = load_pretrained(model_class, weights_in, dtype, _LEFT_BEHIND)
    words = load_tokenizer(words_in)
    if ends:
        words.pad_token = words.eos_token
    return TransformersEncoder(model.to(device), words, layers, max_tokens, padding, prepare, instruction, hidden)


def empty_text_model(folder: Path) -> PreTrainedModel:
    """The model that `folder`'s config describes, on meta; no weight is read. Raises as `load_text_encoder` does for its config."""
    import transformers

    model_class = getattr(transformers, _architecture(folder))
    with torch.device("meta"):
        model: PreTrainedModel = model_class(model_class.config_class.from_pretrained(str(folder), local_files_only=True))
    return model


def _architecture(folder: Path) -> str:
    """The transformers class for `folder/config.json`."""
    names = read_json(folder / "config.json").get("architectures") or []
    if not names:
        known = ", ".join(sorted(ARCHITECTURES))
        raise WeightsError(f"{folder / 'config.json'} names no architecture", f'add "architectures": ["..."], one of {known}')
    if names[0] not in ARCHITECTURES:
        raise UnknownNameError("text encoder architecture", str(names[0]), ARCHITECTURES)
    return ARCHITECTURES[names[0]]
