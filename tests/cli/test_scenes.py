"""`sfumato data scenes`: every knob bites, the summary is true, and a wrong request teaches."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sfumato.cli.data import Scenes

from .conftest import Cli

DATA = Path(__file__).parents[1] / "data"
PLAIN = ("data", "scenes", "--data", DATA / "fixture", "--size", "32", "--count", "2", "--workers", "1")


def manifest(name: str) -> dict[str, Any]:
    return json.loads((Path(name) / "manifest.json").read_text())


def says(field: str, value: object) -> Callable[[str], bool]:
    """The manifest records the option and its shards are others than the plain run's."""
    return lambda out: manifest(out)[field] == value and manifest(out)["shards"][0]["sha256"] != manifest("plain")["shards"][0]["sha256"]


KNOBS: dict[str, tuple[tuple[object, ...], Callable[[str], bool]]] = {
    "data": (("--data", DATA / "people"), lambda out: manifest(out)["world"] != manifest("plain")["world"]),
    "count": (("--count", "3"), lambda out: manifest(out)["shards"][0]["rows"] == 3),
    "seed": (("--seed", "4"), says("seed", 4)),
    "difficulty": (("--difficulty", "5"), says("difficulty", 5)),
    "size": (("--size", "48"), says("size", 48)),
    "kind": (("--kind", "videos"), lambda out: [path.stem for path in Path(out, "data").iterdir()] == ["videos-00000"]),
}


def test_every_option_of_data_scenes(cli: Cli) -> None:
    assert set(KNOBS) | {"out", "workers", "overwrite", "quiet", "debug"} == {f.name for f in fields(Scenes)}
    plain = cli(*PLAIN, "--out", "plain")
    assert plain.code == 0 and plain.out.startswith("2 scenes in plain: train ")
    for name, (words, bites) in KNOBS.items():
        kept = tuple(word for i, word in enumerate(PLAIN) if words[0] not in (word, PLAIN[i - 1]))
        assert cli(*kept, *words, "--out", name).code == 0 and bites(name), name
    again = cli(*PLAIN, "--out", "plain")
    assert again.code == 0 and "1 of 1 files were there already" in again.out
    other = cli(*PLAIN, "--seed", "8", "--out", "plain")
    assert other.code == 1 and "seed differ" in other.err and manifest("plain")["seed"] == 0
    assert cli(*PLAIN, "--seed", "8", "--out", "plain", "--overwrite").code == 0 and manifest("plain")["seed"] == 8


def test_workers_quiet_and_debug_reach_the_build(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import sfumato.data.scenes.build as room

    seen: list[dict[str, Any]] = []

    def built(out: Path, data: Path, **options: Any) -> room.Report:
        seen.append(options)
        return room.Report(out, {"train": 1}, 1, 0)

    monkeypatch.setattr(room, "build_scenes", built)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for words in ((), ("--workers", "2"), ("--quiet",)):
        assert cli("data", "scenes", "--data", "a", "--out", "b", *words).code == 0
    assert [options["workers"] for options in seen] == [None, 2, None]
    assert [options["progress"] for options in seen] == [True, True, False]
    monkeypatch.undo()
    assert "Traceback" in cli("data", "scenes", "--data", "nowhere", "--out", "c", "--debug").err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kind", "story"), "did you mean 'stories'"),
        (("--difficulty", "6"), "unknown difficulty '6'"),
        (("--size", "8"), "the nearest is 16"),
        (("--count", "0"), "count is 0"),
    ],
)
def test_bad_requests_teach(cli: Cli, words: tuple[str, ...], said: str) -> None:
    ran = cli("data", "scenes", "--data", DATA / "fixture", "--out", "a", *words)
    assert ran.code == 2 and said in ran.err and not Path("a").exists()
