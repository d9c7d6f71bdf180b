"""The text encoders of published pipelines (diffusers folders): CLIP, T5 and decoder-only language models, run by transformers.

One class serves all three: they differ in which hidden states are taken (`layers`) and in whether there is a pooled vector, not in
what is done with them. Sources of the conventions: SD1.5 takes CLIP's output, SDXL the layer before the last (-2), SD3 and FLUX.1 T5's
output, FLUX.2 several layers of a language model side by side. Nothing is fetched and no code of a checkpoint is run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sfumato.core.errors import ConfigError, UnknownNameError, WeightsError

from .encoded import TextStates
from .tokens import PromptTokenizer, padded, states

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

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

    Unlike the pipelines of some published models, padding is masked here: those attend to, and hand on, the states of padding.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, layers: Sequence[int], max_tokens: int | None = None
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
        self.tokenizer = PromptTokenizer(tokenizer.backend_tokenizer, self.max_tokens, empty, limit)
        self.depth = depth

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextStates:
        """See `TextEncoder.encode`."""
        rows = self.tokenizer(prompts)
        # Any id will do for padding. 0 is valid everywhere and is never taken for CLIP's end-of-text token.
        ids, mask = padded(rows, 0, self.model.device)
        out = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=any(i != self.depth for i in self.layers))
        taps = [out.last_hidden_state if i == self.depth else out.hidden_states[i] for i in self.layers]
        pooled = (out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output) if self.pooled_width else None
        return states(torch.cat([tap.float() for tap in taps], dim=-1), mask, pooled, rows)


def load_text_encoder(
    folder: Path | str,
    subfolder: str = "text_encoder",
    tokenizer: str = "tokenizer",
    layers: Sequence[int] = (-1,),
    max_tokens: int | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TransformersEncoder:
    """The text encoder in `folder/subfolder` with the tokenizer in `folder/tokenizer`. States come out float32 whatever the `dtype`.

    `max_tokens` defaults to what the model and its tokenizer declare, at most 512.
    Raises `WeightsError` for a missing or damaged file, for pickled weights and for weights that do not match the model (every missing,
    misshapen or unknown key counts); `UnknownNameError` for an architecture that is not in `ARCHITECTURES`; `ConfigError` for
    impossible `layers` or `max_tokens`.
    """
    weights_in, words_in = Path(folder) / subfolder, Path(folder) / tokenizer
    model_class = _architecture(weights_in)
    _check_weights(weights_in)
    if not words_in.is_dir():
        raise WeightsError(f"missing folder {words_in}", "the tokenizer's folder lies beside the text encoder's; name it with tokenizer=")
    model = _load_model(model_class, weights_in, dtype)
    return TransformersEncoder(model.to(device), _load_tokenizer(words_in), layers, max_tokens)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        hint = "a text encoder is a folder with config.json and safetensors files"
        raise WeightsError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except ValueError as error:
        raise WeightsError(f"damaged file {path}: {error}", "fetch it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"damaged file {path}: not a JSON object", "fetch it again")
    return content


def _architecture(folder: Path) -> str:
    """The transformers class for `folder/config.json`."""
    names = _read_json(folder / "config.json").get("architectures") or []
    if not names:
        known = ", ".join(sorted(ARCHITECTURES))
        raise WeightsError(f"{folder / 'config.json'} names no architecture", f'add "architectures": ["..."], one of {known}')
    if names[0] not in ARCHITECTURES:
        raise UnknownNameError("text encoder architecture", str(names[0]), ARCHITECTURES)
    return ARCHITECTURES[names[0]]


def _check_weights(folder: Path) -> None:
    """Refuse a folder without complete safetensors files, before transformers looks for something else to load."""
    if (folder / "model.safetensors").is_file():
        return
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = _read_json(index).get("weight_map", {})
        for shard in sorted(set(shards.values())):
            if not (folder / shard).is_file():
                raise WeightsError(f"missing file {folder / shard}", f"{index.name} lists it; fetch it")
        return
    pickled = sorted(path for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickled:
        raise WeightsError(
            f"{pickled[0]} is a pickle, which can run any code when it is opened; it is not read",
            "convert it where you trust it: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW) writes model.safetensors",
        )
    raise WeightsError(f"missing file {folder / 'model.safetensors'}", "or model.safetensors.index.json with its shards")


def _load_model(model_class: str, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    import transformers
    from transformers.utils import logging

    # transformers 4.56 renamed the argument, and warns at the old name.
    release = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    precision: dict[str, Any] = {"dtype" if release >= (4, 56) else "torch_dtype": dtype}
    load: Callable[..., tuple[PreTrainedModel, Mapping[str, Any]]] = getattr(transformers, model_class).from_pretrained
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # we raise on what it would print
    logging.disable_progress_bar()
    try:
        model, report = load(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True, **precision,
        )  # fmt: skip
    except Exception as error:  # safetensors, OS and config errors have no common base
        raise WeightsError(f"cannot load {folder}: {error}", "fetch the folder again") from error
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
    _refuse_mismatch(model, folder, report)
    return model


def _refuse_mismatch(model: nn.Module, folder: Path, report: Mapping[str, Any]) -> None:
    """Raise `WeightsError` unless every key found its place: a model half of random numbers would only draw badly."""
    missing = sorted(map(str, report["missing_keys"]))
    misshapen = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"])
    unexpected = sorted(map(str, report["unexpected_keys"]))
    extra = [key for key in unexpected if not key.startswith(_LEFT_BEHIND) and not key.endswith("position_ids")]
    faults = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in (("missing", missing), ("misshapen", misshapen), ("unknown", extra))
        if keys
    ]
    if faults:
        total = len(model.state_dict())
        raise WeightsError(
            f"the weights in {folder} are not those of a {type(model).__name__}: of {total} keys {', '.join(faults)}",
            "its config.json and its weights come from different models; fetch both from one place",
        )


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise WeightsError(f"cannot load the tokenizer in {folder}: {error}", "fetch the folder again") from error
    if not tokenizer.is_fast:
        raise WeightsError(
            f"the tokenizer in {folder} ({type(tokenizer).__name__}) cannot say which characters a token covers",
            "a tokenizer.json is needed: fetch one, or let the model's own transformers class write it with save_pretrained",
        )
    return tokenizer
