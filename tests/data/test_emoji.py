"""The builder on a tiny world: identical bytes, resuming, quarantine, refusals, and what a row says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.data.world import SQUARE, make_packages

from sfumato.core.errors import DataError, OutputError, SfumatoError, UnknownNameError, UsageError
from sfumato.data import HELD_OUT, STYLES, build_emoji, emoji, open_source, split_of
from sfumato.data.packages import LESSONS, choose_styles
from sfumato.data.render import render

BROKEN = {"two-hearts": "<path d=", "fox-face": "<g/>", "zzzqqq": SQUARE.format(1)}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packages(tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="module")
def world(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world") / "emoji"
    build_emoji(out, size=16, packages=packages, workers=1, progress=False)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_a_row_says_everything(world: Path) -> None:
    row = next(row for row in rows(world) if row["id"] == "noto/womanpoliceofficer")
    picture = row.pop("image")
    assert picture["bytes"].startswith(b"\x89PNG") and picture["path"] == "womanpoliceofficer.png"
    assert row.pop("svg").startswith("<svg") and len(row.pop("captions")) == 5 and row.pop("colours")
    assert row == {
        "id": "noto/womanpoliceofficer",
        "concept": "woman police officer",
        "style": "noto",
        "package": "@iconify-json/noto",
        "version": "1.2.9",
        "licence": "Apache-2.0",
        "split": split_of("woman police officer", "noto"),
        "hexcode": "1F46E-200D-2640-FE0F",
        "emoji": "?",
        "group": "things",
        "subgroup": "some",
        "gender": "female",
        "skin_tone": "",
        "tags": ["law"],
        "labels": [{"language": "de", "label": "woman police officer auf Deutsch"}],
        "width": 16,
        "height": 16,
    }


def test_every_row_is_in_the_split_of_its_names(world: Path) -> None:
    assert all(row["split"] == split_of(row["concept"], row["style"]) for row in rows(world))


def test_datasets_reads_the_shards_as_pictures(world: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features.from_arrow_schema(pq.read_schema(world / "data" / "noto-000.parquet"))
    assert isinstance(features["image"], datasets.Image) and set(features) == set(rows(world)[0])


def test_two_builds_and_any_number_of_workers_give_the_same_bytes(world: Path, packages: Path, tmp_path: Path) -> None:
    build_emoji(tmp_path / "again", size=16, packages=packages, workers=2, progress=False)
    assert digests(tmp_path / "again") == digests(world)


def test_rerunning_touches_nothing(world: Path, packages: Path) -> None:
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in world.rglob("*")}
    report = build_emoji(world, size=16, packages=packages, workers=1, progress=False)
    assert report.shards_kept == report.shards == 8
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in world.rglob("*")} == before


def test_an_interrupted_build_goes_on_where_it_stopped(world: Path, packages: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, style: str) -> None:
        if style == "fxemoji":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_emoji(tmp_path / "e", size=16, packages=packages, workers=1, progress=interrupt)
    assert not list(tmp_path.rglob("*.part"))
    with pytest.raises(DataError, match="not built to the end"):
        open_source(tmp_path / "e")
    report = build_emoji(tmp_path / "e", size=16, packages=packages, workers=1, progress=False)
    assert (report.shards_kept, report.shards) == (3, 8)
    assert digests(tmp_path / "e") == digests(world)


def test_a_damaged_shard_is_refused_by_the_loader_and_made_anew(world: Path, packages: Path, tmp_path: Path) -> None:
    copy = tmp_path / "e"
    shutil.copytree(world, copy)
    with open(copy / "data" / "noto-000.parquet", "r+b") as shard:
        shard.seek(200)
        shard.write(b"damage")
    with pytest.raises(DataError, match=r"damaged file .*noto-000"):
        open_source(copy)
    assert build_emoji(copy, size=16, packages=packages, workers=1, progress=False).shards_kept == 7
    assert digests(copy) == digests(world)


def test_broken_drawings_are_quarantined_with_reasons(tmp_path: Path) -> None:
    modules = make_packages(tmp_path, BROKEN)
    report = build_emoji(tmp_path / "e", size=16, styles=["fxemoji"], packages=modules, workers=1, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "e" / "quarantine.jsonl").read_text().splitlines()]
    reasons = {line["id"]: line["reason"] for line in lines}
    assert set(reasons) == {"fxemoji/two-hearts", "fxemoji/zzzqqq"} | ({"fxemoji/fox-face"} & set(reasons))
    assert "cannot be drawn" in reasons["fxemoji/two-hearts"] and "no emoji's" in reasons["fxemoji/zzzqqq"]
    assert report.quarantined == len(lines) and report.rows == len(rows(tmp_path / "e"))
    assert render('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>', 16) == "the SVG draws nothing"


def test_one_picture_under_two_names_is_kept_once(tmp_path: Path) -> None:
    modules = make_packages(tmp_path, {"happyfox": SQUARE.format(0x123456), "two-hearts": SQUARE.format(0x123456)})
    report = build_emoji(tmp_path / "e", size=16, styles=["noto"], packages=modules, workers=1, progress=False)
    ids = [row["id"] for row in rows(tmp_path / "e")]
    assert report.duplicates == 1 and "noto/two-hearts" in ids and "noto/happyfox" not in ids


def test_skin_tones_are_left_out_unless_asked_for(world: Path, packages: Path, tmp_path: Path) -> None:
    assert not any(row["skin_tone"] for row in rows(world))
    assert {row["style"] for row in rows(world) if row["concept"] == "police car light"} == {style.word for style in STYLES}
    build_emoji(tmp_path / "e", size=16, skin_tones=True, packages=packages, workers=1, progress=False)
    toned = {row["id"]: row for row in rows(tmp_path / "e") if row["skin_tone"]}
    assert {row["style"] for row in toned.values()} == {style.word for style in STYLES}
    assert {(row["concept"], row["skin_tone"]) for row in toned.values()} >= {("waving hand", "dark")}


def test_a_style_alone_has_the_concepts_it_has_among_all(world: Path, packages: Path, tmp_path: Path) -> None:
    build_emoji(tmp_path / "e", size=16, styles=["fluent 3d"], packages=packages, workers=1, progress=False)
    assert rows(tmp_path / "e") == [row for row in rows(world) if row["style"] == "fluent 3d"]


def test_share_alike_styles_are_held_out(world: Path) -> None:
    everything, trainable = open_source(world, size=16, licences=None), open_source(world, size=16)
    barred = set(everything.column("style")) - set(trainable.column("style"))
    assert barred == {style.word for style in STYLES if style.licence in HELD_OUT}
    assert barred == {style.word for style in STYLES if not style.trainable}
    assert sum(trainable.excluded.values()) == len(everything) - len(trainable)
    assert set(open_source(world, size=16, licences=HELD_OUT).column("style")) == barred


def test_no_test_pair_is_in_train(world: Path) -> None:
    pairs = {split: set() for split in ("train", "validation", "test")}
    for split, found in pairs.items():
        source = open_source(world, split=split, size=16, licences=None)
        found |= set(zip(source.column("concept"), source.column("style"), strict=True))
    assert not pairs["train"] & pairs["test"] and not pairs["train"] & pairs["validation"] and not pairs["validation"] & pairs["test"]
    assert sum(map(len, pairs.values())) == len({(row["concept"], row["style"]) for row in rows(world)})


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"size": 4}, UsageError, "nearest is 8"),
        ({"styles": ["notto"]}, UnknownNameError, "did you mean 'noto'"),
        ({"workers": 0}, UsageError, "at least 1"),
        ({"packages": Path("nowhere")}, DataError, "npm install --prefix nowhere emojibase-data@17.0.0"),
    ],
)
def test_bad_requests_teach(tmp_path: Path, packages: Path, options: dict[str, Any], error: type[SfumatoError], words: str) -> None:
    with pytest.raises(error, match=words):
        build_emoji(tmp_path / "e", **{"packages": packages, "progress": False, **options})
    assert not (tmp_path / "e").exists()


def test_an_occupied_folder_is_never_overwritten_unasked(world: Path, packages: Path, tmp_path: Path) -> None:
    copy = tmp_path / "e"
    shutil.copytree(world, copy)
    with pytest.raises(OutputError, match=r"another build \(its size"):
        build_emoji(copy, size=24, packages=packages, workers=1, progress=False)
    assert digests(copy) == digests(world)
    build_emoji(copy, size=24, styles=["noto"], packages=packages, workers=1, overwrite=True, progress=False)
    assert [p.name for p in (copy / "data").iterdir()] == ["noto-000.parquet"] and rows(copy)[0]["width"] == 24
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x")
    with pytest.raises(OutputError, match="something else"):
        build_emoji(tmp_path / "letters", packages=packages, progress=False)


def test_an_unwritable_place_is_an_output_error(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        build_emoji(tmp_path / "file" / "e", size=16, packages=packages, workers=1, progress=False)


def test_without_npm_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm client is not installed"):
        build_emoji(tmp_path / "e", progress=False)


def test_a_failing_and_a_working_npm(tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    npm = tmp_path / "npm"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 7\n")
    npm.chmod(0o755)
    with pytest.raises(DataError, match=r"exit status 7\):\n    npm error code ENOTFOUND"):
        build_emoji(tmp_path / "e", progress=False)
    npm.write_text(f'#!/bin/sh\ncp -r {packages} "$3"/\n')
    assert build_emoji(tmp_path / "e", size=16, styles=["noto"], workers=1, progress=False).shards == 1
    npm.write_text("#!/bin/sh\nexit 1\n")  # the cache holds the right versions now: npm is not asked again
    assert build_emoji(tmp_path / "e", size=16, styles=["noto"], workers=1, progress=False).shards_kept == 1


def test_a_package_under_another_licence_is_refused(tmp_path: Path) -> None:
    modules = make_packages(tmp_path)
    (modules / "@iconify-json" / "noto" / "info.json").write_text('{"license": {"spdx": "Proprietary"}}')
    with pytest.raises(DataError, match="under Proprietary"):
        build_emoji(tmp_path / "e", packages=modules, progress=False)


def test_the_manifest_counts_what_is_there(world: Path) -> None:
    manifest = json.loads((world / "manifest.json").read_text())
    assert manifest["complete"] and sum(sum(c.values()) for c in manifest["counts"].values()) == len(rows(world))
    assert all(manifest["joined"][style.word] <= sum(manifest["counts"][style.word].values()) for style in STYLES)
    assert manifest["world_version"] == emoji.WORLD_VERSION


def test_sets_for_judges_are_drawn_when_named_and_teach_no_names(tmp_path: Path) -> None:
    assert choose_styles(None) == STYLES and not set(STYLES) & set(LESSONS)
    assert [style.word for style in choose_styles(["streamline", "noto"])] == ["noto", "streamline"]
    assert all(style.trainable for style in LESSONS)
    modules = make_packages(tmp_path)
    for style in LESSONS:
        folder = modules / style.package
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"version": style.version}))
        (folder / "info.json").write_text(json.dumps({"license": {"spdx": style.licence}}))
        icons = {"fox": {"body": SQUARE.format(0x123456)}, "vulpes": {"body": SQUARE.format(0x654321)}}
        (folder / "icons.json").write_text(json.dumps({"icons": icons, "aliases": {"police-car": {"parent": "fox"}}, "width": 16}))
        (folder / "chars.json").write_text(json.dumps({"1f98a": "vulpes"}))
    plain = build_emoji(tmp_path / "plain", size=16, styles=["noto"], packages=modules, workers=1, progress=False)
    more = build_emoji(tmp_path / "more", size=16, styles=["noto", "streamline"], packages=modules, workers=1, progress=False)
    assert plain.counts["noto"] == more.counts["noto"] and plain.joined["noto"] == more.joined["noto"]
    assert more.joined["streamline"] == 2
    with pytest.raises(UnknownNameError, match="streamline"):
        choose_styles(["streamlines"])
