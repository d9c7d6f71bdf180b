"""Captions to latents and back (UniDiffuser, arXiv 2303.06555): CLIP's states through a Linear, and GPT-2 that reads them as a prefix.

    y = E states,   (B, N, width) -> (B, N, latent)            caption = GPT-2 after the prefix D y, by beam search

diffusers' class is `UniDiffuserTextDecoder`; its folder is read and written with the names of its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sfumato.core.errors import ConfigError, UnknownNameError, WeightsError
from sfumato.core.files import read_tensors, write_json, write_tensors
from sfumato.core.pretrained import load_tokenizer
from sfumato.core.weights import WEIGHTS, assign_strictly, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CLASS = "UniDiffuserTextDecoder"
_PREFIX = ("prefix_length", "prefix_inner_dim", "prefix_hidden_dim")
_GPT = (
    "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function", "resid_pdrop", "embd_pdrop", "attn_pdrop",
    "layer_norm_epsilon", "initializer_range", "scale_attn_weights", "use_cache", "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn",
)  # fmt: skip
# GPT-2's word head is its table of words; old files hold its causal masks too.
_HEAD, _WORDS, _MASKS = "transformer.lm_head.weight", "transformer.transformer.wte.weight", (".attn.bias", ".attn.masked_bias")


class Captioner(nn.Module):
    """`config`: diffusers' fields.   tokenizer: GPT-2's.   width: of CLIP's states; latent: of a caption's."""

    def __init__(self, config: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> None:
        from transformers import GPT2Config, GPT2Model

        super().__init__()
        given = {name: value for name, value in config.items() if not name.startswith("_")}
        known = (*_PREFIX, *_GPT)
        if strangers := sorted(given.keys() - set(known)):
            raise ConfigError(UnknownNameError(f"field of a {CLASS} config", strangers[0], known).args[0])
        if missing := sorted(set(known) - given.keys()):
            raise ConfigError(f"the {CLASS} config lacks {', '.join(missing)}", "save_pretrained writes every field")
        self.config, self.tokenizer = given, tokenizer
        self.width = int(given["prefix_inner_dim"])
        self.latent = int(given["prefix_hidden_dim"] or self.width)
        self.encode_prefix: nn.Module = nn.Linear(self.width, self.latent) if given["prefix_hidden_dim"] else nn.Identity()
        self.decode_prefix: nn.Module = nn.Linear(self.latent, given["n_embd"]) if given["prefix_hidden_dim"] else nn.Identity()
        self.gpt = GPT2Model(GPT2Config(**{name: given[name] for name in _GPT}))
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, states: Tensor) -> Tensor:
        """Latents (B, N, latent) in fp32 of CLIP's states (B, N, width)."""
        latents: Tensor = self.encode_prefix(states.to(self.gpt.wte.weight))
        return latents.float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> tuple[str, ...]:
        """The captions of latents (B, N, latent)."""
        prefixes = self.decode_prefix(latents.to(self.gpt.wte.weight))
        return tuple(self.tokenizer.decode(self._search(prefix), skip_special_tokens=True) for prefix in prefixes.split(1))

    def _search(self, prefix: Tensor, beams: int = 5, longest: int = 67) -> list[int]:
        """The words after `prefix` (1, N, D) whose mean log-probability is the highest that `beams` beams find, at most `longest`."""
        words, end = self.gpt.wte, self.tokenizer.eos_token_id
        log_p = self._next(prefix)
        scores, tokens = (x[0] for x in log_p.topk(beams))
        tokens, read = tokens[:, None], prefix.expand(beams, -1, -1)
        lengths, ended = torch.ones_like(scores), tokens[:, -1] == end
        for _ in range(longest - 1):
            if bool(ended.all()):
                break
            read = torch.cat([read, words(tokens[:, -1:])], dim=1)
            log_p = self._next(read)
            # What has ended goes on with nothing, at no cost.
            log_p[ended], log_p[ended, 0] = -torch.inf, 0.0
            lengths = lengths + (~ended).float()
            mean, place = ((scores[:, None] + log_p) / lengths[:, None]).flatten().topk(beams)
            source, token = place // log_p.shape[1], place % log_p.shape[1]
            tokens, read, lengths = torch.cat([tokens[source], token[:, None]], dim=1), read[source], lengths[source]
            scores, ended = mean * lengths, ended[source] | (token == end)
        best = int((scores / lengths).argmax())
        return list(map(int, tokens[best, : int(lengths[best])]))

    def _next(self, read: Tensor) -> Tensor:
        """(B, words) log-probabilities of the word after `read` (B, N, D)."""
        last = self.gpt(inputs_embeds=read, use_cache=False).last_hidden_state[:, -1]
        return (last @ self.gpt.wte.weight.T).float().log_softmax(-1)

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write what diffusers' class reads, the table of words in both its places."""
        write_json(folder / "config.json", {"_class_name": CLASS, **self.config})
        theirs = {_theirs(name): tensor.to(dtype or tensor.dtype) for name, tensor in self.state_dict().items()}
        write_tensors(folder / WEIGHTS, {**theirs, _HEAD: theirs[_WORDS].clone()})


def load_captioner(folder: Path, subfolder: str = "text_decoder", tokenizer: str = "text_tokenizer") -> Captioner:
    """The captioner in `folder`, on the CPU. Raises `WeightsError` for a missing, damaged or pickled file and for weights that do not fit;
    `ConfigError` for a field that is not known.
    """
    captioner = Captioner(read_json(folder / subfolder / "config.json"), load_tokenizer(folder / tokenizer))
    file = folder / subfolder / WEIGHTS
    theirs = {name: tensor for name, tensor in read_tensors(file).items() if not name.endswith(_MASKS)}
    head = theirs.pop(_HEAD, None)
    if head is not None and (_WORDS not in theirs or not torch.equal(head, theirs[_WORDS])):
        raise WeightsError(f"{file}: {_HEAD} differs from {_WORDS}", "as published both are one table")
    assign_strictly(captioner, {_ours(name): tensor for name, tensor in theirs.items()}, str(file))
    return captioner.eval().requires_grad_(False)


def _theirs(name: str) -> str:
    return f"transformer.transformer.{name.removeprefix('gpt.')}" if name.startswith("gpt.") else name


def _ours(name: str) -> str:
    return f"gpt.{name.removeprefix('transformer.transformer.')}" if name.startswith("transformer.transformer.") else name
