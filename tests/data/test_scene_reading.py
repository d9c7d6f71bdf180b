"""Scenes as something to learn from: one caption of every form, few objects, one split, several folders in a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.core.errors import DataError, UsageError
from sfumato.data.scenes.build import build_scenes
from sfumato.data.scenes.captions import SAID, captions_of
from sfumato.data.scenes.cast import Cast
from sfumato.data.scenes.plan import scene
from sfumato.data.scenes.reading import FORMS, forms_of, open_scenes

FIXTURE = Path(__file__).parent / "fixture"
CAST = Cast.open(FIXTURE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Scenes of one or two things, and of up to six."""
    base = tmp_path_factory.mktemp("scenes")
    for difficulty in (2, 4):
        build_scenes(base / str(difficulty), FIXTURE, count=12, difficulty=difficulty, size=32, workers=1, progress=False)
    return [base / "2", base / "4"]


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_every_form_is_what_its_name_says(difficulty: int):
    for index in range(12):
        made = scene(CAST, 0, index, difficulty)
        captions = captions_of(made)
        found = [dict(zip(FORMS, forms_of(captions, turn), strict=True)) for turn in range(len(captions))]
        assert {text for forms in found for text in forms.values()} == set(captions), "every caption has its turn"
        for forms in found:
            assert forms["long"].startswith("A picture") and not forms["short"].startswith("A picture")
            several = len(made.groups) > 1
            assert (forms["reversed"] != forms["short"]) == several
            assert any(f" {said} " in forms["related"] for said in SAID.values()) == several


def test_folders_come_one_after_the_other(folders: list[Path]):
    source, parts = (
        open_scenes(folders, split="train", size=32, most=9),
        [open_scenes([f], split="train", size=32, most=9) for f in folders],
    )
    assert source.column("id") == [name for part in parts for name in part.column("id")]
    assert source.column("captions") == [forms for part in parts for forms in part.column("captions")]
    assert all(len(forms) == len(FORMS) for forms in source.column("captions"))
    last = source[len(source) - 1]
    assert last.image.shape == (3, 32, 32) and last.captions == parts[1].column("captions")[-1]
    assert last.id == last.attributes["id"]


@pytest.mark.parametrize("most", [1, 2, 4, 6])
def test_crowded_scenes_are_left_out(folders: list[Path], most: int):
    source = open_scenes(folders, split="train", size=32, most=most)
    counts = [len(json.loads(text)["objects"]) for text in source.column("description")]
    everything = open_scenes(folders, split="train", size=32, most=9).column("description")
    assert sorted(counts) == sorted(n for n in (len(json.loads(text)["objects"]) for text in everything) if n <= most)
    assert set(source.column("split")) == {"train"}


def test_what_is_no_folder_of_scenes_is_refused(folders: list[Path], tmp_path: Path):
    with pytest.raises(DataError, match="there is no"):
        open_scenes([tmp_path / "nowhere"], split="train")
    for folder in (tmp_path, FIXTURE):
        with pytest.raises(DataError, match=r"is no folder of scenes.*\n.*sfumato data scenes"):
            open_scenes([folder], split="train")
    build_scenes(tmp_path / "videos", FIXTURE, kind="videos", count=1, size=32, workers=1, progress=False)
    with pytest.raises(DataError, match=r"is no folder of scenes \(videos\)"):
        open_scenes([tmp_path / "videos"], split="train")
    with pytest.raises(UsageError, match="twice"):
        open_scenes([folders[0], folders[0]], split="train")
    with pytest.raises(DataError, match="at most 0 objects"):
        open_scenes(folders, split="train", most=0)
