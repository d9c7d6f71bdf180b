"""Saying which words an encoder did not read. Nothing is printed here: the caller owns the screen."""

from __future__ import annotations

from collections.abc import Sequence

from .encoded import TextStates

_SHOWN = 8  # words named in one message; the rest are counted


def truncation_report(states: TextStates, prompts: Sequence[str]) -> list[str]:
    """One message per prompt that was cut, in order; empty when every word was read. `prompts` are those that `states` were made of."""
    messages = []
    for prompt, dropped, mask in zip(prompts, states.dropped, states.mask, strict=True):
        if dropped:
            start = prompt if len(prompt) <= 40 else f"{prompt[:37]}..."
            named = ", ".join(map(repr, dropped[:_SHOWN])) + (f" and {len(dropped) - _SHOWN} more" if len(dropped) > _SHOWN else "")
            lost = "1 word was" if len(dropped) == 1 else f"{len(dropped)} words were"
            messages.append(
                f"prompt {start!r} is longer than the {int(mask.sum())} tokens the text encoder reads; {lost} not (fully) read: {named}\n"
                "  shorten the prompt, or put what matters first"
            )
    return messages
