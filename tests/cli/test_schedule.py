"""`sfumato schedule`: the table is the walk itself, with a source for every number, and no weights are read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Cli
from tests.pipelines.peers import flux, pixart, saved, sd3

import sfumato
from sfumato.pipelines.timetable import timetable


def without_weights(folder: Path) -> Path:
    """Nothing but configs is left: what is printed cannot come from weights."""
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    return folder


def test_it_prints_the_times_of_our_model(cli: Cli, model: Path, tmp_path: Path):
    bare = Path(shutil.copytree(model, tmp_path / "bare"))
    told = cli("schedule", str(without_weights(bare)), "--steps", "4", "--json").lines[0]
    pipe = sfumato.load(model)
    assert [s["t"] for s in told["stops"]] == pytest.approx(pipe.defaults.layout.times(4, pipe.defaults.shift).tolist())
    assert told["stops"][-1]["told"] is None and told["stops"][0]["told"] == 1.0
    assert {o["what"]: o["from"] for o in told["origins"]}["steps"] == "--steps"
    shown = cli("schedule", str(model), "--steps", "3", "--shift", "3").out
    assert "--shift" in shown and "0.857143" in shown and "sfumato.json" in shown


@pytest.mark.parametrize(("options", "told"), [(["--steps", "0"], "steps is 0"), (["--size", "33"], "size 33x33 is not possible")])
def test_what_is_impossible_is_told(options: list[str], told: str, cli: Cli, model: Path):
    ran = cli("schedule", str(model), *options)
    assert ran.code == 2 and told in ran.err


def test_published_models_have_their_schedulers_times(cli: Cli, tmp_path: Path):
    theirs = pixart("Sigma")
    folder = without_weights(saved(theirs, tmp_path / "pixart"))
    theirs.scheduler.set_timesteps(7)
    found = timetable(folder, steps=7)
    assert [s.step for s in found.stops] == [*theirs.scheduler.timesteps.tolist(), None]
    ratios = torch.tensor([s.sigma / s.alpha for s in found.stops])
    torch.testing.assert_close(ratios, theirs.scheduler.sigmas, rtol=1e-5, atol=0)
    assert "scheduler_config.json" in cli("schedule", str(folder)).out.replace("\n", "")
    assert json.loads(cli("schedule", str(folder), "--json").out)["stops"][-1]["half_log_snr"] is None


def test_shifts_say_where_they_come_from(tmp_path: Path):
    dev = timetable(without_weights(saved(flux(), tmp_path / "flux")), steps=4, size=(256, 256))
    shifts = {what: (value, origin) for what, value, origin in dev.origins}
    assert shifts["shift"] == ("3.15819", "scheduler/scheduler_config.json: exp(mu) at 4096 tokens") and shifts["size"][1] == "--size"
    scheduler = sd3().scheduler
    scheduler.set_timesteps(5)
    plain = timetable(without_weights(saved(sd3(), tmp_path / "sd3")), steps=5)
    torch.testing.assert_close(torch.tensor([s.t for s in plain.stops]), scheduler.sigmas, rtol=1e-5, atol=1e-7)
