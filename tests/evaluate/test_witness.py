"""Who may be a witness, and what is made of what one tells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato.core.errors import WeightsError
from sfumato.evaluate.metrics import Asked, Detection, Facts
from sfumato.evaluate.witness import hear, witness_of

from .conftest import tiny_judge


def test_a_judge_without_scenes_is_no_witness() -> None:
    with pytest.raises(WeightsError, match=r"trained without scenes\n.*--judge FOLDER.*sfumato train judge"):
        witness_of(tiny_judge())
    assert witness_of(tiny_judge({"scenes": {"map50": {"value": 0.7}}})) is not None


class Shades:
    """Names a picture by its grey level, in order, and counts what it was asked to read."""

    def __init__(self) -> None:
        self.reads = 0

    def detect(self, images: Tensor) -> list[list[Detection]]:
        assert images.min() >= -1 and images.max() <= 1
        return [[Detection(str(round(float((image.mean() + 1) * 127.5))), (0, 0, 1, 1), 1.0)] for image in images]

    def read(self, images: Tensor) -> list[str]:
        self.reads += len(images)
        return [f"W{found[0].concept}" for found in self.detect(images)]


def test_a_witness_looks_in_order_and_reads_only_what_is_asked() -> None:
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 4, 4)
    witness = Shades()
    seen = hear(witness, images, [False, True, False, True, False], batch=2)
    assert [found[0].concept for found in seen.found] == list("01234") and witness.reads == 2
    assert list(seen.read) == [None, "W1", None, "W3", None]
    facts = [Facts((Asked(name),)) for name in "0"] + [Facts((Asked("1"),), words="w1"), Facts((Asked("9"),)), *[Facts((Asked("4"),))] * 2]
    assert [answer.right for answer in seen.answers(facts)] == [True, True, False, False, True]
    assert hear(witness, images[:0], []).found == []
