"""Options of published pipelines on the command line: each changes the picture as it does in Python, and is drawn again bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tests.pipelines.cleaning import stand_in
from tests.pipelines.peers import dit, flux, lumina2, pixart, sana, saved, sdxl

import sfumato
from sfumato.cli import png
from sfumato.cli.verb import parse_guide, parse_micro
from sfumato.core.errors import UsageError
from sfumato.sampling.guidance import Guide

from .conftest import Cli
from .knobs import pixels

MAKERS: dict[str, Callable[[], Any]] = {
    "sana": sana, "lumina2": lumina2, "pixart": pixart, "sdxl": sdxl, "dit": dit, "flux": flux, "schnell": lambda: flux(guided=False),
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("published"), dict[str, Path]()

    def get(name: str) -> Path:
        if name not in made:
            made[name] = saved(MAKERS[name](), root / name)
        return made[name]

    return get


@pytest.mark.parametrize(
    ("name", "words", "loaded", "options"),
    [
        ("sana", ("--ways", "diffusers", "--text-tokens", 20), {"ways": "diffusers", "text_tokens": 20}, {}),
        ("sana", ("--instruction", "Draw: ", "--text-tokens", 20), {"instruction": "Draw: ", "text_tokens": 20}, {}),
        ("sana", ("--instruction", "", "--text-tokens", 20), {"instruction": "", "text_tokens": 20}, {}),
        ("pixart", ("--clean-captions",), {"clean_captions": True}, {}),
        ("pixart", ("--guide", "interval=0.3/0.9,channels=2"), {}, {"guide": Guide((0.3, 0.9), 2)}),
        ("lumina2", ("--ways", "diffusers", "--guide", "everywhere"), {"ways": "diffusers"}, {"guide": Guide()}),
        ("sdxl", ("--micro", "crop=0,70", "--micro", "target_size=20,30"), {}, {"micro": {"crop": (0, 70), "target_size": (20, 30)}}),
    ],
)
def test_an_option_is_that_of_python_and_drawn_again(
    name: str,
    words: tuple[object, ...],
    loaded: dict[str, Any],
    options: dict[str, Any],
    cli: Cli,
    published: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(monkeypatch)
    model, prompts = published(name), ("A fox @someone ((there))", "a long story of a house on a hill")
    command = ("generate", *prompts, "--model", model, "--size", 16, "--steps", 3, "--batch", 2, "--seed", 5, "--json")
    size = (16, 16)
    plain, turned = cli(*command, "--out", "plain"), cli(*command, *words, "--out", "turned")
    assert turned.code == 0 and pixels(plain)[0] != pixels(turned)[0], turned.err
    expected = sfumato.load(model, **loaded)(prompts, seed=5, size=size, steps=3, **options)
    assert pixels(turned) == [picture.tobytes() for picture in expected]
    assert expected.settings["loaded"] == loaded
    for line in turned.lines:
        again = cli("generate", "--again", line["path"], "--json")
        assert again.code == 0 and again.lines[0]["identical"] is True, again.err
        assert [again.lines[0][part] for part in ("loaded", "guide", "micro")] == [line[part] for part in ("loaded", "guide", "micro")]


def test_a_guide_and_a_long_negative_prompt_are_drawn_again(cli: Cli, model: Path) -> None:
    words = ("--guide", "interval=0.2/0.6", "--negative", "a thick outline, and a long list of other things", "--steps", 5)
    made = cli("generate", "a cat", "--model", model, "--json", *words)
    again = cli("generate", "--again", made.lines[0]["path"], "--json")
    assert again.code == 0 and again.lines[0]["identical"] is True, again.err


def test_records_of_before_are_read(cli: Cli, model: Path) -> None:
    made = cli("generate", "a cat", "--model", model, "--out", "cat.png", "--json").lines[0]
    with Image.open("cat.png") as opened:
        picture, text = opened.convert("RGB"), opened.text[png.CHUNK]  # type: ignore[attr-defined]
    record, new = png.read(Path("cat.png")), ("loaded", "guide", "micro", "refiner", "picture", "strength")
    assert all(f'"{name}"' in text for name in new) and made["loaded"]["ways"] == "original"
    former = {name: value for name, value in png.to_dict(record).items() if name not in new}
    info = PngInfo()
    info.add_text(png.CHUNK, json.dumps(former))
    picture.save("former.png", pnginfo=info)
    assert cli("generate", "--again", "former.png", "--json").lines[0]["identical"] is True
    png.save(picture, replace(record, guide={"interval": [0.9, 0.1]}), Path("later.png"))
    ran = cli("generate", "--again", "later.png")
    assert ran.code == 2 and "the record in later.png cannot be read: the guidance interval" in ran.err


@pytest.mark.parametrize(
    ("text", "guide"),
    [
        ("everywhere", Guide()),
        ("interval=0.2/0.8", Guide((0.2, 0.8))),
        ("channels=3, renorm=picture", Guide(channels=3, renorm="picture")),
        ("interval=0/1", Guide()),
    ],
)
def test_a_guide_as_it_is_written(text: str, guide: Guide) -> None:
    assert parse_guide(text) == guide


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "": "says ''",
        "0.2/0.8": "says '0.2/0.8'",
        "intervals=0.2/0.8": "did you mean 'interval'",
        "interval=0.2": "interval=0.2/0.8,channels=3",
        "interval=0.2-0.8": "Guide.interval is '0.2-0.8'",
        "interval=0.8/0.2": "the guidance interval is (0.8, 0.2)",
        "interval=a/b": "Guide.interval[0] is 'a'",
        "channels=2,channels=3": "says 'channels=3'",
        "channels=-1": "acts on -1 channels",
        "channels=9": "this model's latents have 4",
        "renorm=row": "Guide.renorm is 'row'",
        "interval=0.01/0.02": "where no step is",
    }.items(),
)
def test_a_guide_that_is_none(text: str, said: str, cli: Cli, model: Path) -> None:
    ran = cli("generate", "a cat", "--model", model, "--guide", text)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err and not list(Path().rglob("*.png")), ran.err


def test_a_guide_without_guidance(cli: Cli, model: Path) -> None:
    ran = cli("generate", "a cat", "--model", model, "--guide", "channels=2", "--guidance", 1)
    assert ran.code == 2 and "a guide (channels 2), and guidance is 1" in ran.err
    ran = cli("generate", "a cat", "--model", model, "--negative", "a dog", "--guidance", 1)
    assert ran.code == 0 and "the negative prompt was not read" in ran.err


def test_micro_as_it_is_written() -> None:
    assert parse_micro(("original_size=512,768", "aesthetic=6.5")) == (("original_size", (512.0, 768.0)), ("aesthetic", (6.5,)))
    for words, said in {("original_size",): "'original_size'", ("crop=0;0",): "crop=0;0", ("crop=0,0", "crop=1,1"): "comes twice"}.items():
        with pytest.raises(UsageError, match=said):
            parse_micro(words)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("sdxl", ("--micro", "orginal_size=1,2"), "this network reads original_size (2), crop (2), target_size (2)"),
        ("sdxl", ("--micro", "crop=1"), "micro crop = 1\n"),
        ("sdxl", ("--micro", "crop=nan,0"), "micro crop = nan, 0"),
        ("sdxl", ("--micro", "original_size=-512,768"), "none below 0"),
        ("sdxl", ("--ways", "diffusers"), "is drawn alike in both"),
        ("flux", ("--ways", "diffusers"), "is drawn alike in both"),
        ("sdxl", ("--text-tokens", 8), "text_tokens is 8"),
        ("sdxl", ("--instruction", "Draw"), "reads prompts without one"),
        ("sdxl", ("--clean-captions",), "it is for PixArt"),
        ("sana", ("--text-tokens", 0), "text_tokens is 0"),
        ("sana", ("--ways", "diffuser"), "diffuser"),
        ("dit", ("--text-tokens", 8), "text_tokens is 8"),
    ],
)
def test_an_option_that_changes_nothing(
    name: str, words: tuple[object, ...], said: str, cli: Cli, published: Callable[[str], Path]
) -> None:
    ran = cli("generate", "a fox", "--model", published(name), "--size", 16, *words)
    assert ran.code == 2 and said in ran.err + ran.out and "Traceback" not in ran.err and not list(Path().rglob("*.png")), ran.err


def test_schnell_reads_other_numbers_of_tokens_in_both_ways(published: Callable[[str], Path]) -> None:
    assert sfumato.load(published("schnell"), ways="diffusers").loaded == {"ways": "diffusers"}
