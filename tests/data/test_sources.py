"""The loader on each kind of source, and on broken ones."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sfumato.core.errors import DataError, UnknownNameError, UsageError
from sfumato.data import open_source, split_of

FIXTURE = Path(__file__).parent / "fixture"


def encoded(colour: tuple[int, ...] = (10, 200, 30), size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(stream, kind)
    return stream.getvalue()


def folder_of_pictures(folder: Path) -> Path:
    """Three good pictures (.txt, .json object, .json list, one in a subfolder) and four broken ones."""
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(encoded())
    (folder / "a.txt").write_text("a green square\nsomething green\n")
    (folder / "b.jpg").write_bytes(encoded((255, 0, 0), kind="JPEG"))
    (folder / "b.json").write_text(json.dumps({"caption": "red", "author": "me"}))
    (folder / "sub" / "c.webp").write_bytes(encoded((0, 0, 255, 0), kind="WEBP"))
    (folder / "sub" / "c.json").write_text('["nothing", "blue"]')
    (folder / "cut.png").write_bytes(encoded(size=(64, 64))[:60])
    (folder / "cut.txt").write_text("cut short")
    (folder / "empty.png").write_bytes(encoded())
    (folder / "empty.txt").write_text(" \n ")
    (folder / "alone.png").write_bytes(encoded())
    (folder / "text.png").write_text("this is no picture")
    (folder / "text.txt").write_text("a text")
    return folder


def test_fixture_is_an_emoji_world_of_three_splits() -> None:
    parts = {split: open_source(FIXTURE, split=split) for split in ("train", "validation", "test")}
    assert all(len(part) for part in parts.values()) and sum(map(len, parts.values())) == len(open_source(FIXTURE)) == 144
    assert sum(p.stat().st_size for p in FIXTURE.rglob("*") if p.is_file()) < 2_000_000
    for split, part in parts.items():
        names = zip(part.column("concept"), part.column("style"), strict=True)
        assert {split_of(concept, style) for concept, style in names} == {split}


def test_a_sample_is_composited_and_keeps_its_alpha() -> None:
    white, black = open_source(FIXTURE), open_source(FIXTURE, background=(0, 0, 0))
    i = white.column("id").index("noto/red-heart")
    sample = white[i]
    assert sample.image.shape == (3, 128, 128) and sample.image.dtype == torch.uint8 and sample.image.is_contiguous()
    assert sample.alpha is not None and sample.alpha.shape == (128, 128)
    assert sample.captions[0] == "red heart" and sample.attributes["style"] == "noto" and "image" not in sample.attributes
    clear, solid = sample.alpha == 0, sample.alpha == 255
    assert clear.any() and solid.any()
    assert (sample.image[:, clear] == 255).all() and (black[i].image[:, clear] == 0).all()
    assert torch.equal(sample.image[:, solid], black[i].image[:, solid])
    red, green, blue = sample.image[:, solid].float().mean(1)
    assert red > 150 and green < 100 and blue < 100


def test_images_in_memory_equal_the_samples() -> None:
    source = open_source(FIXTURE, split="test", size=32)
    assert torch.equal(source.images(), torch.stack([sample.image for sample in source]))


def test_emoji_world_is_redrawn_at_other_sizes() -> None:
    small, large = open_source(FIXTURE, split="test"), open_source(FIXTURE, split="test", size=256)
    assert large[0].image.shape == (3, 256, 256)
    shrunk = torch.nn.functional.avg_pool2d(large[0].image.float(), 2)
    assert (shrunk - small[0].image.float()).abs().mean() < 4
    # A resampled picture has lost the detail that a drawn one has.
    resampled = torch.nn.functional.interpolate(small[0].image[None].float(), scale_factor=2, mode="bicubic")[0]
    assert (resampled - large[0].image.float()).abs().mean() > 0.5


def test_columns() -> None:
    source = open_source(FIXTURE, split="validation")
    assert len(source.column("id")) == len(source.column("captions")) == len(source)
    assert set(source.column("licence")) <= {"Apache-2.0", "MIT"}
    with pytest.raises(UnknownNameError, match="did you mean 'concept'"):
        source.column("concpt")


def test_image_folder_with_broken_pictures(tmp_path: Path) -> None:
    source = open_source(folder_of_pictures(tmp_path / "p"), size=16)
    assert [sample.id for sample in source] == ["a.png", "b.jpg", "sub/c.webp"] and len(source) == 3
    green, red, nothing = list(source)
    assert green.captions == ("a green square", "something green") and green.alpha is None
    assert red.captions == ("red",) and red.attributes == {"author": "me"}
    assert nothing.captions == ("nothing", "blue") and nothing.alpha is not None and (nothing.image == 255).all()
    assert green.image[:, 3, 3].tolist() == [10, 200, 30]
    reasons = {broken.id: broken.reason for broken in source.quarantine}
    assert set(reasons) == {"cut.png", "empty.png", "alone.png", "text.png"}
    assert "cannot be decoded" in reasons["cut.png"] and "cannot be decoded" in reasons["text.png"]
    assert "no caption" in reasons["empty.png"] and "alone.txt" in reasons["alone.png"]
    assert source.column("author") == [None, "me", None]


def test_folder_splits_by_subfolder_or_by_hash(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / "named" / part).mkdir(parents=True)
        (tmp_path / "named" / part / "x.png").write_bytes(encoded())
        (tmp_path / "named" / part / "x.txt").write_text(part)
    assert open_source(tmp_path / "named", split="validation")[0].captions == ("val",)
    (tmp_path / "plain").mkdir()
    for i in range(60):
        (tmp_path / "plain" / f"{i}.png").write_bytes(encoded())
        (tmp_path / "plain" / f"{i}.txt").write_text(f"caption {i // 2}")
    found = {split: open_source(tmp_path / "plain", split=split).column("captions") for split in ("train", "test")}
    assert found["train"] and all(split_of(captions[0], "") == "train" for captions in found["train"])
    assert not set(found["train"]) & set(found["test"])


def table(**columns: Any) -> pa.Table:
    return pa.table({"image": [encoded(), b"broken", encoded((0, 0, 255)), None], "caption": ["green", "bad", "blue", "gone"], **columns})


def test_parquet_file_and_folder(tmp_path: Path) -> None:
    pq.write_table(table(id=["g", "x", "b", "n"]), tmp_path / "one.parquet")
    source = open_source(tmp_path / "one.parquet", size=8)
    assert [(s.id, s.captions) for s in source] == [("g", ("green",)), ("b", ("blue",))]
    assert [broken.id for broken in source.quarantine] == ["x", "n"]
    pq.write_table(table(id=list("abcd")), tmp_path / "two.parquet")
    assert len(open_source(tmp_path, size=8)) == 4
    with pytest.raises(DataError, match="cannot be decoded"):
        open_source(tmp_path / "one.parquet", check=False)[1]


def test_a_parquet_licence_column_is_filtered_too(tmp_path: Path) -> None:
    pq.write_table(table(licence=["MIT", "MIT", "CC-BY-SA-4.0", "MIT"]), tmp_path / "one.parquet")
    source = open_source(tmp_path / "one.parquet")
    assert source.column("captions") == [("green",)] and source.excluded == {"CC-BY-SA-4.0": 1}
    with pytest.raises(DataError, match="left out: 3 under MIT"):
        open_source(tmp_path / "one.parquet", licences=["Apache-2.0"])


def test_parquet_without_the_needed_columns_teaches(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [encoded()], "words": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no caption column; its columns are image, words"):
        open_source(tmp_path / "a.parquet")
    pq.write_table(pa.table({"bild": ["x"], "text": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no image column"):
        open_source(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"cannot read .*c\.parquet"):
        open_source(tmp_path / "c.parquet")


def test_arrow_folder_with_and_without_splits(tmp_path: Path) -> None:
    import datasets

    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    rows = datasets.Dataset.from_dict(
        {"image": pictures, "text": ["red", "green", "blue"]},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    rows.save_to_disk(str(tmp_path / "flat"))
    source = open_source(tmp_path / "flat", size=8)
    assert source.column("captions") == [("red",), ("green",), ("blue",)] and source[2].image[:, 0, 0].tolist() == [0, 0, 255]
    datasets.DatasetDict({"train": rows.select([2, 0]), "test": rows.select([1])}).save_to_disk(str(tmp_path / "parts"))
    assert open_source(tmp_path / "parts", split="train").column("captions") == [("blue",), ("red",)]
    assert len(open_source(tmp_path / "parts")) == 3


def test_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"image": [{"bytes": encoded(), "path": None}], "caption": ["green"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict({"train": rows}))
    assert open_source("somebody/pictures", split="train")[0].captions == ("green",)

    def offline(name: str) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match="cannot load the data set 'somebody/pictures' from the hub: ConnectionError: no route"):
        open_source("hub:somebody/pictures")


def test_unreadable_sources_teach(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no image"):
        open_source(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"a \.zip file"):
        open_source(tmp_path / "x.zip")
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "bad.png").write_bytes(b"x")
    (tmp_path / "all" / "bad.txt").write_text("bad")
    with pytest.raises(DataError, match=r"none of the 1 pictures can be read; bad\.png"):
        open_source(tmp_path / "all")
    with pytest.raises(UnknownNameError, match="did you mean 'train'"):
        open_source(FIXTURE, split="trian")
    with pytest.raises(UsageError, match="size 0"):
        open_source(FIXTURE, size=0)


def test_wide_pictures_are_cropped_square_and_upright(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    (tmp_path / "wide.txt").write_text("a white middle")
    assert (open_source(tmp_path, size=10)[0].image == 255).all()
    tall = Image.fromarray(np.concatenate([np.zeros((8, 16, 3), np.uint8), np.full((8, 16, 3), 255, np.uint8)]))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    (tmp_path / "turned").mkdir()
    tall.save(tmp_path / "turned" / "t.png", exif=exif)
    (tmp_path / "turned" / "t.txt").write_text("white above black")
    image = open_source(tmp_path / "turned", size=16)[0].image
    assert (image[:, :8] == 255).all() and (image[:, 8:] == 0).all()
