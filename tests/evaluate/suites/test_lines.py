"""A file of prompts: every line is a prompt or is named as none; nothing in a line is ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.core.errors import UsageError
from sfumato.evaluate.metrics import Asked, Facts
from sfumato.evaluate.suites.lines import LONGEST_REASON, MOST_COUNTED, Asking, read_lines

from .conftest import judge_of

CONCEPTS, STYLES, COLOURS = ("dog face", "fox", "red apple"), ("fluent 3d", "noto"), ("red", "blue", "grey")
JUDGE = judge_of(CONCEPTS, STYLES)
GOOD = '{"prompt": "a fox"}'


def read(*texts: str, json_lines: bool = True) -> tuple[list[Asking], dict[int, str]]:
    good, bad = read_lines(list(enumerate(texts, 1)), json_lines, JUDGE)
    return good, {line.number: line.reason for line in bad}


def test_words_alone_are_prompts() -> None:
    good, bad = read("a red fox", "{not JSON}", json_lines=False)
    assert [line.prompt for line in good] == ["a red fox", "{not JSON}"] and not bad and all(line.facts is None for line in good)


def test_everything_a_line_can_say() -> None:
    full = {
        "prompt": "two red foxes to the left of a dog, GO", "seed": 7, "relation": "left of", "words": "GO",
        "objects": [{"concept": "dog face"}, {"concept": "fox", "count": 2, "colour": "red", "style": "noto"}],
    }  # fmt: skip
    facts = Facts((Asked("dog face"), Asked("fox", 2, "red", "noto")), "left of", "GO")
    assert read(json.dumps(full))[0] == [Asking(1, full["prompt"], 7, facts)]
    assert read(GOOD)[0] == [Asking(1, "a fox")]
    assert read('{"prompt": "GO", "words": "GO"}')[0][0].facts == Facts(words="GO")


BAD: list[tuple[str, str]] = [
    ("{", "not JSON"),
    ("[" * 100_000, "not JSON"),
    ('"a fox"', "no JSON object"),
    ("[1]", "no JSON object"),
    ("{}", "lacks prompt"),
    ('{"prompt": 3}', "prompt is 3"),
    ('{"prompt": " "}', "the prompt is empty"),
    ('{"prompt": "a \\ud800 fox"}', "half a character"),
    ('{"prompt": "a fox", "promt": "a"}', "unknown field of Line 'promt'"),
    ('{"prompt": "a fox", "prompt": "a dog"}', "'prompt' is given twice"),
    ('{"prompt": "a fox", "seed": -1}', "seed is -1"),
    ('{"prompt": "a fox", "seed": 1.5}', "seed is 1.5"),
    ('{"prompt": "a fox", "seed": true}', "seed is True"),
    ('{"prompt": "a fox", "seed": 9223372036854775808}', "seed is 9223372036854775808"),
    ('{"prompt": "a fox", "objects": "fox"}', "objects is 'fox'"),
    ('{"prompt": "a fox", "objects": ["fox"]}', "Thing is 'fox'"),
    ('{"prompt": "a fox", "objects": [{}]}', "Thing lacks concept"),
    ('{"prompt": "a fox", "objects": [{"concept": "fo"}]}', "no concept 'fo'; did you mean 'fox'"),
    ('{"prompt": "a fox", "objects": [{"concept": ""}]}', "no concept ''"),
    ('{"prompt": "a fox", "objects": [{"concept": "fox", "colour": "rde"}]}', "did you mean 'red'"),
    ('{"prompt": "a fox", "objects": [{"concept": "fox", "color": "red"}]}', "unknown field of Thing 'color'"),
    ('{"prompt": "a fox", "objects": [{"concept": "fox", "style": "xyz"}]}', "no style 'xyz'; known: fluent 3d, noto"),
    ('{"prompt": "a fox", "objects": [{"concept": "fox", "count": 0}]}', "count is 0"),
    ('{"prompt": "a fox", "relation": "left of"}', "of 0 objects"),
    ('{"prompt": "a fox", "relation": "beside", "objects": []}', "relation is 'beside'"),
    ('{"prompt": "a fox", "words": ""}', "the words are empty"),
    (json.dumps({"prompt": "a fox", "seed": "x " * 5000}), "..."),
]


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_a_bad_line_says_what_is_wrong_and_loses_no_other(text: str, reason: str) -> None:
    good, bad = read(GOOD, text, GOOD)
    assert [line.number for line in good] == [1, 3] and list(bad) == [2] and reason in bad[2], bad


def test_no_good_line_is_an_error_that_names_them() -> None:
    with pytest.raises(UsageError, match="the one line is no prompt: line 1: not JSON"):
        read("{")
    with pytest.raises(UsageError, match=r"none of 2 lines is a prompt: line 1: not JSON.*; line 2: .*\n.*a line looks like"):
        read("{", "[]")
    with pytest.raises(UsageError, match="there is no prompt"):
        read_lines([], True, JUDGE)


THINGS = st.fixed_dictionaries(
    {"concept": st.sampled_from(CONCEPTS)},
    optional={
        "count": st.integers(1, MOST_COUNTED),
        "colour": st.sampled_from(COLOURS),
        "style": st.sampled_from(STYLES),
    },
)
PLAIN = st.text(min_size=1).filter(lambda text: text.strip() and text.encode("utf-8", "ignore").decode() == text)
LINES = st.fixed_dictionaries(
    {"prompt": PLAIN},
    optional={"seed": st.integers(0, 2**63 - 1), "objects": st.lists(THINGS, max_size=3), "words": PLAIN},
)


@given(st.lists(LINES, min_size=1, max_size=4))
def test_a_good_line_is_read_as_it_was_written(lines: list[dict[str, Any]]) -> None:
    good, bad = read(*(json.dumps(line) for line in lines))
    assert not bad
    for line, asking in zip(lines, good, strict=True):
        assert (asking.prompt, asking.seed) == (line["prompt"], line.get("seed"))
        stated = tuple(Asked(t["concept"], t.get("count"), t.get("colour", ""), t.get("style", "")) for t in line.get("objects", []))
        assert asking.facts == (Facts(stated, None, line.get("words")) if stated or "words" in line else None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
NAMES = st.sampled_from(["prompt", "seed", "objects", "relation", "words", "concept", "count", "x"])
LOOSE = st.one_of(st.text(), VALUES.map(json.dumps), st.dictionaries(NAMES, VALUES).map(json.dumps), LINES.map(json.dumps))


@given(st.lists(LOOSE, max_size=6), st.booleans())
def test_every_line_is_a_prompt_or_named(texts: list[str], json_lines: bool) -> None:
    numbered = [(number, text) for number, text in enumerate(texts, 5) if text.strip()]
    try:
        good, bad = read_lines(numbered, json_lines, JUDGE)
    except UsageError:
        good, bad = [], []
        numbered = []
    assert sorted([line.number for line in good] + [line.number for line in bad]) == [number for number, _ in numbered]
    assert all(0 < len(line.reason.encode("ascii", "replace")) <= LONGEST_REASON and "\n" not in line.reason for line in bad)
    for line in good:
        assert line.prompt.strip() and line.prompt.encode()
        assert line.facts is None or all(asked.concept in CONCEPTS for asked in line.facts.objects)
