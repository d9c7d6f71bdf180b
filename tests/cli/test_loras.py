"""LoRAs on the command line: drawn with, recorded, drawn with again, and looked into."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sfumato.cli.loras import Asked, parse
from sfumato.cli.png import LoraId, read
from sfumato.core.errors import UsageError
from sfumato.core.files import sha256

from .conftest import Cli

TEXT = "lora_te1_text_model_encoder_layers_0_mlp_fc1"


def pixels(path: object) -> bytes:
    with Image.open(str(path)) as picture:
        return picture.tobytes()


def test_a_picture_drawn_with_loras_is_drawn_again(cli: Cli, model: Path, made: Callable[..., Path]) -> None:
    one, two = made("one.safetensors"), made("two.safetensors", 1)
    words = ("generate", "a cat", "a dog", "--model", model, "--batch", 2, "--seed", 3)
    assert cli(*words, "--out", "plain").code == 0
    ran = cli(*words, "--lora", one, "--lora", f"{two}:-0.5", "--out", "with")
    assert ran.code == 0 and "one.safetensors: diffusers naming, changes" in ran.err and "rank 4, alpha 4" in ran.err
    assert pixels("with/a-cat-3.png") != pixels("plain/a-cat-3.png")
    assert read(Path("with/a-cat-3.png")).loras == (LoraId("one.safetensors", sha256(one), 1.0), LoraId(str(two), sha256(two), -0.5))
    assert read(Path("plain/a-cat-3.png")).loras == ()
    again = cli("generate", "--again", "with/a-dog-3.png", "--json")
    assert again.code == 0 and again.lines[0]["identical"] is True and again.lines[0]["loras"][1]["weight"] == -0.5, again.err
    assert Path("with/a-dog-3.png").read_bytes() == Path("with/a-dog-3-again.png").read_bytes()
    assert cli(*words, "--lora", f"{one}:0", "--out", "none").code == 0 and pixels("none/a-cat-3.png") == pixels("plain/a-cat-3.png")
    maps = cli("inspect", "--heatmap", "with/a-cat-3.png")
    assert maps.code == 0 and "differs" not in maps.err, maps.err


def test_again_refuses_a_lora_that_changed_or_left(cli: Cli, model: Path, made: Callable[..., Path]) -> None:
    one = made("one.safetensors")
    assert cli("generate", "a cat", "--model", model, "--lora", one, "--out", "cat.png").code == 0
    before = sha256(one)
    one.rename("former.safetensors")
    ran = cli("generate", "--again", "cat.png")
    assert ran.code == 1 and "was drawn with the LoRA one.safetensors" in ran.err and "put it back" in ran.err
    made("one.safetensors", 1)
    for verb in (("generate", "--again", "cat.png"), ("inspect", "--heatmap", "cat.png")):
        ran = cli(*verb)
        assert ran.code == 1 and before in ran.err and sha256(one) in ran.err, ran.err
    assert "takes no --lora" in cli("generate", "--again", "cat.png", "--lora", one).err and not Path("cat-again.png").exists()


def test_the_best_of_several_with_a_lora(cli: Cli, model: Path, made: Callable[..., Path]) -> None:
    from .conftest import small_judge

    small_judge().save(Path("eye"))
    ran = cli("generate", "a cat", "--model", model, "--lora", made("one.safetensors"), "--best-of", 3, "--scorer", "eye", "--json")
    assert ran.code == 0 and ran.lines[0]["loras"][0]["path"] == "one.safetensors", ran.err
    assert cli("generate", "--again", ran.lines[0]["path"], "--json").lines[0]["identical"] is True


def test_keys_that_act_on_nothing_are_refused_or_named(cli: Cli, model: Path, made: Callable[..., Path]) -> None:
    one = made("one.safetensors")
    text = {f"{TEXT}.lora_down.weight": torch.ones(2, 8), f"{TEXT}.lora_up.weight": torch.ones(8, 2)}
    save_file({**load_file(one), **text}, one)
    ran = cli("generate", "a cat", "--model", model, "--lora", one)
    assert ran.code == 1 and "a text encoder's" in ran.err and "--lora-partial" in ran.err and not list(Path("out").glob("*.png"))
    ran = cli("generate", "a cat", "--model", model, "--lora", one, "--lora-partial")
    assert ran.code == 0 and "left out: 2 keys: a text encoder's" in ran.err
    assert cli("generate", "--again", "out/a-cat-0.png", "--json").lines[0]["identical"] is True
    assert cli("inspect", one, "--against", model).code == 1


def test_a_lora_is_looked_into(cli: Cli, model: Path, made: Callable[..., Path]) -> None:
    one = made("one.safetensors")
    ran = cli("inspect", one, "--against", model)
    assert ran.code == 0 and "changes 23 of 51 Linears of this MMDiT, rank 4, alpha 4" in ran.out and "left alone:" in ran.out, ran.out
    assert cli("inspect", one, "--against", model / "transformer").out == ran.out
    record = json.loads(cli("inspect", one, "--against", model, "--json").out)
    assert record["matched"][0]["rank"] == 4 and len(record["missing"]) == 28 and record["extra"] == {}
    other = cli("inspect", one)
    assert other.code == 1 and "of another size" in other.err, "the shipped model is wider"


@pytest.mark.parametrize(
    ("words", "told"),
    {
        ("inspect", "--against", "tiny"): "--against needs a LoRA",
        ("inspect", "x.safetensors", "--device", "cpu"): "--device means nothing to the LoRA",
        ("inspect", "x.safetensors", "--out", "y"): "--out means nothing to the LoRA",
        ("inspect", "MODEL", "--profile", "--against", "MODEL"): "--against means nothing to the profile",
        ("inspect", "x.safetensors", "--against", "MODEL"): "there is no LoRA file x.safetensors",
        ("inspect", "x.pt", "--against", "MODEL"): "is pickled",
        ("inspect", "x.pt", "--against", "nowhere"): "unknown model 'nowhere'",
        ("generate", "a cat", "--lora", "nowhere.safetensors"): "there is no LoRA nowhere.safetensors",
        ("generate", "a cat", "--lora", "x.pt:0.5"): "is pickled",
        ("generate", "a cat", "--lora", "x.pt:much"): "the weight 'much' of the LoRA x.pt is no number",
        ("generate", "a cat", "--lora", "x.pt:nan"): "the weight of the LoRA x.pt is nan",
        ("generate", "a cat", "--lora-partial"): "none was named",
    }.items(),
)
def test_a_wrong_request(cli: Cli, model: Path, words: tuple[str, ...], told: str) -> None:
    torch.save({}, "x.pt")
    chosen = ("--model", model) if words[0] == "generate" else ()
    ran = cli(*(model if word == "MODEL" else word for word in words), *chosen)
    assert ran.code in (1, 2) and told in ran.err and "Traceback" not in ran.err, ran.err
    assert not list(Path().rglob("*.png"))


def test_files_and_weights_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.safetensors", "b:2", "c:d.safetensors"):
        Path(name).write_text("")
    words = {
        "a.safetensors": Asked("a.safetensors", 1.0),
        "a.safetensors:0.25": Asked("a.safetensors", 0.25),
        "a.safetensors:-1": Asked("a.safetensors", -1.0),
        "b:2": Asked("b:2", 1.0),
        "b:2:3": Asked("b:2", 3.0),
        "c:d.safetensors": Asked("c:d.safetensors", 1.0),
    }
    assert parse(list(words)) == tuple(words.values())
    for wrong in ("d", "d:1", "a.safetensors:x", "a.safetensors:inf", ""):
        with pytest.raises(UsageError):
            parse([wrong])
