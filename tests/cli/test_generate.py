"""`sfumato generate`: files, records, prompts from files, and the same picture again."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sfumato.cli.jobs import slug
from sfumato.cli.png import CHUNK, read
from sfumato.evaluate import critic
from sfumato.evaluate.scorers import load_scorer
from sfumato.pipelines import load
from sfumato.pipelines.best_of import candidate_seeds

from .conftest import Cli, small_critic, small_judge


def pixels(path: str | Path) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def test_a_picture_its_path_and_its_record(cli: Cli, model: Path) -> None:
    ran = cli("generate", "A red heart, noto style!", "--model", model, "--seed", 3)
    assert (ran.code, ran.out) == (0, "out/a-red-heart-noto-style-3.png\n")
    with Image.open("out/a-red-heart-noto-style-3.png") as picture:
        assert picture.size == (32, 32)
        record = json.loads(picture.text[CHUNK])  # type: ignore[attr-defined]
    assert record["prompt"] == "A red heart, noto style!"
    assert (record["seed"], record["steps"], record["size"], record["frame"][:2]) == (3, 2, [32, 32], [1, 0])
    assert (
        record["model"]["sha256"]
        == json.loads((model / "sfumato.json").read_text())["checksums"]["transformer/diffusion_pytorch_model.safetensors"]
    )
    assert record["machine"]["torch"] == torch.__version__ and record["machine"]["threads"] == torch.get_num_threads()
    assert not list(Path("out").glob(".*"))


def test_many_pictures_and_their_sheet(cli: Cli, model: Path) -> None:
    ran = cli("generate", "a cat", "a dog", "a cat", "--model", model, "--num", 2)
    names = ["a-cat-0", "a-cat-1", "a-dog-0", "a-dog-1", "a-cat-0-copy2", "a-cat-1-copy2", "sheet"]
    assert ran.out.split() == [f"out/{name}.png" for name in names]
    assert pixels("out/a-cat-0.png") == pixels("out/a-cat-0-copy2.png") != pixels("out/a-cat-1.png")
    assert cli("generate", "a cat", "a dog", "--model", model, "--out", "b", "--sheet", "grid.png").out.split()[-1] == "grid.png"
    assert not Path("b/sheet.png").exists()


def test_json_lines(cli: Cli, model: Path) -> None:
    line = cli("generate", "a cat", "--model", model, "--json", "--out", "cat.png", "--negative", "a dog", "--size", "32x48").lines[0]
    assert line["path"] == "cat.png" and line["negative"] == "a dog" and line["size"] == [48, 32] and line["seconds"] > 0
    with Image.open("cat.png") as picture:
        assert picture.size == (32, 48)


def test_prompts_from_files_and_standard_input(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("plain.txt").write_text("a cat\n\n  a dog  \n")
    assert [line["prompt"] for line in cli("generate", "--prompts", "plain.txt", "--model", model, "--json").lines] == ["a cat", "a dog"]
    rows = [{"prompt": "one", "seed": 5, "steps": 3}, {"prompt": "two", "size": "48x32", "solver": "heun", "guidance": 1}]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one, two = cli("generate", "--prompts", "rows.jsonl", "--model", model, "--json", "--out", "rows", "--negative", "x").lines
    assert (one["seed"], one["steps"], one["negative"], one["solver"]) == (5, 3, "x", "euler")
    assert (two["seed"], two["size"], two["solver"], two["guidance"]) == (0, [32, 48], "heun", 1.0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "from a pipe"}\n')))
    assert cli("generate", "--prompts", "-", "--model", model, "--out", "pipe").out == "pipe/from-a-pipe-0.png\n"


def test_the_best_of_several_is_drawn_again_alone(cli: Cli, model: Path) -> None:
    small_judge().save(Path("eye"))
    words = ("generate", "a cat", "--model", model, "--seed", 7, "--json")
    ran = cli(*words, "--best-of", 5, "--scorer", "eye")
    line = ran.lines[0]
    assert ran.code == 0 and "chosen by eye (" in ran.err and "let another scorer rate" in ran.err
    assert line["chosen"]["of"] == 5 and line["chosen"]["seed"] == 7 and line["chosen"]["scorer"].startswith("eye (")
    assert line["path"] == "out/a-cat-7.png" and line["seed"] in candidate_seeds(7, 5) and line["frame"][:2] == [1, 0]
    # Candidate by candidate, none scores more than the one that was kept.
    scorer = load_scorer("eye")
    drawn = [load(model)("a cat", seed=seed).images for seed in candidate_seeds(7, 5)]
    scores = [float(scorer(images, ["a cat"])) for images in drawn]
    assert line["chosen"]["score"] == pytest.approx(max(scores)) and candidate_seeds(7, 5)[scores.index(max(scores))] == line["seed"]
    for batch, out in ((1, "out"), (3, "three")):
        assert cli(*words, "--best-of", 5, "--scorer", "eye", "--batch", batch, "--out", out, "--overwrite").code == 0
        again = cli("generate", "--again", f"{out}/a-cat-7.png", "--json")
        assert again.lines[0]["identical"] is True and again.lines[0]["chosen"] == read(Path(f"{out}/a-cat-7.png")).chosen.__dict__
        assert Path(f"{out}/a-cat-7.png").read_bytes() == Path(f"{out}/a-cat-7-again.png").read_bytes()


def test_the_critic_chooses_and_its_name_travels(cli: Cli, model: Path) -> None:
    small_critic().save(Path("second"))
    ran = cli("generate", "a cat", "--model", model, "--seed", 7, "--json", "--best-of", 3, "--scorer", "second")
    assert ran.code == 0 and "chosen by second (" in ran.err, ran.err
    scorer = load_scorer("second")
    scores = [float(scorer(load(model)("a cat", seed=seed).images, ["a cat"])) for seed in candidate_seeds(7, 3)]
    chosen = ran.lines[0]["chosen"]
    assert chosen["scorer"] == scorer.name == read(Path(ran.lines[0]["path"])).chosen.scorer
    assert chosen["score"] == pytest.approx(max(scores), abs=1e-5)
    assert ran.lines[0]["seed"] == candidate_seeds(7, 3)[scores.index(max(scores))]


def test_a_critic_that_is_not_there_says_how_to_get_one(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critic, "package_files", lambda package: Path("nowhere"))
    ran = cli("generate", "a cat", "--model", model, "--best-of", 2, "--scorer", "critic")
    assert ran.code == 1 and "sfumato train critic" in ran.err and "Traceback" not in ran.err, ran.err
    assert not list(Path().rglob("*.png"))


def test_best_of_refuses_what_cannot_choose(cli: Cli, model: Path) -> None:
    Path("empty").mkdir()
    for words, wanted in {
        ("--best-of", 0): "best-of is 0",
        ("--scorer", "judge"): "has nothing to choose from",
        ("--best-of", 1, "--scorer", "judge"): "has nothing to choose from",
        ("--best-of", 2, "--scorer", "empty"): "config.json is missing",
        ("--best-of", 2): "(B, 3, 128, 128)",
    }.items():
        ran = cli("generate", "a cat", "--model", model, *words)
        assert ran.code in (1, 2) and wanted in ran.err and "Traceback" not in ran.err, ran.err
        assert not list(Path().rglob("*.png"))


@pytest.mark.parametrize(
    "options", [(), ("--pack",), ("--solver", "heun", "--steps", 3, "--negative", "a long negative prompt", "--size", "48x32")]
)
def test_again_is_bit_for_bit_even_out_of_a_batch(cli: Cli, model: Path, options: tuple[object, ...]) -> None:
    prompts = ["a cat", "a much longer prompt about a dog in a hat, noto style", "a bird"]
    assert cli("generate", *prompts, "--model", model, "--batch", 3, "--seed", 7, *options).code == 0
    for path in ("out/a-cat-7.png", "out/a-bird-7.png"):
        ran = cli("generate", "--again", path, "--json")
        assert ran.code == 0, ran.err
        assert ran.lines[0]["identical"] is True and "bit for bit" in ran.err
        assert Path(path).read_bytes() == Path(ran.lines[0]["path"]).read_bytes()
    assert ran.lines[0]["path"] == "out/a-bird-7-again.png"


def test_again_says_what_is_not_as_it_was(cli: Cli, model: Path) -> None:
    from dataclasses import replace

    from sfumato.cli import png

    cli("generate", "a cat", "--model", model, "--out", "cat.png")
    record = read(Path("cat.png"))
    other = replace(record, machine=replace(record.machine, torch="1.0", threads=100_000))
    with Image.open("cat.png") as picture:
        png.save(picture.convert("RGB"), other, Path("other.png"))
    ran = cli("generate", "--again", "other.png")
    assert ran.code == 0 and "torch was 1.0" in ran.err and "threads was 100000" in ran.err
    lied = replace(record, model=replace(record.model, sha256="0" * 64))
    with Image.open("cat.png") as picture:
        png.save(picture.convert("RGB"), lied, Path("lied.png"))
    ran = cli("generate", "--again", "lied.png")
    assert ran.code == 1 and "0" * 64 in ran.err and record.model.sha256 in ran.err and not Path("lied-again.png").exists()


def test_again_refuses_what_it_cannot_repeat(cli: Cli, model: Path) -> None:
    Image.new("RGB", (8, 8)).save("bare.png")
    Image.new("RGB", (8, 8)).save("photo.jpg")
    for words, wanted in {
        ("--again", "bare.png"): "does not say how it was made",
        ("--again", "photo.jpg"): "is not a PNG",
        ("--again", "none.png"): "there is no picture none.png",
        ("--again", "bare.png", "--steps", 3): "takes no --steps",
        ("--again", "bare.png", "--seed", 0, "--text-tokens", 9): "takes no --text-tokens, --seed",
        ("--again", "bare.png", "a cat"): "takes no prompt",
    }.items():
        ran = cli("generate", *words)
        assert ran.code == 2 and wanted in ran.err, ran.err


def test_words_beyond_the_encoder_are_named(cli: Cli, model: Path) -> None:
    ran = cli("generate", "word " * 300 + "zebra", "--model", model, "--num", 2)
    assert ran.code == 0 and ran.err.count("were not (fully) read") == 1


@pytest.mark.parametrize(
    ("prompt", "name"), [("A  red, red heart!", "a-red-red-heart"), ("赤いハート", "赤いハート"), ("❤️", "picture"), ("../../etc", "etc")]
)
def test_slug(prompt: str, name: str) -> None:
    assert slug(prompt) == name
    assert len(slug(prompt * 100).encode()) <= 100
