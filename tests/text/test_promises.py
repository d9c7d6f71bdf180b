"""What every text encoder promises: a row is itself, padding is nothing, words are where they are said to be, what is cut is named."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import ConfigError, UsageError
from sfumato.text import TextEncoder, TextStates, load_minilm, truncation_report
from sfumato.text.tokens import TokenRow

PROMPTS = ["a red fox in the snow", "", "cat", "a cat under a yellow house, don't draw", "猫 🎉 été \u200d"]


def same(a: TextStates, b: TextStates, tolerance: float = 1e-5) -> None:
    assert (a.words, a.dropped) == (b.words, b.dropped)
    assert torch.equal(a.mask, b.mask)
    torch.testing.assert_close(a.tokens, b.tokens, rtol=0, atol=tolerance)
    torch.testing.assert_close(a.pooled, b.pooled, rtol=0, atol=tolerance) if b.pooled is not None else None


def test_shapes_and_padding(encoder: TextEncoder) -> None:
    states = encoder.encode(PROMPTS)
    longest = max(encoder.encode([p]).tokens.shape[1] for p in PROMPTS)
    assert states.tokens.shape == (len(PROMPTS), longest, encoder.width)
    assert states.tokens.dtype == torch.float32 and states.mask.dtype == torch.bool
    assert not states.tokens.requires_grad and torch.isfinite(states.tokens).all()
    assert not states.mask.all() and not states.tokens[~states.mask].any()
    assert states.mask.any(1).all(), "a row without a single token cannot be attended to"
    assert (states.pooled is None) == (encoder.pooled_width is None)
    if states.pooled is not None:
        assert states.pooled.shape == (len(PROMPTS), encoder.pooled_width)


def test_a_row_is_itself(encoder: TextEncoder) -> None:
    batch = encoder.encode(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        same(batch.row(i), encoder.encode([prompt]))
    # The comparison would notice a swap: different prompts lie far apart.
    assert (batch.tokens[0, :4] - batch.tokens[3, :4]).abs().max() > 1e-2


def test_garbage_in_the_padding_changes_no_bit(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    import sfumato.text.minilm
    import sfumato.text.transformers_encoder
    from sfumato.text.tokens import padded

    clean = encoder.encode(PROMPTS)

    def garbage(rows: list[TokenRow], padding: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = padded(rows, padding, device)
        return torch.where(mask, ids, torch.randint(0, 36, ids.shape)), mask

    for module in (sfumato.text.minilm, sfumato.text.transformers_encoder):
        monkeypatch.setattr(module, "padded", garbage)
    soiled = encoder.encode(PROMPTS)
    assert torch.equal(clean.tokens, soiled.tokens)
    assert clean.pooled is None or torch.equal(clean.pooled, soiled.pooled)


def test_more_padding_changes_nothing_kept(encoder: TextEncoder) -> None:
    """A longer neighbour lengthens the padding inside the network; `pad_to` lengthens it outside."""
    alone = encoder.encode(["cat"])
    beside = encoder.encode(["cat", "a red fox in the snow under a yellow house"])
    same(beside.row(0), alone)
    wide = alone.pad_to(alone.tokens.shape[1] + 3)
    same(wide.row(0), alone, 0)
    assert wide.mask.sum() == alone.mask.sum() and not wide.tokens[:, -3:].any()


def test_spans_cover_the_words(encoder: TextEncoder) -> None:
    (words,) = encoder.encode(["a red fox, don't draw (snow)"]).words
    assert [word.text for word in words] == ["a", "red", "fox", "don't", "draw", "snow"]
    for left, right in pairwise(words):
        assert left.start < left.end <= right.start
    # Read back from the ids at its span, a word is itself, whole and alone.
    ids = encoder.tokenizer(["a red fox, don't draw (snow)"])[0].ids  # type: ignore[attr-defined]
    read = [encoder.tokenizer.tokenizer.decode(ids[word.start : word.end]) for word in words]  # type: ignore[attr-defined]
    assert [text.replace(" ", "") for text in read] == [word.text for word in words]


@pytest.mark.parametrize(
    ("prompts", "said"),
    [("a fox", r"\['a fox'\]"), ([], "no prompts"), (["a", 3], "prompt 1 is 3, a int"), ([None], "NoneType"), (["\ud800"], "surrogate")],
)
def test_what_is_no_prompt_is_refused(encoder: TextEncoder, prompts: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        encoder.encode(prompts)  # type: ignore[arg-type]


def test_truncation_names_the_words() -> None:
    short = load_minilm(max_tokens=7)
    prompts = ["a red fox sits in the snow, calmly", "a red fox", "a red fox of unhappiness"]
    states = short.encode(prompts)
    assert states.mask.sum(1).tolist() == [7, 5, 7]
    assert states.dropped == (("the", "snow", "calmly"), (), ("unhappiness",))
    # Half of "unhappiness" was read: its span is what is left of it.
    assert [w.text for w in states.words[2]] == ["a", "red", "fox", "of", "unhappiness"]
    assert states.words[2][-1].end == 6
    first, second = truncation_report(states, prompts)
    assert "7 tokens" in first and "3 words were" in first and "'the', 'snow', 'calmly'" in first and prompts[0] in first
    assert "1 word was" in second and "shorten" in second
    assert truncation_report(load_minilm().encode(prompts), prompts) == []


def test_truncated_prompts_keep_their_end_token(encoder: TextEncoder) -> None:
    """A cut prompt is as long as the encoder reads, loses words, and what it lost has no say."""
    prompt = "fox " * 400
    a, b = encoder.encode([prompt]), encoder.encode([prompt + "cat"])
    assert a.tokens.shape[1] == encoder.max_tokens
    assert len(b.dropped[0]) == len(a.dropped[0]) + 1 and b.dropped[0][-1] == "cat"
    assert torch.equal(a.tokens, b.tokens)
    assert len(a.words[0]) + len(a.dropped[0]) == 400


def test_long_reports_stay_short() -> None:
    prompt = "fox " * 4000
    (message,) = truncation_report(load_minilm(max_tokens=4).encode([prompt]), [prompt])
    assert "3998 words" in message and "and 3990 more" in message and len(message) < 400


@pytest.mark.parametrize("tokens", [-1, 0, 2, 513])
def test_impossible_lengths_are_refused(tokens: int) -> None:
    with pytest.raises(ConfigError, match="from 3 to 512"):
        load_minilm(max_tokens=tokens)


@settings(max_examples=60)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
def test_any_text(prompts: list[str]) -> None:
    """Whatever is typed, for every tokenizer family: spans lie inside the row and in order, and a word is either read or reported."""
    encoder = _short()
    states = encoder.encode(prompts)
    for i, prompt in enumerate(prompts):
        length = int(states.mask[i].sum())
        texts = [w.text for w in states.words[i]]
        assert all(0 < w.start < w.end < length for w in states.words[i])
        assert all(text in prompt for text in [*texts, *states.dropped[i]])
        typed = len(prompt.split())
        # Only the word on the cut is in both; only characters that the tokenizer ignores are in neither.
        assert len(texts) + len(states.dropped[i]) <= typed + 1
        if prompt.isascii() and prompt.isprintable():
            assert len(texts) + len(states.dropped[i]) >= typed
        assert length == 12 or not states.dropped[i]
    same(states.row(-1), encoder.encode(prompts[-1:]))


_made: list[TextEncoder] = []


def _short() -> TextEncoder:
    if not _made:
        _made.append(load_minilm(max_tokens=12))
    return _made[0]
