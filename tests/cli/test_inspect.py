"""`sfumato inspect`: anatomy, profile and heat maps, as files, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from .conftest import Cli


def test_an_anatomy(cli: Cli, model: Path) -> None:
    ran = cli("inspect", model)
    assert ran.code == 0 and "blocks.2.mlp" in ran.out and "an evaluation" in ran.out and not list(Path().iterdir())
    ran = cli("inspect", model, "--out", "seen", "--size", "48x32")
    record = json.loads(Path("seen/anatomy.json").read_text())
    assert ran.code == 0 and record["tokens"] == {"image": 6, "text": 16} and record["size"] == [32, 48]
    assert record["flops"] == sum(site["flops"] for site in record["sites"]) + record["flops_outside_the_blocks"]
    assert Path("seen/anatomy.svg").read_text().startswith("<svg")
    again = cli("inspect", model, "--out", "seen")
    assert again.code == 1 and "--overwrite" in again.err and json.loads(Path("seen/anatomy.json").read_text()) == record


def test_a_narrow_terminal_cuts_no_name(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = cli("inspect", model).out
    assert "…" not in shown and "│ blocks.0.attention " in shown


def test_a_profile(cli: Cli, model: Path) -> None:
    ran = cli("inspect", model, "--profile", "--steps", 2, "--out", "seen")
    assert ran.code == 0 and "linear" in ran.out and "unwatched" in ran.out, ran.err
    record = json.loads(Path("seen/profile.json").read_text())
    assert sum(record["shares"].values()) == pytest.approx(1) and record["settings"]["steps"] == 2
    assert {"text", "network", "codec"} <= set(record["stages"]) and record["stages"]["codec"]["shares"]["convolution"] > 0
    # Two steps of three blocks; cond and uncond are one batch.
    assert sum(length["stage"] == "network" for length in record["lengths"]) == 6
    assert Path("seen/profile.svg").read_text().startswith("<svg")


def test_heat_maps_of_a_prompt(cli: Cli, model: Path) -> None:
    ran = cli("inspect", model, "--heatmap", "a red heart", "--seed", 3)
    folder = Path("out/inspect-a-red-heart-3")
    assert ran.code == 0 and ran.out.split() == [f"{folder}/heatmap.{kind}" for kind in ("html", "png", "json")], ran.err
    record = json.loads((folder / "heatmap.json").read_text())
    assert [w["text"] for w in record["words"]] == ["a", "red", "heart"] and record["seed"] == 3
    assert "data:image/png;base64," in (folder / "heatmap.html").read_text()
    with Image.open(folder / "heatmap.png") as opened:
        assert opened.width > 900
    assert cli("inspect", model, "--heatmap", "a red heart", "--seed", 3).code == 1
    assert not list(folder.glob(".*"))


def test_heat_maps_of_a_picture_made_again(cli: Cli, model: Path) -> None:
    assert cli("generate", "a cat", "an old dog", "--model", model, "--batch", 2, "--steps", 3, "--guidance", 2, "--out", "made").code == 0
    ran = cli("inspect", "--heatmap", "made/an-old-dog-0.png")
    assert ran.code == 0 and "differs" not in ran.err, ran.err
    record = json.loads(Path("out/inspect-an-old-dog-0/heatmap.json").read_text())
    assert (record["prompt"], record["steps"], record["guidance"]) == ("an old dog", 3, 2)
    alone = cli("inspect", model, "--heatmap", "an old dog", "--steps", 3, "--guidance", 2, "--json", "--out", "alone").lines[0]
    for word, same in zip(record["words"], alone["words"], strict=True):
        assert word["mass"] == pytest.approx(same["mass"], rel=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    {
        ("--heatmap", "a cat", "--profile"): "two ways of looking",
        ("--heatmap", " "): "the prompt is empty",
        ("--heatmap", "missing.png"): "there is no picture missing.png",
        ("--heatmap", "bare.png"): "does not say how it was made",
        ("--heatmap", "bare.png", "--steps", "3"): "--steps means nothing to the heatmap of a picture",
        ("--heatmap", "a cat", "--blocks", "7"): "this network has 3",
        ("--heatmap", "a cat", "--tokens", "7"): "--tokens means nothing to the heatmap",
        ("--steps", "3"): "--steps means nothing to the anatomy",
        ("--profile", "--steps", "0"): "steps is 0",
        ("--tokens", "1"): "1 text tokens",
        ("--size", "33"): "the nearest is 32x32",
    }.items(),
)
def test_a_wrong_request(cli: Cli, model: Path, words: tuple[str, ...], said: str) -> None:
    Image.new("RGB", (8, 8)).save("bare.png")
    ran = cli("inspect", model, *words)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err, ran.err
    assert [p.name for p in Path().rglob("*") if p.is_file()] == ["bare.png"]
