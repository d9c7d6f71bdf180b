"""`make models TINY=1`: every stage behind the shipped weights, from the fixture to pictures, tried from scratch and asked for again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sfumato.core.config import from_dict
from sfumato.evaluate.critic import Critic
from sfumato.evaluate.judge import Judge
from sfumato.perceptual import Perceptual
from sfumato.pipelines import load
from sfumato.training.networks import shipped
from sfumato.training.recipes import ModelRecipe

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("emoji-mmdit", "emoji-pixart", "emoji-uvit", "emoji-mmdit-64", "emoji-pixart-64", "emoji-uvit-64")


def make(*words: str) -> str:
    """Standard output of `make` in the repository, with the interpreter that runs the tests and no installation."""
    binaries = Path(sys.executable).parent
    if shutil.which("make") is None or not (binaries / "sfumato").is_file():
        pytest.skip("needs make, and sfumato installed beside this Python")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = ["make", "-j2", "-o", ".venv/.ready", f"BIN={binaries}", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_stage_from_scratch(tmp_path: Path) -> None:
    words = ("models", "TINY=1", f"RUNS={tmp_path}")
    told = make(*words)
    assert all(f"{tmp_path}/{name}/pipeline" in told for name in MODELS)
    for name in MODELS:
        pipe = load(tmp_path / name / "pipeline")
        recipe = from_dict(ModelRecipe, shipped()[name])
        assert type(pipe.denoiser.net).__name__ == recipe.family and pipe.defaults.size == recipe.defaults.size
        assert pipe.card["scenes"] > 0 and pipe.card["recipe"]["scenes"]["folders"] == [f"{tmp_path}/scenes-{n}" for n in (2, 3, 4)]
        assert pipe.card["recipe"]["languages"]["codes"] == ["de", "fr", "es", "ja"]
        assert pipe("a fox", steps=1).images.shape == (1, 3, *recipe.defaults.size)
    assert Judge.load(tmp_path / "judge" / "judge").eyes is not None and Critic.load(tmp_path / "critic" / "critic").card["held_out"]
    assert Perceptual.load(tmp_path / "perceptual" / "perceptual").card["trained_on"]["drawings"] > 1
    assert make(*words).splitlines() == told.splitlines()[-1:], "what is there is kept"


def test_the_whole_asks_for_what_the_documents_say(tmp_path: Path) -> None:
    told = make("-n", "models", "EMOJI=nowhere", f"RUNS={tmp_path}")
    for level, count in ((2, 2500), (3, 2500), (4, 4000)):
        assert f"--out data/scenes-{level} --count {count} --seed {level} --difficulty {level}" in told
    for name in MODELS:
        assert f"--recipe {name} --data nowhere --scenes data/scenes-2 data/scenes-3 data/scenes-4 --scene-share 0.2" in told
    assert "--lessons data/lessons" in told and "TINY" not in told and "examples/tiny" not in told
