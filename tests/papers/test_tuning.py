"""A model taught on: the network that was shipped stays as it was, and a run that was stopped ends where it would have ended."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.core.errors import CancelledError
from sfumato.papers.tuning import AsTrained, Lessons, Tuning, lessons, tune
from sfumato.pipelines import TextToImage, load

PLAN = Tuning(24, marks=(8,), batch=4)


@pytest.fixture(scope="module")
def pipe(model: Path) -> TextToImage:
    return load(model, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def taught(pipe: TextToImage) -> Lessons:
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return lessons(images, ["a dog", "a cat", "a dog", "two cats", "a dog", "a cat"], pipe)


def weight(images: int, pipe: AsTrained, where: Path) -> Mapping[str, float | None]:
    return {f"weight@{images}": float(sum(p.double().sum() for p in pipe.pipe.denoiser.net.parameters())), "none": None}


def test_captions_share_their_states(taught: Lessons) -> None:
    assert taught.captions.flatten().tolist() == [1, 0, 1, 2, 1, 0] and len(taught.table.pooled) == 3
    picked = taught.rows(torch.tensor([3, 3, 0]))
    assert picked.captions.flatten().tolist() == [2, 2, 1] and torch.equal(picked.latents[0], taught.latents[3])


def test_the_shipped_network_stays_as_it_was(pipe: TextToImage, taught: Lessons, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in pipe.denoiser.net.state_dict().items()}
    found = tune(pipe, taught, PLAN, 0, tmp_path, weight)
    assert set(found) == {"weight@8", "weight@24", "none"} and found["weight@8"] != found["weight@24"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipe.denoiser.net.state_dict().items())
    assert not (tmp_path / "train").exists() and tune(pipe, taught, PLAN, 1, tmp_path / "other", weight) != found


def test_a_stopped_run_goes_on_and_does_not_look_twice(pipe: TextToImage, taught: Lessons, tmp_path: Path) -> None:
    whole = tune(pipe, taught, PLAN, 0, tmp_path / "whole", weight)
    looked: list[int] = []

    def stopping(images: int, pipe: AsTrained, where: Path) -> Mapping[str, float | None]:
        looked.append(images)
        if len(looked) == 1:
            signal.raise_signal(signal.SIGINT)
        return weight(images, pipe, where)

    with pytest.raises(CancelledError):
        tune(pipe, taught, PLAN, 0, tmp_path / "stopped", stopping)
    assert tune(pipe, taught, PLAN, 0, tmp_path / "stopped", stopping) == whole and looked == [8, 24]


def test_a_plan_shrinks_to_whole_batches() -> None:
    assert PLAN.scaled(1.0) is PLAN
    assert PLAN.scaled(0.5) == replace(PLAN, images=12, marks=(4,)) and PLAN.scaled(0.01) == replace(PLAN, images=8, marks=(4,))
