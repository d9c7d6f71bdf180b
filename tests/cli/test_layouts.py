"""`--layout` and `--cfg`: as people write them, in the record, and drawn again bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tests.pipelines.peers import flux, pixart, saved

from sfumato.cli import png
from sfumato.cli.verb import parse_layout
from sfumato.core.errors import UsageError
from sfumato.sampling.schedules import Layout

from .conftest import Cli
from .knobs import pixels


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ("released", Layout("released")),
        ("uniform,end=first", Layout("uniform", end="first")),
        ("leading, offset=1 ,spare=yes", Layout("leading", offset=1, spare=True)),
        ("paper,scaling=tokens,tokens=64/0.5/256/1", Layout("paper", "tokens", (64.0, 0.5, 256.0, 1.0))),
    ],
)
def test_a_layout_as_it_is_written(text: str, layout: Layout) -> None:
    assert parse_layout(text) == layout


@pytest.mark.parametrize(
    ("text", "told"),
    {
        "unifrm": "did you mean 'uniform'",
        "end=first": "unknown layout 'end=first'",
        "uniform,first": "says 'first'",
        "uniform,ends=first": "unknown field of Layout 'ends'",
        "uniform,end=last": "Layout.end is 'last'",
        "leading,offset=one": "Layout.offset is 'one'",
        "paper,spare=yes": "belong to discrete schedules",
        "paper,tokens=1/2": "Layout.tokens has 2 values",
        "uniform,kind=paper": "says 'kind=paper'",
    }.items(),
)
def test_a_layout_that_is_none(text: str, told: str, cli: Cli, model: Path) -> None:
    with pytest.raises(UsageError) as refused:
        parse_layout(text)
    assert told in str(refused.value)
    ran = cli("generate", "a cat", "--model", model, "--layout", text)
    assert ran.code == 2 and told in ran.err and not list(Path().rglob("*.png"))


@pytest.mark.parametrize(
    ("folder", "words", "plain"),
    [
        ("pixart", ("--layout", "uniform,end=first"), ()),
        ("flux", ("--cfg", "2.5", "--negative", "snow", "--layout", "released"), ("--cfg", "2.5", "--negative", "snow")),
    ],
)
def test_again_is_bit_for_bit(folder: str, words: tuple[str, ...], plain: tuple[str, ...], cli: Cli, tmp_path: Path) -> None:
    model = saved({"pixart": pixart, "flux": flux}[folder](), tmp_path / folder)
    command = ("generate", "a fox", "a long story of a house", "--model", model, "--size", 16, "--steps", 3, "--batch", 2, "--json")
    own, turned = cli(*command, *plain, "--out", "own"), cli(*command, *words, "--out", "turned")
    assert own.code == turned.code == 0 and pixels(own) != pixels(turned), turned.err
    again = cli("generate", "--again", turned.lines[0]["path"], "--json")
    assert again.code == 0 and again.lines[0]["identical"] is True, again.err
    assert [again.lines[0][name] for name in ("cfg", "layout")] == [turned.lines[0][name] for name in ("cfg", "layout")]


def test_settings_are_refused_before_anything_is_drawn(cli: Cli, model: Path) -> None:
    rows = [{"prompt": "one"}, {"prompt": "two", "layout": "trailing"}, {"prompt": "three", "cfg": 2}, {"prompt": "four", "layout": "x"}]
    for row, told in zip(rows[1:], ("are for discrete schedules", "is not told a guidance", "line 2: unknown layout 'x'"), strict=True):
        Path("rows.jsonl").write_text(json.dumps(rows[0]) + "\n" + json.dumps(row))
        ran = cli("generate", "--prompts", "rows.jsonl", "--model", model)
        assert ran.code == 2 and told in ran.err and not list(Path().rglob("*.png")), ran.err
    assert "guidance is 200.0" in cli("generate", "a cat", "--cfg", 200, "--model", model).err


def test_records_without_a_layout_and_with_a_wrong_one(cli: Cli, model: Path) -> None:
    assert cli("generate", "a cat", "--model", model, "--out", "cat.png").code == 0
    record = png.read(Path("cat.png"))
    with Image.open("cat.png") as opened:
        picture = opened.convert("RGB")
    png.save(picture, replace(record, layout=None), Path("former.png"))
    assert cli("generate", "--again", "former.png", "--json").lines[0]["identical"] is True
    png.save(picture, replace(record, layout={"kind": "spiral"}), Path("later.png"))
    ran = cli("generate", "--again", "later.png")
    assert ran.code == 2 and "the record in later.png cannot be read: Layout.kind is 'spiral'" in ran.err


def test_words_of_a_picture_with_a_layout(cli: Cli, model: Path) -> None:
    assert cli("generate", "a cat", "--model", model, "--layout", "released", "--shift", 2, "--out", "cat.png").code == 0
    maps = cli("inspect", "--heatmap", "cat.png")
    assert maps.code == 0 and "differs" not in maps.err, maps.err


def test_the_schedule_of_another_layout(cli: Cli, tmp_path: Path) -> None:
    model = saved(pixart(), tmp_path / "pixart")
    told = cli("schedule", model, "--steps", 4, "--layout", "uniform,end=first", "--json").lines[0]
    assert told["stops"][0]["t"] == 1.0 and told["stops"][-1]["t"] == pytest.approx(1e-3)
    assert {o["what"]: (o["value"], o["from"]) for o in told["origins"]}["layout"] == ("uniform, end first", "--layout")
    assert cli("schedule", model, "--layout", "paper").code == 2
