"""Pictures that were enlarged or cut: what is told of them is true, and what is measured of pictures tells them apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfumato.evaluate.pictures import resized
from sfumato.papers.told import LARGEST, SHARE, SMALLEST, Taught, ToldStream, cropped, cut, detail, middle, shrunk, whole
from sfumato.papers.world import World
from sfumato.training.diffusion import LatentStream
from sfumato.training.precompute import encode_pictures


def test_shrunk_pictures_are_told_of(little_world: World, tmp_path: Path) -> None:
    told = shrunk(little_world, tmp_path)
    sides = told.told["original_size"][:, 0]
    small = sides < 32
    assert 0 < small.double().mean() < 2 * SHARE and sides[small].min() >= SMALLEST * 32 and sides[small].max() <= LARGEST * 32
    assert torch.equal(told.data.latents[~small], little_world.train.latents[~small])
    train = [i for i, split in enumerate(little_world.source.column("split")) if split == "train"]
    row = int(small.nonzero()[0])
    image = little_world.source.at(32)[train[row]].image[None].float()
    wanted = encode_pictures(resized(resized(image, int(sides[row])), 32).round().to(torch.uint8), little_world.pipe.codec, 1)
    assert torch.allclose(told.data.latents[row].float(), wanted[0].float(), atol=2e-2)
    again = shrunk(little_world, tmp_path)
    assert torch.equal(again.data.latents, told.data.latents) and again.mark == told.mark and len(list(tmp_path.iterdir())) == 1


def test_crops_are_told_of(little_world: World, tmp_path: Path) -> None:
    told = cropped(little_world, tmp_path)
    corner = told.told["crop"]
    assert (corner.min(1).values == 0).all() and corner.max() <= 32 and corner.amax(0).min() > 0
    assert torch.equal(told.told["target_size"], torch.full_like(corner, 32.0))
    assert not torch.equal(told.data.latents, little_world.train.latents)


def test_a_batch_holds_the_numbers_of_its_own_pictures(world: World) -> None:
    data, count = world.train, len(world.train.latents)
    numbers = torch.arange(2.0 * count).view(count, 2)
    stream = LatentStream(data.latents, data.captions, data.table, (1.0,) * data.captions.shape[1], 4, 0)
    batch = ToldStream(stream, {"crop": numbers}).batch(3)
    rows = stream.rows.indices(3)
    assert torch.equal(batch["cond"].vectors["crop"], numbers[rows]) and torch.equal(batch["latents"], data.latents[rows].float())
    assert "pooled" in batch["cond"].vectors


def test_arms_differ_in_their_marks(world: World) -> None:
    told = Taught("all", world.train, {"crop": torch.ones(len(world.train.latents), 2)})
    few, same = told.rows(torch.tensor([2, 0])), told.saying(**whole(128))
    assert len({told.mark, few.mark, same.mark}) == 3
    assert torch.equal(few.data.latents[0], world.train.latents[2]) and len(few.told["crop"]) == 2
    assert not same.told["crop"].any() and same.told["original_size"].unique().tolist() == [128.0]


def square(top: int, left: int, side: int = 40) -> torch.Tensor:
    """A red square on white, (1, 3, 64, 64)."""
    image = torch.full((1, 3, 128, 128), 255, dtype=torch.uint8)
    image[:, 1:, 32 + top : 32 + top + side, 32 + left : 32 + left + side] = 0
    return image[..., 32:96, 32:96]


@pytest.mark.parametrize(("top", "left", "out"), [(12, 12, False), (-8, 12, True), (12, -8, True), (30, 12, True), (12, 30, True)])
def test_what_goes_beyond_a_border_is_cut(top: int, left: int, out: bool) -> None:
    assert cut(square(top, left)).tolist() == [out]
    assert cut(torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)).tolist() == [False]


def test_the_middle_of_the_ink_and_the_detail() -> None:
    assert middle(square(12, 12)) == pytest.approx(0.5) and middle(square(12, 2)) < 0.4
    noise = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    levels = [detail(resized(resized(noise.float(), side), 64).round().to(torch.uint8)) for side in (16, 24, 32, 64)]
    assert levels == sorted(levels) and levels[0] < 0.2 * levels[-1]
