"""DALL-Eval's bias and skills and GenEval's tasks on hand-made counts and boxes: the exact checks of the publications."""

from __future__ import annotations

import pytest
import torch

from sfumato.core.errors import UsageError
from sfumato.evaluate.metrics import Asked, Detection, Facts, bias, fair_range, judge_facts, paint_count, paint_object, paint_spatial
from sfumato.evaluate.metrics.bias import fair_mad, mad
from sfumato.evaluate.metrics.tasks import relations


def test_mad_of_known_distributions() -> None:
    for counts, expected in {(7, 3): 0.2, (1, 0): 0.5, (1, *[0] * 9): 0.18, (1, 1, *[0] * 8): 0.16, (5, 5): 0.0}.items():
        assert mad(torch.tensor(counts)) == pytest.approx(expected)
    assert mad(torch.tensor([1, 4, 2])) == pytest.approx(mad(torch.tensor([4, 2, 1])))


def test_the_floor_is_what_a_fair_model_scores() -> None:
    for (categories, count), expected in {(2, 9): 0.1367, (2, 36): 0.0660, (10, 9): 0.0775, (10, 1000): 0.0076}.items():
        assert fair_mad(categories, count) == pytest.approx(expected, abs=5e-5)
    drawn = torch.randint(5, (4000, 12), generator=torch.Generator().manual_seed(0))
    simulated = torch.tensor([mad(torch.bincount(row, minlength=5)) for row in drawn]).mean()
    assert float(simulated) == pytest.approx(fair_mad(5, 12), rel=0.02)


def test_the_range_of_fair_models() -> None:
    """Exact where it can be enumerated; around the floor, narrower with more prompts; the same each time."""
    assert fair_range(2, [1, 1]) == (0.5, 0.5)
    # Nine pictures: |k/9 - 1/2| is at least 1/18; seven or more of one kind are 18% of fair models, eight or more 4%.
    assert fair_range(2, [9]) == pytest.approx((1 / 18, 7 / 18))
    for categories, counts in ((2, [9] * 10), (5, [12, 3, 7])):
        low, high = fair_range(categories, counts)
        assert low < sum(fair_mad(categories, count) for count in counts) / len(counts) < high
        assert fair_range(categories, counts) == (low, high)
        wider = fair_range(categories, counts[:1])
        assert wider[1] - wider[0] > high - low


def test_bias_over_prompts() -> None:
    seen = {"a cook": ["he"] * 7 + ["she"] * 3, "a pilot": ["he"] * 9 + [None], "a judge": [None, None]}
    found = bias(seen, ("he", "she"))
    assert found.mad.value == pytest.approx(0.35) and found.mad.low <= 0.35 <= found.mad.high and found.mad.count == 2
    assert found.maximum == 0.5 and found.dropped == pytest.approx(3 / 22) and found.shares == pytest.approx((0.85, 0.15))
    assert found.floor == pytest.approx((fair_mad(2, 10) + fair_mad(2, 9)) / 2) and found.excess == pytest.approx(0.35 - found.floor)
    assert found.prompts["a cook"].count == 10 and "a judge" not in found.prompts
    with pytest.raises(UsageError, match="unknown category 'they'"):
        bias({"a cook": ["they"]}, ("he", "she"))
    with pytest.raises(UsageError, match="no picture shows"):
        bias({"a cook": [None]}, ("he", "she"))
    with pytest.raises(UsageError, match="two or more"):
        bias(seen, ("he",))


def at(concept: str, x: float, y: float, score: float = 0.95, side: float = 0.1, **looks: str) -> Detection:
    half = side / 2
    return Detection(concept, (x - half, y - half, x + half, y + half), score, **looks)


CASES = [
    ([at("dog", 0.5, 0.5)], Facts((Asked("dog"),)), True, "all asked for"),
    ([at("dog", 0.5, 0.5, 0.2)], Facts((Asked("dog"),)), False, "no dog"),
    ([at("dog", 0.2, 0.5), at("cat", 0.8, 0.5)], Facts((Asked("dog"), Asked("cat"))), True, ""),
    ([at("dog", 0.2, 0.5)], Facts((Asked("dog"), Asked("cat"))), False, "no cat"),
    ([at("dog", 0.2, 0.5), at("dog", 0.8, 0.5)], Facts((Asked("dog", 2),)), True, ""),
    ([at("dog", 0.2, 0.5), at("dog", 0.8, 0.5), at("dog", 0.5, 0.5)], Facts((Asked("dog", 2),)), False, "3 dog, asked 2"),
    ([at("dog", 0.2, 0.5), at("dog", 0.8, 0.5, 0.5)], Facts((Asked("dog", 1),)), True, ""),
    ([at("dog", 0.5, 0.5, colour="red")], Facts((Asked("dog", colour="red"),)), True, ""),
    ([at("dog", 0.5, 0.5, colour="blue")], Facts((Asked("dog", colour="red"),)), False, "dog is blue, asked a red dog"),
    ([at("dog", 0.5, 0.5, style="noto")], Facts((Asked("dog", style="fxemoji"),)), False, "asked a dog in fxemoji style"),
    (
        [at("dog", 0.2, 0.5, colour="red"), at("cat", 0.8, 0.5, colour="blue")],
        Facts((Asked("dog", colour="blue"), Asked("cat", colour="red"))), False, "dog is red",
    ),
    ([at("dog", 0.2, 0.5), at("cat", 0.8, 0.5)], Facts((Asked("dog"), Asked("cat")), "right of"), True, ""),
    ([at("dog", 0.2, 0.5), at("cat", 0.8, 0.5)], Facts((Asked("dog"), Asked("cat")), "above"), False, "cat is right of dog, asked above"),
    ([at("dog", 0.5, 0.5), at("cat", 0.51, 0.5)], Facts((Asked("dog"), Asked("cat")), "right of"), False, "cat is at dog"),
    ([at("dog", 0.2, 0.5), at("dog", 0.8, 0.5)], Facts((Asked("dog"), Asked("dog")), "left of"), True, ""),
    ([at("dog", 0.2, 0.5)], Facts((Asked("dog"), Asked("dog")), "left of"), False, "one dog"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "facts", "right", "reason"), CASES)
def test_geneval(found: list[Detection], facts: Facts, right: bool, reason: str) -> None:
    answer = judge_facts(found, facts)
    assert answer.right is right and reason in answer.reason, answer


def test_words_and_impossible_facts() -> None:
    assert judge_facts([], Facts(words="Open  late"), read="open late").right
    assert judge_facts([], Facts(words="open"), read="0pen").reason == "reads '0pen', asked 'open'"
    with pytest.raises(UsageError, match="read="):
        judge_facts([], Facts(words="open"))
    with pytest.raises(UsageError, match="two objects"):
        Facts((Asked("dog"),), "above")


def test_a_diagonal_is_both_relations_as_published() -> None:
    assert relations(at("a", 0.2, 0.2, side=0.02), at("b", 0.8, 0.8, side=0.02)) == {"right of", "below"}
    # Large boxes shorten the offset: what is left must be half of the distance.
    assert relations(at("a", 0.3, 0.5, side=0.6), at("b", 0.5, 0.5, side=0.6)) == set()


def test_paintskills_objects_and_counts() -> None:
    dogs = [at("dog", 0.2, 0.2, 0.9), at("dog", 0.5, 0.5, 0.8), at("cat", 0.8, 0.8, 0.75)]
    assert paint_object(dogs, "dog").right and not paint_object(dogs, "cat").right
    assert not paint_object([], "dog").right and not paint_object(dogs, "dog", least=0.95).right
    assert paint_count(dogs, "dog", 2).right and not paint_count(dogs, "dog", 3).right
    # The third sure detection lets an unsure dog in, as the rule has it.
    assert paint_count([*dogs, at("dog", 0.1, 0.9, 0.3)], "dog", 3).right
    assert paint_count([], "dog", 1).reason == "0 dog among 0 sure detections, asked 1"


def test_paintskills_directions() -> None:
    a = Detection("a", (0.05, 0.05, 0.15, 0.15), 0.9)
    for x, y, there, back in ((0.30, 0.15, "right of", "left of"), (0.12, 0.40, "below", "above"), (0.2, 0.2, "below", "above")):
        b = at("b", x, y, 0.8)
        assert paint_spatial([a, b], "a", "b", there).right and paint_spatial([b, a], "b", "a", back).right  # type: ignore[arg-type]
    assert "asked a and c" in paint_spatial([a, b], "a", "c", "below").reason
    assert not paint_spatial([a], "a", "b", "below").right
    twins = [at("a", 0.2, 0.5), at("a", 0.8, 0.5, 0.9)]
    assert paint_spatial(twins, "a", "a", "left of").right and paint_spatial(twins, "a", "a", "right of").right
    assert not paint_spatial(twins, "a", "a", "above").right
