"""`TextStates` as a container, and the memo of them."""

from dataclasses import replace

import pytest
import torch

from sfumato.core.errors import ConfigError, UsageError
from sfumato.text import Cached, MiniLM, TextEncoder, TextStates

PROMPTS = ["a red fox", "cat", "a red fox", "", "a cat under a yellow house"]


class Counting:
    """An encoder that counts the prompts it was asked for."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.name, self.width, self.pooled_width, self.max_tokens = encoder.name, encoder.width, encoder.pooled_width, encoder.max_tokens
        self.encoder, self.asked = encoder, []

    def to(self, *where: object) -> None:
        self.asked.append(list(where))

    def encode(self, prompts: list[str]) -> TextStates:
        self.asked.append(list(prompts))
        return self.encoder.encode(prompts)


def made(lengths: list[int], pooled: bool = True) -> TextStates:
    n = max(lengths)
    mask = torch.arange(n) < torch.tensor(lengths)[:, None]
    empty = ((),) * len(lengths)
    vectors = torch.randn(len(lengths), 2) if pooled else None
    return TextStates(torch.randn(len(lengths), n, 3) * mask[..., None], mask, vectors, empty, empty)


def test_rows_and_concat_are_inverse() -> None:
    a, b = made([3, 1]), made([5])
    joined = TextStates.concat([a, b])
    assert joined.tokens.shape == (3, 5, 3) and len(joined) == 3
    again = TextStates.concat([joined.row(i) for i in range(3)])
    assert torch.equal(again.tokens, joined.tokens) and torch.equal(again.mask, joined.mask) and torch.equal(again.pooled, joined.pooled)
    assert joined.row(1).tokens.shape == (1, 1, 3) and torch.equal(joined.row(-1).tokens, b.tokens)
    with pytest.raises(IndexError):
        joined.row(3)


def test_further_states_go_where_their_prompts_go() -> None:
    a, b = (replace(made(lengths), more={"taps": made(taps)}) for lengths, taps in (([3, 1], [2, 6]), ([5], [4])))
    joined = TextStates.concat([a, b]).to(dtype=torch.bfloat16)
    assert joined.more["taps"].tokens.shape == (3, 6, 3) and joined.more["taps"].tokens.dtype == torch.bfloat16
    assert torch.equal(joined.row(2).more["taps"].tokens, b.more["taps"].tokens.bfloat16())
    with pytest.raises(ValueError, match="do not belong together"):
        replace(made([3, 1]), more={"taps": made([2])})


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="3 token states do not fit in 2"):
        made([3]).pad_to(2)
    with pytest.raises(ValueError, match="pooled"):
        TextStates.concat([made([1]), made([1], pooled=False)])
    with pytest.raises(ValueError, match="nothing"):
        TextStates.concat([])
    good = made([2])
    with pytest.raises(ValueError, match="do not belong together"):
        TextStates(good.tokens, good.mask, None, (), ())
    with pytest.raises(ValueError, match="do not belong together"):
        TextStates(good.tokens, good.mask.float(), None, good.words, good.dropped)


def test_to_changes_states_not_the_mask() -> None:
    low = made([2, 1]).to(dtype=torch.bfloat16)
    assert low.tokens.dtype == low.pooled.dtype == torch.bfloat16 and low.mask.dtype == torch.bool
    assert made([1]).to("meta").tokens.device.type == "meta"


def test_the_memo_returns_what_the_encoder_would(minilm: MiniLM) -> None:
    counting = Counting(minilm)
    cached = Cached(counting)
    plain = minilm.encode(PROMPTS)
    for _ in range(2):
        states = cached.encode(PROMPTS)
        torch.testing.assert_close(states.tokens, plain.tokens, rtol=0, atol=1e-5)
        torch.testing.assert_close(states.pooled, plain.pooled, rtol=0, atol=1e-5)
        assert torch.equal(states.mask, plain.mask) and (states.words, states.dropped) == (plain.words, plain.dropped)
    assert counting.asked == [["a red fox", "cat", "", "a cat under a yellow house"]]
    assert (cached.hits, cached.misses) == (6, 4)
    assert (cached.name, cached.width, cached.pooled_width, cached.max_tokens) == ("minilm", 384, 384, 256)


def test_writing_to_a_result_does_not_reach_the_memo(minilm: MiniLM) -> None:
    cached = Cached(minilm)
    first = cached.encode(["cat"])
    kept = first.tokens.clone()
    first.tokens.zero_()
    first.pooled.zero_()
    again = cached.encode(["cat"])
    assert torch.equal(again.tokens, kept) and again.pooled.any()


def test_the_least_recent_prompt_is_forgotten(minilm: MiniLM) -> None:
    counting = Counting(minilm)
    cached = Cached(counting, size=2)
    for prompt in ["a", "b", "a", "c", "a", "b"]:
        cached.encode([prompt])
    assert counting.asked == [["a"], ["b"], ["c"], ["b"]]
    assert len(cached.encode(["p", "q", "r"])) == 3, "a batch larger than the memo"


def test_the_memo_refuses_nonsense(minilm: MiniLM) -> None:
    with pytest.raises(ConfigError, match="size 0"):
        Cached(minilm, size=0)
    with pytest.raises(UsageError):
        Cached(minilm).encode("cat")


def test_moving_the_encoder_clears_its_memo_and_minilm_stays(minilm: MiniLM) -> None:
    counting = Counting(minilm)
    cached = Cached(counting)
    cached.encode(["a"])
    assert cached.to("cpu", torch.bfloat16) is cached
    cached.encode(["a"])
    assert counting.asked == [["a"], ["cpu", torch.bfloat16], ["a"]]
    assert minilm.to("meta", torch.bfloat16).encode(["a"]).tokens.dtype == torch.float32 and minilm.bert.token.weight.device.type == "cpu"
