"""From prompts to token ids, word spans and lost words: the step that every encoder shares, on the `tokenizers` library."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sfumato.core.errors import ConfigError, UsageError

from .encoded import TextStates, WordSpan

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenRow(NamedTuple):
    """One prompt: its ids with special tokens, the spans of the words kept, the words lost."""

    ids: tuple[int, ...]
    words: tuple[WordSpan, ...]
    dropped: tuple[str, ...]


def check_prompts(prompts: Any) -> list[str]:
    """`prompts` as a list. `UsageError` for a bare string (Python would read it letter by letter), for no prompts, for what is no text."""
    if isinstance(prompts, (str, bytes)):
        raise UsageError(f"prompts is {prompts!r}, one string", f"pass a list: [{prompts!r}]")
    checked = list(prompts)
    if not checked:
        raise UsageError("no prompts", "pass at least one; the empty prompt '' is allowed")
    for i, prompt in enumerate(checked):
        if not isinstance(prompt, str):
            raise UsageError(f"prompt {i} is {prompt!r}, a {type(prompt).__name__}", "a prompt is a string")
        if any("\ud800" <= c <= "\udfff" for c in prompt):
            raise UsageError(f"prompt {i} is {prompt!r}: half of a surrogate pair, not a character", "read the text as UTF-8")
    return checked


class PromptTokenizer:
    """A `tokenizers.Tokenizer` set to cut at `max_tokens` and never to pad (padding is ours: masked, and zero in the output).

    `empty` is the one token of a prompt that has none (language models add no special tokens, and a row of nothing cannot be attended to).
    `before`: what is put before every prompt; its words are nobody's, so neither spans nor lost words name them.
    `ConfigError` when `max_tokens` leaves no room for a word or exceeds `limit`, the positions that the model has.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int, empty: int, limit: int | None = None, before: str = "") -> None:
        least = tokenizer.num_special_tokens_to_add(False) + 1
        if max_tokens < least or (limit is not None and max_tokens > limit):
            raise ConfigError(f"max_tokens is {max_tokens}", f"from {least} to {limit}" if limit is not None else f"at least {least}")
        # The checkpoint's own padding and truncation settings (128 for MiniLM) are not ours.
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        self.tokenizer = tokenizer
        self.empty = empty
        self.before = before

    def __call__(self, prompts: Sequence[str]) -> list[TokenRow]:
        # One by one, not encode_batch: its threads make every later fork (data workers) print a warning, and prompts are short.
        return [self._one(prompt) for prompt in check_prompts(prompts)]

    def _one(self, prompt: str) -> TokenRow:
        encoding = self.tokenizer.encode(self.before + prompt)
        if not encoding.ids:
            return TokenRow((self.empty,), (), ())
        lost = self._own([offset for rest in encoding.overflowing for offset in rest.offsets])
        return TokenRow(tuple(encoding.ids), *_words(prompt, self._own(encoding.offsets), lost))

    def _own(self, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Character ranges as those of the prompt alone; empty for what stands before it."""
        shift = len(self.before)
        return [(max(start - shift, 0), max(end - shift, 0)) for start, end in offsets]


def _words(
    prompt: str, offsets: Sequence[tuple[int, int]], lost: Sequence[tuple[int, int]]
) -> tuple[tuple[WordSpan, ...], tuple[str, ...]]:
    """The words with a token, whose character ranges are `offsets`, and those with a token among the `lost` ranges.

    A word is a run between white space without the punctuation around it ("fox," is the word "fox"); a run of nothing but punctuation is
    itself a word, so that whatever is cut can be named. Characters that the tokenizer ignores make no word.
    """
    # owner[c]: the word that character c belongs to; inner[c]: the same, without surrounding punctuation. One pass, linear in the prompt.
    owner, inner, texts = [-1] * len(prompt), [-1] * len(prompt), []
    for w, run in enumerate(re.finditer(r"\S+", prompt)):
        start, end = _without_punctuation(prompt, *run.span())
        owner[slice(*run.span())] = [w] * (run.end() - run.start())
        inner[start:end] = [w] * (end - start)
        texts.append(prompt[start:end])

    spans: dict[int, tuple[int, int]] = {}
    for position, (start, end) in enumerate(offsets):
        for w in set(inner[start:end]) - {-1}:
            spans[w] = (spans.get(w, (position, 0))[0], position + 1)
    cut = {w for start, end in lost for w in owner[start:end]} - {-1}
    return tuple(WordSpan(texts[w], *spans[w]) for w in sorted(spans)), tuple(texts[w] for w in sorted(cut))


def _without_punctuation(prompt: str, start: int, end: int) -> tuple[int, int]:
    kept = [c for c in range(start, end) if not unicodedata.category(prompt[c]).startswith("P")]
    return (kept[0], kept[-1] + 1) if kept else (start, end)


def padded(rows: Sequence[TokenRow], padding: int, device: torch.device, length: int = 0) -> tuple[Tensor, Tensor]:
    """Ids (B, N) int64 padded on the right with `padding`, and their mask (B, N) bool; N: the longest row, at least `length`."""
    longest = max(length, *(len(row.ids) for row in rows))
    ids = torch.tensor([[*row.ids, *[padding] * (longest - len(row.ids))] for row in rows])
    lengths = torch.tensor([len(row.ids) for row in rows])
    return ids.to(device), (torch.arange(longest) < lengths[:, None]).to(device)


def states(hidden: Tensor, mask: Tensor, pooled: Tensor | None, rows: Sequence[TokenRow]) -> TextStates:
    """`TextStates` of a model's output: hidden (B, N, D), mask (B, N), pooled (B, P). Padding becomes exact zeros, even from NaN."""
    return TextStates(
        tokens=torch.where(mask[..., None], hidden.float(), 0.0),
        mask=mask,
        pooled=None if pooled is None else pooled.float(),
        words=tuple(row.words for row in rows),
        dropped=tuple(row.dropped for row in rows),
    )
