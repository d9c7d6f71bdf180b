"""How long `sfumato --help` and a first picture take, whole process, and where the time goes.

    python benchmarks/startup.py [--runs 5] [--model NAME_OR_FOLDER]

Budget on 2 idle cores: help under 0.5 s, first picture (process start to file, 128 px, 20 steps) under 8 s. Without --model: the shipped
emoji-mmdit, or a random model of the default shape where none ships. Processor seconds stand beside the wall, because a busy machine
stretches the wall only.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = [sys.executable, "-m", "sfumato"]
BUDGET = {"help": 0.5, "first picture": 8.0}
PARTS = """
import time
def clock(): return time.perf_counter(), time.process_time()
last = clock()
def lap(name):
    global last
    now = clock()
    print(f"  {name:34} {now[0] - last[0]:6.2f} s wall {now[1] - last[1]:6.2f} s cpu")
    last = clock()
import torch; lap("import torch")
from sfumato.pipelines import folder; lap("import sfumato.pipelines")
from diffusers import AutoencoderKL; lap("import diffusers' AutoencoderKL")
from sfumato.text import text_encoders
text_encoders.get("minilm")(); lap("load the text encoder")
pipe = folder.load(MODEL); lap("load all (text encoder again)")
conds, _ = pipe.conditions(["a red heart, noto style"], "", 4.0); lap("encode the prompt")
from sfumato.core.rng import Rows
from sfumato.sampling.loop import draw
from sfumato.sampling.ode import DrawRequest
size = pipe.defaults.size
shape = (pipe.codec.latent_channels, *(n // pipe.codec.factor for n in size))
latents = draw(pipe._process(pipe.settle(steps=20, guidance=4.0, solver="euler")), DrawRequest(shape, conds), Rows((0,))); lap("20 steps")
pipe.decode(latents); lap("decode")
"""


def measure(command: list[str]) -> tuple[float, float]:
    """(wall, processor) seconds of a process."""
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    after = os.times()
    return time.perf_counter() - started, after.children_user + after.children_system - before.children_user - before.children_system


def random_model(folder: Path) -> Path:
    """A model of the default shapes with random weights."""
    from sfumato.backbones.mmdit import MMDiT, MMDiTConfig
    from sfumato.codecs.kl import KLCodec, KLConfig, new_autoencoder
    from sfumato.core.denoiser import Denoiser
    from sfumato.pipelines import Defaults, TextToImage
    from sfumato.text import text_encoders
    from sfumato.training.diffusion import TEXT_SLOTS

    codec = KLCodec(new_autoencoder(KLConfig()))
    pipe = TextToImage(text_encoders.get("minilm")(), Denoiser(MMDiT(MMDiTConfig())), codec, TEXT_SLOTS, Defaults())
    return pipe.save(folder / "random")


def imports(command: list[str], top: int = 12) -> list[tuple[float, str]]:
    """(seconds, package) of a process's imports by top-level package, own time summed, largest first."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command[1:]], check=True, capture_output=True, text=True)
    totals: dict[str, float] = {}
    for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", done.stderr, re.MULTILINE):
        package = name.partition(".")[0]
        totals[package] = totals.get(package, 0.0) + int(own) / 1e6
    return sorted(((seconds, package) for package, seconds in totals.items()), reverse=True)[:top]


def report(name: str, command: list[str], runs: int) -> None:
    wall, processor = zip(*(measure(command) for _ in range(runs)), strict=True)
    middle = statistics.median(wall)
    verdict = "within" if middle < BUDGET[name] else "OVER"
    print(f"{name}: median {middle:.2f} s wall (budget {BUDGET[name]} s: {verdict}), {statistics.median(processor):.2f} s cpu, {runs} runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default=None)
    asked = parser.parse_args()
    report("help", [*PROGRAM, "--help"], asked.runs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        from sfumato.pipelines import shipped

        model = asked.model or ("emoji-mmdit" if "emoji-mmdit" in shipped() else str(random_model(folder)))
        print(f"model: {model if 'random' not in model else 'random weights of the default shape'}; load average {os.getloadavg()[0]:.1f}")
        picture = [*PROGRAM, "generate", "a red heart, noto style", "--model", model, "--size", "128", "--steps", "20", "--quiet"]
        picture += ["--device", "cpu", "--overwrite", "--out", str(folder / "heart.png")]
        report("first picture", picture, asked.runs)
        print("where it goes:")
        parts = PARTS.replace("MODEL", repr(model))
        print(subprocess.run([sys.executable, "-c", parts], check=True, capture_output=True, text=True).stdout, end="")
        print("imports by package (own time, under -X importtime, which adds some):")
        for seconds, package in imports(picture):
            print(f"  {package:34} {seconds:6.2f} s")


if __name__ == "__main__":
    main()
