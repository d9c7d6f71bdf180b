"""Words and phrases of a prompt, and the tokens they became."""

from __future__ import annotations

import pytest

from sfumato.core.errors import UnknownNameError, UsageError
from sfumato.text import load_minilm
from sfumato.text.spans import find_phrase, parts

ENCODER = load_minilm()
STATES = ENCODER.encode(["A happy cat, fluent flat style", "post-impressionism and a cat and a dog"])


def test_words_and_phrases() -> None:
    assert find_phrase(STATES, 0, "CAT") == ("cat", 3, 4)
    assert find_phrase(STATES, 0, "fluent flat")[0] == "fluent flat" and find_phrase(STATES, 0, "happy cat,")[1:] == (2, 4)
    start, end = find_phrase(STATES, 1, "post-impressionism")[1:]
    assert start == 1 and end - start > 1
    assert find_phrase(STATES, 1, "a") == find_phrase(STATES, 1, "a")  # the first of several


def test_all_parts_of_a_prompt() -> None:
    found = parts(STATES, 0, {"what": "cat", "how": "fluent flat"})
    assert found["what"] == range(3, 4) and found["how"].stop - found["how"].start == 2
    assert list(found)[2:] == [f"{w.text}@{w.start}" for w in STATES.words[0] if w.text in ("A", "happy", "style")]
    assert not {token for name in list(found)[2:] for token in found[name]} & {*found["what"], *found["how"]}


def test_a_word_that_does_not_occur_is_told() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'happy'"):
        find_phrase(STATES, 0, "hapy")
    with pytest.raises(UnknownNameError, match="cat fluent"):
        find_phrase(STATES, 0, "cat fluent style")
    with pytest.raises(UsageError, match="holds no word"):
        find_phrase(STATES, 0, " , ")


def test_a_word_beyond_the_encoder_is_told() -> None:
    short = load_minilm(max_tokens=6).encode(["one two three four five six seven"])
    with pytest.raises(UsageError, match="beyond what the text encoder reads"):
        find_phrase(short, 0, "seven")
