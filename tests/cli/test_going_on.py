"""`--refiner` and `--from-picture`: what a picture goes on from stands in its record, is drawn again bit for bit, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.pipelines.peers import flux, refiner, saved, sdxl

import sfumato
from sfumato.cli import png, sources
from sfumato.core.errors import UsageError
from sfumato.core.files import sha256
from sfumato.pipelines import Refined, load, redraw

from .conftest import Cli
from .knobs import pixels

PROMPTS = ("a fox", "a long story of a house on a hill, told twice")


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("xl")
    return {"base": saved(sdxl(), root / "base"), "refiner": saved(refiner(), root / "refiner")}


@pytest.fixture
def other(model: Path, tmp_path: Path) -> Path:
    """The tiny model with other weights."""
    pipe = load(model)
    for parameter in pipe.denoiser.net.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return pipe.save(tmp_path / "models" / "other")


@pytest.fixture
def photo(cli: Cli) -> Path:
    """60 x 40 pixels, half transparent, to be held upright: 40 x 60."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise, "RGBA").save("photo.png", exif=exif)
    return Path("photo.png")


def again(cli: Cli, path: str, *words: object) -> dict[str, Any]:
    ran = cli("generate", "--again", path, "--json", "--overwrite", *words)
    assert ran.code == 0 and ran.lines[0]["identical"] is True, ran.err
    return dict(ran.lines[0])


def test_a_refiner_goes_on_and_is_drawn_again(cli: Cli, xl: dict[str, Path]) -> None:
    words = ("--model", xl["base"], "--refiner", xl["refiner"], "--size", "24x16", "--steps", 6, "--seed", 3, "--batch", 2, "--json")
    micro = ("--micro", "original_size=500,400", "--micro", "aesthetic=2.5")
    made = cli("generate", *PROMPTS, *words, *micro, "--negative", "a thick outline", "--guidance", 3)
    assert made.code == 0, made.err
    both = Refined(sfumato.load(xl["base"]), sfumato.load(xl["refiner"]))
    told = {"original_size": (500, 400), "aesthetic": (2.5,)}
    expected = both(PROMPTS, seed=3, size=(16, 24), steps=6, micro=told, negative="a thick outline", guidance=3)
    assert pixels(made) == [picture.tobytes() for picture in expected]
    first, second = (made.lines[0], made.lines[0]["refiner"])
    assert first["micro"] == {"original_size": [500.0, 400.0]}
    assert second["micro"] == {"original_size": [500.0, 400.0], "aesthetic": [2.5]} and second["at"] == 0.8
    assert second["model"]["path"] == str(xl["refiner"]) and second["model"]["sha256"] == both.refiner.identity["sha256"]
    for line in made.lines:
        assert again(cli, line["path"])["refiner"] == line["refiner"]


def test_models_with_settings_of_their_own_are_drawn_again_with_them(cli: Cli, model: Path, other: Path) -> None:
    facts = json.loads((other / "sfumato.json").read_text())
    facts["defaults"] |= {"guidance": 2.0, "solver": "heun", "guide": {"interval": [0.1, 0.4]}}
    (other / "sfumato.json").write_text(json.dumps(facts))
    words = ("--model", model, "--refiner", other, "--refine-at", 0.5, "--steps", 4, "--pack", "--batch", 3, "--json")
    made = cli("generate", *PROMPTS, "a cat", *words)
    assert made.code == 0, made.err
    line = made.lines[0]
    assert (line["solver"], line["guidance"]) == ("euler", 4.0)
    assert [line["refiner"][name] for name in ("solver", "guidance", "packed", "at")] == ["heun", 2.0, True, 0.5]
    assert Path(line["path"]).read_bytes() == Path(again(cli, line["path"])["path"]).read_bytes()
    # Moved, it is found where it is said to be; another model in its place is refused.
    record, moved = png.read(Path(line["path"])), Path("moved")
    other.rename(moved)
    lost = cli("generate", "--again", line["path"], "--overwrite")
    assert lost.code == 2 and "the refiner 'tiny' that drew the picture is not in" in lost.err and "--refiner FOLDER" in lost.err
    again(cli, line["path"], "--refiner", moved)
    wrong = cli("generate", "--again", line["path"], "--refiner", model, "--overwrite")
    assert wrong.code == 1 and "by another refiner" in wrong.err and record.refiner and record.refiner.model.sha256 in wrong.err


def test_a_refiner_that_is_told_no_guidance_after_a_model_that_is(cli: Cli, tmp_path: Path) -> None:
    base, second = saved(flux(), tmp_path / "dev"), saved(flux(guided=False), tmp_path / "schnell")
    words = ("--model", base, "--refiner", second, "--refine-at", 0.5, "--size", 16, "--steps", 4, "--shift", 2, "--layout", "released")
    made = cli("generate", *PROMPTS, *words, "--batch", 2, "--text-tokens", 20, "--json")
    assert made.code == 0, made.err
    first, refined = made.lines[0], made.lines[0]["refiner"]
    assert (first["cfg"], refined["cfg"]) == (1.0, None) and first["frame"][2] != refined["tokens"] and first["loaded"]["text_tokens"] == 20
    again(cli, first["path"])


def test_the_best_of_several_refined_pictures(cli: Cli, model: Path, other: Path) -> None:
    from .conftest import small_judge

    small_judge().save(Path("eye"))
    words = ("--model", model, "--refiner", other, "--refine-at", 0.5, "--best-of", 3, "--scorer", "eye", "--batch", 2, "--json")
    made = cli("generate", "a cat", *words)
    assert made.code == 0 and made.lines[0]["chosen"]["of"] == 3, made.err
    again(cli, made.lines[0]["path"])


@pytest.mark.parametrize(("size", "strength"), [("32x48", 0.5), ("32", 1.0), ("48x32", None)])
def test_a_picture_is_drawn_over_and_again(size: str, strength: float | None, cli: Cli, model: Path, photo: Path) -> None:
    words = ("--model", model, "--from-picture", photo, "--size", size, "--steps", 5, "--batch", 2, "--json")
    words = words if strength is None else (*words, "--strength", strength)
    made = cli("generate", *PROMPTS, *words)
    assert made.code == 0, made.err
    line = made.lines[1]
    assert line["picture"] == {"path": "photo.png", "sha256": sha256(photo)} and line["strength"] == (strength or 0.3)
    assert line["size"] == [int(n) for n in (size if "x" in size else f"{size}x{size}").split("x")][::-1]
    assert Path(line["path"]).read_bytes() == Path(again(cli, line["path"])["path"]).read_bytes()
    assert pixels(made) != pixels(cli("generate", *PROMPTS, *words, "--out", "b", "--strength", 0.8))


def test_a_picture_of_a_possible_size_is_taken_as_it_is(cli: Cli, model: Path, photo: Path) -> None:
    with Image.open(photo) as opened:
        opened.convert("RGB").crop((0, 0, 48, 32)).save("fits.png")
    made = cli("generate", "a cat", "--model", model, "--from-picture", "fits.png", "--strength", 0.5, "--json")
    assert made.code == 0, made.err
    with Image.open("fits.png") as opened:
        start = torch.from_numpy(np.array(opened)).permute(2, 0, 1).float() / 127.5 - 1
    assert pixels(made) == [redraw(load(model), "a cat", start, 0.5)[0].tobytes()]


def test_a_picture_is_held_upright_over_white_and_cropped_around_the_middle(cli: Cli) -> None:
    stripes = Image.new("RGBA", (90, 30), (255, 0, 0, 255))
    stripes.paste((0, 0, 255, 255), (30, 0, 60, 30))
    stripes.paste((0, 0, 0, 0), (0, 0, 90, 15))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter: what was above is then right
    stripes.save("stripes.png", exif=exif)
    source = sources.read("stripes.png")
    assert source.size == (90, 30)
    whole, middle = source.pixels((90, 30)), source.pixels((30, 30))
    assert middle.equal(whole[:, 30:60]) and source.pixels((15, 15)).shape == (3, 15, 15)
    assert whole[:, :, 15:].eq(1).all() and middle[:, 0, 0].tolist() == [-1, -1, 1] and whole[:, 0, 0].tolist() == [1, -1, -1]
    Image.new("RGB", (90, 30)).save("stripes.png")
    with pytest.raises(UsageError, match="was written to while"):
        source.pixels((30, 30))


def test_the_picture_that_was_started_from_has_to_be_there(cli: Cli, model: Path, photo: Path) -> None:
    made = cli("generate", "a cat", "--model", model, "--from-picture", photo, "--size", 32, "--json").lines[0]
    kept = photo.rename("kept.png")
    gone = cli("generate", "--again", made["path"])
    assert gone.code == 1 and "was drawn from the picture photo.png" in gone.err and made["picture"]["sha256"] in gone.err
    again(cli, made["path"], "--from-picture", kept)
    Image.new("RGB", (32, 32)).save(photo)
    changed = cli("generate", "--again", made["path"], "--overwrite")
    assert changed.code == 1 and "was drawn from another picture" in changed.err and sha256(photo) in changed.err
    plain = cli("generate", "a dog", "--model", model, "--json").lines[0]
    for option in ("--from-picture", "--refiner"):
        refused = cli("generate", "--again", plain["path"], option, kept)
        assert refused.code == 2 and f"leave out {option}" in refused.err
    looked = cli("inspect", "--heatmap", made["path"])
    assert looked.code == 2 and "was drawn from the picture photo.png" in looked.err


def test_lines_of_a_file_start_from_pictures_of_their_own(cli: Cli, model: Path, photo: Path) -> None:
    rows = [{"prompt": "one"}, {"prompt": "two", "from_picture": "photo.png", "size": 32, "strength": 0.5}]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one, two = cli("generate", "--prompts", "rows.jsonl", "--model", model, "--batch", 2, "--json").lines
    assert one["picture"] is None and two["picture"]["sha256"] == sha256(photo) and two["strength"] == 0.5
    Path("rows.jsonl").write_text(json.dumps({"prompt": "three", "strength": 0.5}))
    ran = cli("generate", "--prompts", "rows.jsonl", "--model", model)
    assert ran.code == 2 and "rows.jsonl, line 1: strength is 0.5, and there is no picture" in ran.err


def test_what_nothing_goes_on_from_is_refused(cli: Cli, model: Path, other: Path, photo: Path, xl: dict[str, Path]) -> None:
    Path("text.png").write_text("no picture")
    start = ("--from-picture", photo)
    for words, code, said in (
        (("--from-picture", "none.png"), 2, "cannot read the picture 'none.png': No such file"),
        (("--from-picture", "text.png"), 2, "text.png is no picture to start from"),
        ((*start, "--strength", 0), 2, "strength is 0.0"),
        ((*start, "--strength", "nan"), 2, "strength is nan"),
        ((*start, "--strength", 1.5), 2, "up to 1"),
        (start, 2, "photo.png: size 40x60 is not possible"),
        ((*start, "--size", 33), 2, "the nearest is 32x32"),
        ((*start, "--size", 32, "--binned", "yes"), 2, "binned, and a picture to start from"),
        ((*start, "--size", 32, "--steps", 8, "--guide", "interval=0.8/1"), 2, "where no step is"),
        ((*start, "--size", 32, "--refiner", other), 2, f"--model {other} --from-picture photo.png"),
        ((*start, "--size", 32, "--out", "photo.png", "--overwrite"), 2, "would be written over"),
        (("--refiner", other, "--refine-at", 1), 2, "--refine-at"),
        (("--refiner", other), 2, "2 steps, of which the refiner takes those after 0.8 of the way"),
        (("--refiner", "nowhere"), 2, "unknown model 'nowhere'"),
        (("--refiner", xl["refiner"], "--steps", 8), 2, "a refiner on Betas"),
        (("--refiner", other, "--lora", photo), 2, "a LoRA belongs to one model"),
    ):
        ran = cli("generate", "a cat", "--model", model, *words)
        assert ran.code == code and said in ran.err and "Traceback" not in ran.err, (words, ran.err)
    assert not list(Path().rglob("a-cat*.png"))
