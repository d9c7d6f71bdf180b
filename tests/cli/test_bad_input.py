"""Bad input: a message that teaches, the right exit code, no traceback, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sfumato.cli.options as options
from sfumato.core import files

from .conftest import Cli

PROGRAM = [sys.executable, "-m", "sfumato"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("words", "said"),
    {
        (): "no prompt was given",
        ("",): "the prompt is empty",
        ("  ",): "the prompt is empty",
        ("a cat", "--size", "30"): "the nearest is 32x32",
        ("a cat", "--size", "big"): "'big' is not a size",
        ("a cat", "--size", "33x47"): "the nearest is 32x48",
        ("a cat", "--solver", "eular"): "did you mean 'euler'",
        ("a cat", "--steps", "0"): "steps is 0",
        ("a cat", "--steps", "10000"): "from 1 to 1000",
        ("a cat", "--guidance", "-1"): "guidance is -1",
        ("a cat", "--shift", "0"): "shift is 0",
        ("a cat", "--num", "0"): "num is 0",
        ("a cat", "--batch", "0"): "batch is 0",
        ("a cat", "--device", "warp"): "device 'warp'",
        ("a cat", "--prompts", "missing.txt"): "cannot read the prompts in missing.txt",
        ("a cat", "--num", "2", "--out", "one.png"): "do not fit in the one file",
        ("a cat", "--sheet", "sheet.jpg"): "is not a .png",
        ("a cat", "--out", "foo.jpg"): "--out foo.png",
        ("--again", "a.png", "--out", "foo.webp"): "--out foo.png",
        ("a cat", "--num", "1000000000"): "1000000000 pictures in one command",
        ("a cat", "--binned", "no"): "has no bins",
        ("a cat", "--best-of", "2", "--scorer", "jugde"): "did you mean 'judge'? known: critic, judge",
        ("a cat", "--refiner", "m", "--refine-at", "1.5"): "--refine-at",
    }.items(),
)
def test_a_wrong_request(cli: Cli, model: Path, words: tuple[str, ...], said: str) -> None:
    ran = cli("generate", *words, "--model", model)
    assert ran.code == 2 and said in ran.err and "None" not in ran.err, ran.err
    assert "Traceback" not in ran.err and not list(Path().rglob("*.*"))


@pytest.mark.parametrize(
    "words",
    [
        *(("train", "model", "--data", "d", "--out", "o", f"--{option}") for option in ("languages", "scenes", "forms")),
        ("inspect", "--heatmap", "a cat", "--blocks"),
        ("data", "emoji", "--out", "o", "--styles"),
    ],
)
def test_an_option_that_names_nothing(cli: Cli, words: tuple[str, ...]) -> None:
    ran = cli(*words)
    assert ran.code == 2 and f"{words[-1]} names nothing\n  name at least one: {words[-1]} " in ran.err, ran.err


def test_words_are_offered_alone_and_in_their_order(cli: Cli) -> None:
    ran = cli("generate", "a cat", "--dtype", "int8")
    said = " ".join((ran.err + ran.out).replace("\u2502", " ").split())
    assert ran.code == 2 and "('float32', 'bfloat16', 'float16')" in said, said


@pytest.mark.parametrize(
    ("words", "said"),
    {
        ("generat", "a cat"): "did you mean 'generate'",
        ("data", "emojis"): "did you mean 'emoji'",
        ("a red heart",): 'sfumato generate "a red heart"',
        ("--seed", "3"): "the command comes first",
        ("generate", "a cat", "--sede", "3"): "--seed",
        ("generate", "a cat", "--seed", "x"): "x",
        ("generate", "a cat", "--model", "emoji-mmdot"): "unknown model 'emoji-mmdot'",
    }.items(),
)
def test_a_wrong_name(cli: Cli, words: tuple[str, ...], said: str) -> None:
    ran = cli(*words)
    assert ran.code == 2 and said in ran.err + ran.out and "Traceback" not in ran.err, ran.err


def test_did_you_mean_a_shipped_model(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.pipelines.folder.shipped", lambda: ["emoji-mmdit"])
    ran = cli("generate", "a cat", "--model", "emoji-mmdot")
    assert ran.code == 2 and "did you mean 'emoji-mmdit'" in ran.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no prompt"),
        (b'{"prompt": "a cat"}\nnot json', "rows.jsonl, line 2 is not JSON"),
        (b'{"prompt": "a cat"}\n\n{"prompt": "a dog", "sede": 3}', "rows.jsonl, line 3: unknown field of Line 'sede'"),
        (b'{"prompt": "a dog", "sede": 3}', "did you mean 'seed'"),
        (b'{"seed": 3}', "lacks prompt"),
        (b'{"prompt": " "}', "rows.jsonl, line 1 is empty"),
        (b'{"prompt": "a cat", "seed": "three"}', "rows.jsonl, line 1"),
        (b'{"prompt": "a cat", "size": "large"}', "rows.jsonl, line 1: size 'large'"),
        (b'{"prompt": "a cat", "steps": 0}', "rows.jsonl, line 1: steps is 0"),
        (b'{"prompt": "a cat"}\n{"prompt": "a dog", "size": 30}', "the nearest is 32x32"),
        (b"[1]", "is not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_wrong_prompt_files(cli: Cli, model: Path, content: bytes, said: str) -> None:
    Path("rows.jsonl").write_bytes(content)
    ran = cli("generate", "--prompts", "rows.jsonl", "--model", model)
    assert ran.code == 2 and said in ran.err, ran.err
    assert not list(Path().rglob("*.png"))


def test_damaged_missing_and_pickled_weights(cli: Cli, model: Path) -> None:
    copy = Path("copy")

    def ran() -> Any:
        return cli("generate", "a cat", "--model", copy)

    shutil.copytree(model, copy)
    weights = copy / "transformer" / WEIGHTS
    expected = json.loads((copy / "sfumato.json").read_text())["checksums"][f"transformer/{WEIGHTS}"]
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    damaged = ran()
    assert damaged.code == 1 and str(weights) in damaged.err and expected in damaged.err and files.sha256(weights) in damaged.err
    weights.unlink()
    assert ran().code == 1 and "missing file" in ran().err and expected in ran().err
    (copy / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert ran().code == 1 and "pickle" in ran().err and "safetensors" in ran().err
    assert not list(Path().rglob("*.png"))


def test_nothing_is_overwritten_and_no_model_is_loaded_to_find_out(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("generate", "a cat", "--model", model).code == 0
    before = Path("out/a-cat-0.png").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(options, "load_pipeline", lambda *_: pytest.fail("the model was loaded"))
        one = cli("generate", "a cat", "--model", model, "--steps", 3)
        many = cli("generate", "a cat", "a cat", "a dog", "--model", model)
    assert one.code == 1 and "exists" in one.err and "--overwrite" in one.err
    assert many.code == 1 and "out/a-cat-0.png" in many.err
    assert Path("out/a-cat-0.png").read_bytes() == before
    assert cli("generate", "a cat", "--model", model, "--steps", 3, "--overwrite").code == 0
    assert Path("out/a-cat-0.png").read_bytes() != before


def test_places_that_cannot_be_written(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_text("")
    for place in ("file/pictures", "file", "/proc/sfumato"):
        ran = cli("generate", "a cat", "--model", model, "--out", place)
        assert ran.code == 1 and place in ran.err and "Traceback" not in ran.err

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    ran = cli("generate", "a cat", "--model", model)
    assert ran.code == 1 and "No space left on device" in ran.err and not os.listdir("out")


def test_a_traceback_only_with_debug(cli: Cli, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(options, "load_pipeline", broken)
    quiet, loud = cli("generate", "a cat", "--model", model), cli("generate", "a cat", "--model", model, "--debug")
    assert quiet.code == loud.code == 1
    assert "a fault of ours" in quiet.err and "--debug" in quiet.err and "Traceback" not in quiet.err
    assert "Traceback" in loud.err


def test_ctrl_c_keeps_what_was_finished(model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"picture number {i}" for i in range(2000)))
    command = [*PROGRAM, "generate", "--prompts", str(prompts), "--model", str(model), "--out", "out", "--steps", "8"]

    def listen() -> None:
        """Tests that run in the background of a script inherit a SIGINT that is ignored."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, preexec_fn=listen) as run:
        assert run.stdout is not None and run.stderr is not None
        first = run.stdout.readline().strip()
        run.send_signal(signal.SIGINT)
        rest, said = run.communicate(timeout=60)
    printed = [first, *rest.split()]
    assert run.returncode == 130, said
    assert "of 2000 pictures are finished and kept" in said and "Traceback" not in said
    kept = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {Path(path).name for path in printed} <= set(kept) and 1 <= len(kept) <= len(printed) + 1
    assert all(name.endswith(".png") and not name.startswith(".") for name in kept)


def test_a_reader_that_goes_away(model: Path, tmp_path: Path) -> None:
    command = [*PROGRAM, "generate", "a cat", "--model", str(model), "--num", "50", "--out", "out"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        said = run.stderr.read()
        run.wait(timeout=60)
    assert run.returncode == 1 and said == ""


def test_help_is_quick_and_loads_no_torch() -> None:
    code = "import sys; from sfumato.cli import main; main({words}); print(sorted({{'torch', 'numpy', 'tyro'}} & set(sys.modules)))"
    for words, loaded in ((["--help"], []), (["train"], []), (["--version"], []), *(([*v.split(), "--help"], ["tyro"]) for v in VERBS)):
        done = subprocess.run([sys.executable, "-c", code.format(words=words)], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == str(loaded), (words, done.stdout)
    started = time.process_time(), os.times().children_user
    subprocess.run([*PROGRAM, "--help"], check=True, capture_output=True)
    # Processor time, because the machine that tests may be busy; benchmarks/startup.py measures the wall.
    assert os.times().children_user - started[1] < 0.5


VERBS = (
    "generate",
    "data emoji",
    "data scenes",
    "train codec",
    "train model",
    "train judge",
    "train critic",
    "train perceptual",
    "evaluate",
    "schedule",
    "reproduce",
)
