"""State is a pytree (FSDP2 finds tensors by it), immutable, and finite or refused."""

import pytest
import torch
from torch.utils import _pytree

from sfumato.core.errors import NonFiniteError
from sfumato.core.state import Out, State, Stream, require_finite


def made() -> State:
    picture = Stream(torch.randn(1, 4, 2), role="image", grid=(2, 2), t=torch.rand(1), update=False)
    text = Stream(torch.randn(1, 3, 2), keep=torch.ones(1, 3, dtype=torch.bool))
    return State({"image": picture, "text": text}, {"c": torch.randn(1, 2)}).push("image").note(aux={"balance": torch.ones(())})


def test_round_trip_through_a_pytree_keeps_tensors_and_constants():
    state = made()
    leaves, tree = _pytree.tree_flatten(state)
    assert sum(isinstance(leaf, torch.Tensor) for leaf in leaves) == 8
    again = _pytree.tree_unflatten(leaves, tree)
    assert again.streams["image"].grid == (2, 2) and again.streams["image"].role == "image" and not again.streams["image"].update
    assert again["image"] is state["image"] and again.skips[0]["image"].x is state["image"] and again.streams["text"].t is None
    doubled = _pytree.tree_map(lambda x: x * 2 if isinstance(x, torch.Tensor) else x, state)
    assert torch.equal(doubled.cond["c"], 2 * state.cond["c"])


def test_an_out_is_a_pytree_too():
    out = Out({"image": torch.ones(1)}, {"a": torch.ones(2)}, {"b": torch.ones(())})
    assert len(_pytree.tree_leaves(out)) == 3


def test_nothing_is_changed_in_place():
    state = made()
    before = state["image"].clone()
    state.with_x({"image": torch.zeros(1, 4, 2)})
    state.attach("layout", Stream(torch.zeros(1, 1, 2)))
    popped, skip = state.pop()
    assert torch.equal(state["image"], before) and set(state.streams) == {"image", "text"}
    assert len(state.skips) == 1 and popped.skips == () and torch.equal(skip["image"].x, before)
    assert set(state.detach("text").streams) == {"image"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_values_are_refused_with_place_type_and_share(bad: float):
    value = torch.zeros(4, dtype=torch.bfloat16)
    require_finite(value, "here")
    value[1] = bad
    with pytest.raises(NonFiniteError, match=r"the picture: 25\.0% .*bfloat16 on cpu"):
        require_finite(value, "the picture")
