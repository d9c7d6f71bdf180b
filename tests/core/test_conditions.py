"""Conditioning slots: joining, and null forms."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import conditions

from sfumato.core.conditions import Conditions, Slot, Tokens, concatenate, nulled
from sfumato.core.errors import ConfigError

SLOTS = (Slot("text"), Slot("pooled"))


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=3))
def test_concatenating_keeps_every_row_and_pads_with_nothing(parts: list[list[int]]):
    made = [conditions(lengths, seed=i) for i, lengths in enumerate(parts)]
    whole, row = concatenate(made), 0
    for part in made:
        for i in range(len(part.vectors["pooled"])):
            length = part.tokens["text"].states.shape[1]
            assert torch.equal(whole.tokens["text"].states[row, :length], part.tokens["text"].states[i])
            assert not whole.tokens["text"].states[row, length:].any() and not whole.tokens["text"].keep[row, length:].any()
            assert torch.equal(whole.tokens["text"].keep[row, :length], part.tokens["text"].keep[i])
            assert torch.equal(whole.vectors["pooled"][row], part.vectors["pooled"][i])
            row += 1
    assert row == len(whole.tokens["text"].states)


def test_parts_with_different_slots_are_refused():
    whole = conditions([2])
    with pytest.raises(ConfigError, match="vectors"):
        concatenate([whole, Conditions(whole.tokens)])
    with pytest.raises(ConfigError, match="tokens"):
        concatenate([whole, Conditions({}, whole.vectors)])


@given(st.lists(st.booleans(), min_size=3, max_size=3))
def test_dropped_rows_are_null_and_the_others_bit_equal(dropped: list[bool]):
    cond = conditions([3, 1, 4])
    out = nulled(cond, SLOTS, {"text": torch.tensor(dropped)})
    for i, gone in enumerate(dropped):
        if gone:
            assert not out.tokens["text"].states[i].any() and not out.tokens["text"].keep[i].any() and not out.vectors["pooled"][i].any()
        else:
            assert torch.equal(out.tokens["text"].states[i], cond.tokens["text"].states[i])
            assert torch.equal(out.tokens["text"].keep[i], cond.tokens["text"].keep[i])
            assert torch.equal(out.vectors["pooled"][i], cond.vectors["pooled"][i])


@pytest.mark.parametrize("length", [1, 3, 6])
def test_the_empty_prompt_as_null_form(length: int):
    """Also when the empty prompt has more tokens than any prompt of the batch."""
    cond, empty = conditions([2, 3]), conditions([length], seed=9)
    slots = (Slot("text", null="empty"), Slot("pooled", null="empty"))
    out = nulled(cond, slots, {"text": torch.tensor([True, False])}, empty)
    longest = max(3, length)
    assert torch.equal(out.tokens["text"].states[0], empty.tokens["text"].pad_to(longest).states[0])
    assert torch.equal(out.tokens["text"].keep[0], empty.tokens["text"].pad_to(longest).keep[0])
    assert torch.equal(out.vectors["pooled"][0], empty.vectors["pooled"][0])
    assert torch.equal(out.tokens["text"].states[1], cond.tokens["text"].pad_to(longest).states[1])
    with pytest.raises(ConfigError, match="empty"):
        nulled(cond, slots, {"text": torch.tensor([True, False])})


def test_groups_are_dropped_together_and_only_they():
    cond = conditions([2, 2])
    slots = (Slot("text", group="a"), Slot("pooled", group="b"))
    out = nulled(cond, slots, {"a": torch.tensor([True, True])})
    assert not out.tokens["text"].keep.any() and torch.equal(out.vectors["pooled"], cond.vectors["pooled"])


def test_rows_and_padding():
    cond = conditions([1, 4, 2])
    some = cond.rows(torch.tensor([2, 0]))
    assert torch.equal(some.vectors["pooled"], cond.vectors["pooled"][[2, 0]]) and torch.equal(
        some.tokens["text"].keep, cond.tokens["text"].keep[[2, 0]]
    )
    tokens = Tokens(torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
    assert tokens.pad_to(2) is tokens and tokens.pad_to(1) is tokens


@given(st.lists(st.booleans(), min_size=4, max_size=4))
def test_every_kind_of_slot_has_a_null_form(dropped: list[bool]):
    rows = torch.tensor(dropped)
    filled = Conditions(
        scalars={"class": torch.tensor([0, 1, 2, 4]), "size": torch.tensor([0.0, 0.5, 1.0, 2.0])},
        spatial={"depth": torch.ones(4, 1, 2, 3)},
        images={"face": torch.ones(4, 2, 3)},
    )
    slots = (
        *(Slot("class", null="value", group="all", value=5), Slot("size", null="value", group="all", value=-1.5)),
        *(Slot("depth", group="all"), Slot("face", group="all")),
    )
    out = nulled(filled, slots, {"all": rows})
    assert out.scalars["class"].dtype == torch.long and out.scalars["class"].tolist() == [
        5 if gone else label for gone, label in zip(dropped, (0, 1, 2, 4), strict=True)
    ]
    assert torch.equal(out.scalars["size"][rows], torch.full((sum(dropped),), -1.5))
    for new, old in ((out.spatial["depth"], filled.spatial["depth"]), (out.images["face"], filled.images["face"])):
        assert not new[rows].any() and torch.equal(new[~rows], old[~rows])


@pytest.mark.parametrize(
    ("slot", "told"),
    [
        (Slot("class"), "'value', the number that stands for none"),
        (Slot("class", null="empty"), "'value', the number that stands for none"),
        (Slot("class", null="value", value=0.5), "holds whole numbers and its null form is 0.5"),
        (Slot("pooled", null="value"), "'zeros' or 'empty'"),
        (Slot("boxes"), "slot 'boxes' is dropped, and nothing fills it"),
    ],
)
def test_a_null_form_that_a_slot_cannot_have(slot: Slot, told: str):
    cond = replace(conditions([2, 2]), scalars={"class": torch.tensor([0, 1])})
    with pytest.raises(ConfigError, match=told):
        nulled(cond, (slot,), {"text": torch.tensor([True, False])}, cond.rows(slice(0, 1)))
