"""Every option of `sfumato generate` bites, and every field of a model's sampling defaults and of a call's settings."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sfumato.cli.generate import Generate
from sfumato.pipelines import Defaults, TextToImage, load
from sfumato.pipelines.settings import Draw
from sfumato.sampling.guidance import Guide
from sfumato.sampling.schedules import Layout
from sfumato.surgery import fresh

from .conftest import Cli, small_judge
from .knobs import Knob, redrawn, refused

PLAIN = ("--json", "--out")
GENERATE = {
    "prompt": Knob(("a dog",), lambda plain, turned: len(turned.lines) == 2),
    "prompts": Knob(("--prompts", "more.txt"), lambda plain, turned: [x["prompt"] for x in turned.lines] == ["a cat", "a bird"]),
    "model": Knob(("--model", "nowhere"), refused("unknown model 'nowhere'")),
    "num": Knob(("--num", "2"), lambda plain, turned: [x["seed"] for x in turned.lines] == [0, 1]),
    "seed": Knob(("--seed", "5"), redrawn("seed")),
    "steps": Knob(("--steps", "3"), redrawn("steps")),
    "guidance": Knob(("--guidance", "2"), redrawn("guidance")),
    "cfg": Knob(("--cfg", "2"), refused("this network is not told a guidance")),
    "binned": Knob(("--binned", "yes"), refused("this model has no bins")),
    "layout": Knob(("--layout", "released"), redrawn("layout")),
    "negative": Knob(("--negative", "a dog"), redrawn("negative")),
    "size": Knob(("--size", "48x32"), redrawn("size")),
    "solver": Knob(("--solver", "heun"), redrawn("solver")),
    "shift": Knob(("--shift", "3"), redrawn("shift")),
    "guide": Knob(("--guide", "interval=0/0.6"), redrawn("guide")),
    "micro": Knob(("--micro", "crop=0,0"), refused("this network reads none")),
    "from_picture": Knob(("--from-picture", "start.png"), redrawn("picture")),
    "strength": Knob(("--strength", "0.5"), refused("there is no picture to draw anew")),
    "refiner": Knob(("--refiner", "second", "--refine-at", "0.3"), redrawn("refiner")),
    "refine_at": Knob(("--refine-at", "0.3"), refused("none was named")),
    "ways": Knob(("--ways", "diffusers"), refused("ways is 'diffusers'")),
    "clean_captions": Knob(("--clean-captions",), refused("clean_captions is True")),
    "instruction": Knob(("--instruction", ""), refused("instruction is ''")),
    "text_tokens": Knob(("--text-tokens", "8"), refused("text_tokens is 8")),
    "device": Knob(("--device", "meta:9"), lambda plain, turned: turned.code != 0),
    "dtype": Knob(("--dtype", "bfloat16"), redrawn("dtype")),
    "pack": Knob(("--pack",), lambda plain, turned: turned.lines[0]["packed"] and not plain.lines[0]["packed"]),
    "batch": Knob(("--batch", "2", "--num", "2"), lambda plain, turned: [x["frame"][0] for x in turned.lines] == [2, 2]),
    "best_of": Knob(("--best-of", "4", "--scorer", "eye"), lambda plain, turned: turned.lines[0]["chosen"]["of"] == 4),
    "scorer": Knob(("--scorer", "judge"), refused("has nothing to choose from")),
    "lora": Knob(("--lora", "style.safetensors:0.5"), redrawn("loras")),
    "lora_partial": Knob(("--lora-partial",), refused("none was named")),
    "out": Knob((), lambda plain, turned: plain.lines[0]["path"] != turned.lines[0]["path"]),
    "sheet": Knob(("--sheet", "all.png"), lambda plain, turned: Path("all.png").is_file()),
    "again": Knob(("--again", "x.png"), refused("takes no prompt")),
    "json": Knob((), lambda plain, turned: turned.out.startswith("{")),
    "overwrite": Knob(("--overwrite",), lambda plain, turned: turned.code == 0),
    "quiet": Knob(("--quiet",), lambda plain, turned: turned.code == 0),
    "debug": Knob(("--debug", "--model", "nowhere"), refused("Traceback")),
}


def test_every_option_of_generate(cli: Cli, model: Path) -> None:
    assert set(GENERATE) == {f.name for f in fields(Generate)}
    Path("more.txt").write_text("a bird")
    small_judge().save(Path("eye"))
    style(model)
    second(model)
    Image.new("RGB", (32, 32), "teal").save("start.png")
    plain = cli("generate", "a cat", *PLAIN, "plain", "--model", model)
    assert plain.code == 0
    for name, knob in GENERATE.items():
        chosen = () if "--model" in knob.words else ("--model", model)
        turned = cli("generate", "a cat", *knob.words, *PLAIN, name, *chosen)
        assert knob.bites(plain, turned), (name, turned)
    assert cli("generate", "a cat", *PLAIN, "plain", "--model", model).code == 1  # what --overwrite is for
    assert cli("generate", "a cat", *PLAIN, "plain", "--model", model, "--overwrite").code == 0


def style(model: Path) -> None:
    """style.safetensors, a LoRA of the model."""
    pipe = load(model)
    lora = fresh(pipe.denoiser.net, 2)
    for delta in lora.deltas.values():
        torch.nn.init.normal_(delta.up, std=0.3)
    pipe.save_lora(lora, "style.safetensors")


def second(model: Path) -> None:
    """second, a model with other weights."""
    pipe = load(model)
    for parameter in pipe.denoiser.net.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    pipe.save("second")


def test_quiet_hides_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    from sfumato.cli.verb import progress_bars

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for quiet in (True, False):
        with progress_bars(quiet, pictures=2) as update:
            update("pictures", 1, 2)
        assert ("pictures" in capsys.readouterr().err) is not quiet


DEFAULTS: dict[str, Any] = {
    "size": (48, 32),
    "steps": 3,
    "guidance": 2.0,
    "solver": "heun",
    "shift": 3.0,
    "layout": Layout("released"),
    "guide": Guide(channels=2),
}

# Fields that other files test: name the test there.
OTHER_TESTS: dict[str, dict[str, str]] = {
    "Defaults": {
        "cfg": "tests/pipelines/test_flux.py",
        "bins": "tests/pipelines/test_pixart_sizes.py",
        "other_sizes": "tests/pipelines/test_lumina.py",
    },
    "Draw": {
        "cfg": "tests/pipelines/test_flux.py",
        "binned": "tests/pipelines/test_pixart_sizes.py",
        "drawn": "tests/pipelines/test_pixart_sizes.py",
        "negative": "test_every_option_of_generate",
        "part": "tests/pipelines/test_going_on.py",
        "micro": "tests/pipelines/test_stable_diffusion.py",
        "policies": "tests/contract",
        "loras": "tests/pipelines/test_lora.py",
        "frame": "test_generate.py::test_again_is_bit_for_bit_even_out_of_a_batch",
    },
}


def test_every_field_of_defaults_and_draw(model: Path) -> None:
    pipe = load(model)
    assert set(DEFAULTS) == {f.name for f in fields(Defaults)} - set(OTHER_TESTS["Defaults"])
    settings = {f.name for f in fields(Draw)}
    assert settings - set(DEFAULTS) == set(OTHER_TESTS["Draw"])
    plain = drawn(pipe)
    for name, value in DEFAULTS.items():
        assert plain != drawn(pipe, **{name: value}), name
        pipe.defaults = replace(load_defaults(pipe), **{name: value})
        assert plain != drawn(pipe), name
        pipe.defaults = Defaults(size=(32, 32), steps=2)


def load_defaults(pipe: TextToImage) -> Defaults:
    return Defaults(size=pipe.defaults.size, steps=pipe.defaults.steps)


def drawn(pipe: TextToImage, **options: Any) -> list[float]:
    return list(pipe("a cat", **options).images.flatten().tolist())
