"""A memo of token states, one entry per prompt: a sampler, a server or a training run meets the same prompts again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from threading import Lock

import torch

from sfumato.core.errors import ConfigError

from .encoded import TextEncoder, TextStates, bare
from .tokens import check_prompts


class Cached:
    """A `TextEncoder` that remembers the last `size` different prompts of `encoder`; results agree with the uncached ones (1e-5).

    What a caller does to a returned tensor never reaches the memo. `hits` and `misses` count prompts. Safe to share between threads.
    """

    def __init__(self, encoder: TextEncoder, size: int = 1024) -> None:
        if size < 1:
            raise ConfigError(f"a text cache of size {size}", "at least 1; for no cache use the encoder itself")
        self.encoder = encoder
        self.size = size
        self.hits = 0
        self.misses = 0
        self._rows: OrderedDict[str, TextStates] = OrderedDict()
        self._lock = Lock()

    @property
    def name(self) -> str:
        return self.encoder.name

    @property
    def width(self) -> int:
        return self.encoder.width

    @property
    def pooled_width(self) -> int | None:
        return self.encoder.pooled_width

    @property
    def max_tokens(self) -> int:
        return self.encoder.max_tokens

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Cached:
        """See `TextEncoder.to`; what was remembered is forgotten."""
        self.encoder.to(device, dtype)
        with self._lock:
            self._rows.clear()
        vars(self).pop("bare", None)
        return self

    @cached_property
    def bare(self) -> TextEncoder:
        """A memo of its own around the encoder without its instruction."""
        plain = bare(self.encoder)
        return self if plain is self.encoder else Cached(plain, self.size)

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """As the encoder's; each prompt not yet known is encoded once, all of them in one batch."""
        prompts = check_prompts(prompts)
        rows: dict[str, TextStates] = {}
        with self._lock:
            for prompt in prompts:
                if prompt in self._rows:
                    self._rows.move_to_end(prompt)
                    rows[prompt] = self._rows[prompt]
        # Outside the lock: the encoder is the slow part, and two threads that encode one prompt twice do no harm.
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]
        if new:
            batch = self.encoder.encode(new)
            rows |= {prompt: _own(batch.row(i)) for i, prompt in enumerate(new)}
        with self._lock:
            self.misses += len(new)
            self.hits += len(prompts) - len(new)
            for prompt in new:
                self._rows[prompt] = rows[prompt]
            while len(self._rows) > self.size:
                self._rows.popitem(last=False)
        return TextStates.concat([rows[prompt] for prompt in prompts])


def _own(row: TextStates) -> TextStates:
    """The row in storage of its own: a view would keep its whole batch alive."""
    pooled = None if row.pooled is None else row.pooled.clone()
    more = {name: _own(states) for name, states in row.more.items()}
    return replace(row, tokens=row.tokens.clone(), mask=row.mask.clone(), pooled=pooled, more=more)
