"""Evaluation on pipes whose worth is known: one returns the real drawings, one returns noise, one is broken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from sfumato.core.errors import DataError, NonFiniteError, UsageError
from sfumato.data.captions import phrase
from sfumato.evaluate.evaluate import evaluate
from sfumato.evaluate.selection import select

from .conftest import CONCEPTS, Oracle, World


class Perfect:
    """Draws the real drawing that a prompt asks for; counts the pictures it was asked for."""

    def __init__(self, world: World) -> None:
        self.looks = {f"{phrase(c)}, {s} style": look for (c, s), look in world.looks.items()}
        self.drawn = 0

    def __call__(self, prompts: Sequence[str], *, seeds: Sequence[int], steps: int, guidance: float) -> Any:
        assert len(prompts) == len(seeds)
        self.drawn += len(prompts)
        return SimpleNamespace(images=torch.stack([self.looks[p].float() / 127.5 - 1 for p in prompts]))


def noise(prompts: Sequence[str], *, seeds: Sequence[int], steps: int, guidance: float) -> Any:
    return SimpleNamespace(images=torch.stack([torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(s)) for s in seeds]))


def test_a_perfect_pipe_scores_high_and_noise_scores_low(world: World, oracle: Oracle, tmp_path: Path) -> None:
    best = evaluate(Perfect(world), world, oracle, pairs="test", count=99, batch=3, out=tmp_path / "a", model="perfect")
    assert best.count == 8 and best.generated.concept_top1.value == best.generated.style.value == 1.0
    assert best.generated.retrieval.picture_at["1"].value == best.distance.precision.value == 1.0
    assert best.generated == best.real and best.groups["flags"].generated.count == 2
    assert (
        best.distance.kernel.value is not None and best.distance.frechet.value is None and "not estimable" in best.distance.frechet.reason
    )
    worst = evaluate(noise, world, oracle, pairs="test", count=99, batch=3, out=tmp_path / "b")
    assert worst.generated.concept_top1.value < 0.6 and worst.real == best.real
    assert worst.generated.alignment.value < best.generated.alignment.value


def test_what_is_written(world: World, oracle: Oracle, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    report = evaluate(
        Perfect(world), world, oracle, pairs="train", count=5, batch=2, out=tmp_path, progress=lambda done, all: steps.append((done, all))
    )
    assert steps == [(0, 5), (2, 5), (4, 5), (5, 5)]
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["generated"]["concept_top1"]["value"] == 1.0 and len(written["prompts"]) == len(written["guesses"]) == 5
    assert set(report.guesses) <= set(CONCEPTS)
    assert Image.open(tmp_path / "grid.png").width == 4 * (2 * 32 + 8) + 8
    markdown = (tmp_path / "report.md").read_text()
    assert "| concept top-1 | 100.0% [56.6%, 100.0%] | 100.0% [56.6%, 100.0%] | 90.0% [80.0%, 95.0%] |" in markdown
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report.table())
    assert "pairs seen in training" in console.export_text()


def test_an_interrupted_evaluation_goes_on(world: World, oracle: Oracle, tmp_path: Path) -> None:
    whole = evaluate(Perfect(world), world, oracle, pairs="test", count=8, batch=3, out=tmp_path)
    for number in (2, 5):
        (tmp_path / "pictures" / f"{number:06d}.png").unlink()
    pipe = Perfect(world)
    again = evaluate(pipe, world, oracle, pairs="test", count=8, batch=3, out=tmp_path)
    assert pipe.drawn == 2 and again.generated == whole.generated and again.distance == whole.distance
    assert again.cost.pictures == 10 and again.cost.seconds > whole.cost.seconds
    few = evaluate(pipe, world, oracle, pairs="test", count=3, batch=3, out=tmp_path)
    assert pipe.drawn == 2 and few.prompts == whole.prompts[:3]
    with pytest.raises(UsageError, match="another evaluation; different: guidance"):
        evaluate(pipe, world, oracle, pairs="test", count=8, guidance=1.0, out=tmp_path)
    (tmp_path / "pictures" / "000002.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="delete it"):
        evaluate(pipe, world, oracle, pairs="test", count=8, batch=3, out=tmp_path)
    Image.new("RGB", (64, 32)).save(tmp_path / "pictures" / "000002.png")
    with pytest.raises(DataError, match=r"7 of 32x32, 1 of 64x32\); not 32x32: 000002.png"):
        evaluate(pipe, world, oracle, pairs="test", count=8, batch=3, out=tmp_path)
    (tmp_path / "pictures" / "000002.png").unlink()
    (tmp_path / "cost.json").write_text("{")
    with pytest.raises(DataError, match="only time and memory are lost"):
        evaluate(pipe, world, oracle, pairs="test", count=8, batch=3, out=tmp_path)


def test_pairs_are_a_function_of_names_and_seed(world: World, oracle: Oracle) -> None:
    first = select(world, oracle, "test", 5, 0)
    assert first == select(world, oracle, "test", 5, 0) and first.prompts != select(world, oracle, "test", 5, 1).prompts
    turned = World()
    turned.rows.reverse()
    assert select(turned, oracle, "test", 5, 0).prompts == first.prompts
    assert not set(first.rows) & set(first.others) and len(first.others) == 5
    assert len(select(World(copies=3), oracle, "train", 99, 0).rows) == 8  # a pair is asked for once
    assert any(p.startswith("flag of Chile, ") for p in select(world, oracle, "test", 99, 0).prompts)


def test_bad_requests_and_bad_pictures(world: World, oracle: Oracle, tmp_path: Path) -> None:
    def broken(prompts: Sequence[str], **options: Any) -> Any:
        images = torch.zeros(len(prompts), 3, 32, 32)
        images[-1, 0, 0, 0] = torch.inf
        return SimpleNamespace(images=images)

    report = evaluate(broken, world, oracle, pairs="test", count=8, batch=4, out=tmp_path / "a")
    assert [lost.place for lost in report.left_out] == [3, 7] and report.count == len(report.prompts) == 6
    assert report.left_out[0].prompt not in report.prompts and "NaN or infinity" in report.left_out[0].reason
    assert "2 of 8 pictures are left out: 3 (" in report.markdown() and report.generated.style.count == 6
    assert len(list((tmp_path / "a").glob("pictures/*"))) == 6

    def refusing(prompts: Sequence[str], *, seeds: Sequence[int], **options: Any) -> Any:
        if 5 in seeds:
            raise NonFiniteError("the decoded picture holds NaN")
        return SimpleNamespace(images=torch.zeros(len(prompts), 3, 32, 32))

    # A batch that is refused for one picture is drawn one by one.
    report = evaluate(refusing, world, oracle, pairs="test", count=8, batch=4, out=tmp_path / "c")
    assert [lost.place for lost in report.left_out] == [5] and report.left_out[0].reason == "the decoded picture holds NaN"
    healed = evaluate(Perfect(world), world, oracle, pairs="test", count=8, batch=4, out=tmp_path / "c")
    assert healed.count == 8 and not healed.left_out
    with pytest.raises(NonFiniteError, match="none of 1 pictures is whole"):
        evaluate(broken, world, oracle, pairs="test", count=1, out=tmp_path / "d")

    def large(prompts: Sequence[str], **options: Any) -> Any:
        return SimpleNamespace(images=torch.zeros(len(prompts), 3, 64, 64))

    with pytest.raises(UsageError, match="32 x 32"):
        evaluate(large, world, oracle, pairs="test", count=8, out=tmp_path / "b")
    with pytest.raises(UsageError, match="'train'"):
        select(world, oracle, "validation", 8, 0)
    with pytest.raises(UsageError, match="at least 1"):
        select(world, oracle, "test", 0, 0)
    world.rows = [row for row in world.rows if row[2] == "train"]
    with pytest.raises(DataError, match="no pair of the test split"):
        select(world, oracle, "test", 8, 0)
