"""From words to tokens: which token states a word or a phrase of a prompt became."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sfumato.core.errors import UnknownNameError, UsageError

from .encoded import TextStates, WordSpan


def find_phrase(states: TextStates, row: int, phrase: str) -> WordSpan:
    """The span of `phrase`, one word or several in succession, in the prompt of `row`; case does not matter, the first one counts.

    Raises `UsageError` for an empty phrase and one that the encoder cut off, `UnknownNameError` naming the prompt's words otherwise.
    """
    wanted = [word.strip(",.;:!?'\"()") for word in phrase.casefold().split()]
    if not any(wanted):
        raise UsageError(f"the phrase {phrase!r} holds no word", "one or several words of the prompt")
    words = states.words[row]
    found = _find([word.text.casefold() for word in words], wanted)
    if found is not None:
        inside = words[found : found + len(wanted)]
        return WordSpan(" ".join(word.text for word in inside), inside[0].start, inside[-1].end)
    if _find([word.casefold() for word in states.dropped[row]], wanted) is not None:
        raise UsageError(f"{phrase!r} lies beyond what the text encoder reads", "a shorter prompt, or the word earlier in it")
    raise UnknownNameError("word of the prompt:", phrase, {word.text for word in words})


def parts(states: TextStates, row: int, phrases: Mapping[str, str]) -> dict[str, range]:
    """The tokens of each phrase, under its name, and those of every other word under "<word>@<first token>". Raises as `find_phrase`."""
    spans = {name: find_phrase(states, row, phrase) for name, phrase in phrases.items()}
    named = {name: range(span.start, span.end) for name, span in spans.items()}
    taken = {token for tokens in named.values() for token in tokens}
    others = {f"{w.text}@{w.start}": range(w.start, w.end) for w in states.words[row] if not taken & set(range(w.start, w.end))}
    return {**named, **others}


def _find(words: Sequence[str], wanted: Sequence[str]) -> int | None:
    starts = range(len(words) - len(wanted) + 1)
    return next((i for i in starts if list(words[i : i + len(wanted)]) == list(wanted)), None)
