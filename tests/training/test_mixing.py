"""Drawings and scenes in one batch: the share that was asked for, each row as its stream gives it, all a function of the index."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.tasks import config, table, together

from sfumato.core.errors import ConfigError
from sfumato.training.precompute import Precomputed
from sfumato.training.recipes import Languages, ModelRecipe, Scenes, Small, mixed

SCENES = Scenes(("somewhere",))


def ready(rows: int, forms: int, value: float) -> Precomputed:
    """Latents that are all `value` but for their first number, which is the row's."""
    latents = torch.full((rows, 4, 2, 2), value)
    latents[:, 0, 0, 0] = torch.arange(rows)
    return Precomputed(latents, torch.arange(rows * forms).view(rows, forms), table([1 + i % 3 for i in range(rows * forms)]))


DRAWINGS, COMPOSED = ready(7, 5, 0.0), ready(9, 4, 1.0)


@given(st.floats(0.01, 0.99), st.integers(2, 40), st.integers(0, 9))
def test_a_batch_has_the_share_that_was_asked_for(share: float, batch: int, index: int):
    scenes = round(share * batch)
    if not 0 < scenes < batch:
        with pytest.raises(ConfigError, match="a larger batch, or another share"):
            ModelRecipe(scenes=replace(SCENES, share=share), batch=batch, small=Small(steps=0))
        return
    recipe = ModelRecipe(scenes=replace(SCENES, share=share), batch=batch, small=Small(steps=0))
    latents = mixed([DRAWINGS, COMPOSED], recipe, batch).batch(index)["latents"]
    assert len(latents) == batch and int(latents[:, 1, 0, 0].sum()) == scenes


def test_without_scenes_all_are_drawings():
    latents = mixed([DRAWINGS], ModelRecipe(batch=6), 6).batch(0)["latents"]
    assert len(latents) == 6 and not latents[:, 1].any()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 3))
def test_a_mixed_batch_depends_on_seed_and_number_alone(visits: list[int], seed: int):
    recipe = ModelRecipe(scenes=SCENES, batch=6, train=config(seed=seed))
    used = mixed([DRAWINGS, COMPOSED], recipe, 6)
    other = mixed([DRAWINGS, COMPOSED], replace(recipe, train=config(seed=seed + 10)), 6)
    for index in visits:
        one, two = used.batch(index), mixed([DRAWINGS, COMPOSED], recipe, 6).batch(index)
        assert torch.equal(one["latents"], two["latents"])
        assert torch.equal(one["cond"].tokens["text"].states, two["cond"].tokens["text"].states)
    assert any(not torch.equal(used.batch(i)["latents"], other.batch(i)["latents"]) for i in range(6))


def test_each_row_is_as_its_own_stream_gives_it():
    stream = together()
    for index in range(8):
        whole, parts, start = stream.batch(index), [one.batch(index) for one in stream.streams], 0
        for part in parts:
            count = len(part["latents"])
            rows, own = whole["cond"].rows(slice(start, start + count)), part["cond"]
            length = own.tokens["text"].states.shape[1]
            assert torch.equal(whole["latents"][start : start + count], part["latents"])
            assert torch.equal(rows.vectors["pooled"], own.vectors["pooled"])
            assert torch.equal(rows.tokens["text"].states[:, :length], own.tokens["text"].states)
            assert torch.equal(rows.tokens["text"].keep[:, :length], own.tokens["text"].keep)
            assert not rows.tokens["text"].keep[:, length:].any() and not rows.tokens["text"].states[:, length:].any()
            start += count
        assert start == len(whole["latents"])


def test_scenes_leave_the_drawings_order_as_it_was():
    beside = mixed([DRAWINGS, COMPOSED], ModelRecipe(scenes=SCENES, batch=12), 12)
    alone = mixed([DRAWINGS], ModelRecipe(batch=6), 6)
    assert all(torch.equal(beside.batch(i)["latents"][:6], alone.batch(i)["latents"]) for i in range(4))


@pytest.mark.parametrize("fields", [{"share": 0.0}, {"share": 1.0}, {"share": -1.0}, {"most": 0}, {"forms": (1.0,)}, {"forms": (0.0,) * 4}])
def test_impossible_mixtures_are_refused(fields: dict[str, object]):
    with pytest.raises(ConfigError):
        replace(SCENES, **fields)  # type: ignore[arg-type]


@given(st.floats(0.01, 0.99), st.integers(1, 4), st.lists(st.floats(0.1, 3.0), min_size=1, max_size=5))
def test_other_languages_have_their_share_of_the_captions(share: float, count: int, forms: list[float]):
    weights = Languages(("de", "fr", "es", "ja")[:count], share).weighed(forms)
    own, more = weights[: len(forms)], weights[len(forms) :]
    assert len(more) == 2 * count and sum(more) == pytest.approx(share) and sum(weights) == pytest.approx(1.0)
    assert [w / own[0] for w in own] == pytest.approx([f / forms[0] for f in forms]) and len(set(more)) == 1
    assert Languages().weighed(forms) == tuple(forms)


def test_captions_in_other_languages_are_drawn():
    recipe = ModelRecipe(forms=(1.0,), languages=Languages(("de",), 0.9), batch=2, small=Small(steps=0))
    drawings = ready(7, 3, 0.0)
    stream, found = mixed([drawings], recipe, 2), set[int]()
    for index in range(40):
        lengths = stream.batch(index)["cond"].tokens["text"].keep.sum(1)
        rows = stream.batch(index)["latents"][:, 0, 0, 0].long()
        found |= {form for form in range(3) if lengths.tolist() == [1 + (3 * int(r) + form) % 3 for r in rows]}
    assert found == {0, 1, 2}
