"""Folders of scenes: written whole, resumed, verified, opened by the one loader, and refused where that would lose or mislead."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.core import config
from sfumato.core.errors import DataError, OutputError, SfumatoError
from sfumato.data import open_source
from sfumato.data.packages import TRAINABLE
from sfumato.data.scenes.build import build_scenes
from sfumato.data.scenes.cast import Cast
from sfumato.data.scenes.description import Scene
from sfumato.data.scenes.painting import render
from sfumato.data.scenes.plan import scene
from sfumato.data.scenes.samples import KINDS

FIXTURE, PEOPLE = (Path(__file__).parent / name for name in ("fixture", "people"))
CAST = Cast.open(FIXTURE)


def pixels(png: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(io.BytesIO(png)))


def build(out: Path, kind: str = "scenes", count: int = 6, **options: object) -> Path:
    data = PEOPLE if kind == "tryon" else FIXTURE
    build_scenes(out, data, kind=kind, count=count, size=64, workers=1, progress=False, **options)  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_source(kind: str, tmp_path: Path) -> None:
    source = open_source(build(tmp_path / kind, kind, difficulty=4), size=64)
    assert len(source) == 6 and not source.quarantine
    for sample in source:
        row = sample.attributes
        assert sample.image.shape == (3, 64, 64) and sample.captions and row["kind"] == kind
        assert len(row["masks"]) == len(row["boxes"]) == len(row["regions"])
        labels = pixels(row["labels"])
        assert labels.shape == pixels(row["depth"]).shape == pixels(row["edges"]).shape == (64, 64)
        for k, mask in enumerate(row["masks"]):
            assert not ((labels == k + 1) & ~pixels(mask)).any()
        assert row["licence"] in TRAINABLE and json.loads(row["description"])
        assert row["drawings"] and set(row["styles"]) == {name.split("/")[0].replace("-", " ") for name in row["drawings"]}
        assert all(pixels(frame["png"]).shape == (64, 64, 3) for frame in row["frames"])
        assert (row["pdf"] is not None) is (kind == "documents")
        assert bool(row["negatives"]) is (kind in ("scenes", "edits", "subjects", "probes"))
    assert len(set(source.column("id"))) == 6


def test_a_row_is_the_scene_of_its_seed_and_index(tmp_path: Path) -> None:
    source = open_source(build(tmp_path / "a", seed=9, difficulty=5), size=64)
    for index, sample in enumerate(source):
        it = scene(CAST, 9, index, 5)
        assert config.from_dict(Scene, json.loads(sample.attributes["description"])) == it
        np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), render(it, CAST, 64).picture)
    assert source.at(32)[0].image.shape == (3, 32, 32)
    assert open_source(tmp_path / "a", size=32)[0].image.shape == (3, 32, 32)


def test_splits_and_hub_library_read_it(tmp_path: Path) -> None:
    import datasets

    out = build(tmp_path / "a", count=40)
    assert set(open_source(out, split="train", size=64).column("split")) == {"train"}
    (file,) = (out / "data").glob("*.parquet")
    loaded = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["image"].size == (64, 64)


def test_equal_requests_give_equal_bytes_whoever_draws(tmp_path: Path) -> None:
    one = build(tmp_path / "one")
    build_scenes(tmp_path / "two", FIXTURE, count=6, size=64, workers=2, progress=False)
    for file in ("manifest.json", "data/scenes-00000.parquet"):
        assert (one / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_build_is_verified_resumed_and_never_silently_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.data.scenes.build.ROWS_PER_SHARD", 2)
    out = build(tmp_path / "a")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()}
    report = build_scenes(out, FIXTURE, count=6, size=64, workers=1, progress=False)
    assert (report.rows, report.shards, report.shards_kept) == (6, 3, 3)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    damaged = out / "data" / "scenes-00001.parquet"
    damaged.write_bytes(b"broken")
    with pytest.raises(DataError, match="build it anew"):
        open_source(out)
    assert build_scenes(out, FIXTURE, count=6, size=64, workers=1, progress=False).shards_kept == 2
    assert damaged.read_bytes() == before[damaged][1]
    with pytest.raises(OutputError, match="its seed differ"):
        build(out, seed=1)
    build(out, seed=1, overwrite=True)
    assert open_source(out, size=64)[0].attributes["seed"] == 1


def test_a_stopped_build_says_so_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.data.scenes.build.ROWS_PER_SHARD", 2)

    def stop(done: int, total: int, what: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_scenes(tmp_path / "a", FIXTURE, count=6, size=64, workers=1, progress=stop)
    with pytest.raises(DataError, match="not built to the end"):
        open_source(tmp_path / "a")
    assert build_scenes(tmp_path / "a", FIXTURE, count=6, size=64, workers=1, progress=False).shards_kept == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": 0}, "count is 0"), ({"seed": -1}, "seed is -1"), ({"size": 4}, "nearest is 16"),
        ({"difficulty": 0}, "unknown difficulty"),
        ({"kind": "scene"}, "did you mean 'scenes'"), ({"workers": 0}, "workers is 0"),
    ],
)  # fmt: skip
def test_bad_options_teach_and_write_nothing(options: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(SfumatoError) as error:
        build_scenes(tmp_path / "a", FIXTURE, progress=False, **options)  # type: ignore[arg-type]
    assert said in str(error.value) and not (tmp_path / "a").exists()


def test_a_folder_that_is_no_world_or_is_taken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        build_scenes(tmp_path / "a", tmp_path / "nowhere", progress=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="is a file\n  name a folder"):
        build_scenes(tmp_path / "mine" / "letter.txt", FIXTURE, overwrite=True, progress=False)
    with pytest.raises(OutputError, match="holds something else"):
        build(tmp_path / "mine")
    with pytest.raises(DataError, match="no standing person"):
        build_scenes(tmp_path / "b", FIXTURE, kind="tryon", count=1, workers=1, progress=False)
