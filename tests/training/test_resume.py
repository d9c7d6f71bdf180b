"""A run that was interrupted and resumed is, bit for bit, the run that was not."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.builders import codec
from tests.training.tasks import Regression, config, diffusion, interrupt_at, latents, pairs, together

from sfumato.core import files
from sfumato.core.errors import CancelledError, OutputError, WeightsError
from sfumato.core.rng import Draws
from sfumato.core.task import Loss, Phase, Task
from sfumato.training import checkpoints
from sfumato.training.batches import Columns
from sfumato.training.codec import CodecTask, CodecTaskConfig
from sfumato.training.loop import Run, TrainConfig, prepare, train


def codec_task() -> CodecTask:
    return CodecTask(codec(), CodecTaskConfig(crop=8, crop_steps=2))


def pictures() -> Columns:
    return Columns({"images": (torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 255).byte()}, 2, seed=0)


class Forgetful(Regression):
    """Draws from torch's global generator, as dropout does."""

    def loss(self, phase: Phase, batch: Any, carry: Any, draws: Draws) -> Loss:
        return super().loss(phase, {**batch, "x": torch.dropout(batch["x"], 0.5, True)}, carry, draws)


CASES: dict[str, tuple[Callable[[], Task], Callable[[], Any], dict[str, Any]]] = {
    "adamw": (diffusion, latents, {}),
    "muon": (diffusion, latents, {"name": "muon"}),
    "accumulate": (diffusion, latents, {"accumulate": 2}),
    "two sources": (diffusion, together, {}),
    "muon accumulate bf16": (diffusion, latents, {"name": "muon", "accumulate": 2, "precision": "bf16"}),
    "dropout": (Forgetful, lambda: pairs(4), {}),
    "no average": (diffusion, latents, {"ema": 0.0}),
    # Its convolutions are channels last in memory, and so are their optimizer moments.
    "codec": (codec_task, pictures, {}),
}


def everything(run: Run) -> dict[str, torch.Tensor]:
    tensors = {f"{m}.{n}": t.detach() for m, module in run.modules.items() for n, t in module.state_dict().items()}
    tensors |= {f"ema.{m}.{n}": t for m, ema in run.emas.items() for n, t in ema.shadow.items()}
    for phase, members in run.optimizers.items():
        for i, optimizer in enumerate(members):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{phase}.{i}.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    return tensors


def interrupted(make: Callable[[], Task], data: Any, settings: TrainConfig, folder: Path, at: int) -> None:
    with pytest.raises(CancelledError, match=f"stopped at step {at}"):
        train(make(), {"train": data}, settings, folder, interrupt_at(at), quiet=True)


@pytest.mark.parametrize("case", CASES)
def test_three_steps_and_three_more_equal_six(case: str, tmp_path: Path):
    make, stream, options = CASES[case]
    settings = config(**options, sample_every=1)
    torch.manual_seed(7)
    straight = train(make(), {"train": stream()}, settings, tmp_path / "straight", quiet=True)
    torch.manual_seed(7)
    interrupted(make, stream(), settings, tmp_path / "cut", 3)
    torch.manual_seed(123)
    resumed = train(make(), {"train": stream()}, settings, tmp_path / "cut", quiet=True)
    one, two = everything(straight), everything(resumed)
    assert one.keys() == two.keys() and resumed.step == 6
    assert [n for n in one if not torch.equal(one[n], two[n])] == []


def test_a_run_is_a_pure_function_of_its_config(tmp_path: Path):
    one, two, other = (
        train(diffusion(), {"train": latents()}, config(2, seed=seed), tmp_path / name, quiet=True)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    first, second, third = (everything(r)["net.final.weight"] for r in (one, two, other))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_a_finished_run_does_nothing_more(tmp_path: Path):
    first = train(Regression(), {"train": pairs(4)}, config(3), tmp_path, quiet=True)
    again = train(Regression(), {"train": pairs(4)}, config(3), tmp_path, quiet=True)
    assert torch.equal(first.modules["net"].weight, again.modules["net"].weight) and again.step == 3


def saved_run(folder: Path) -> Path:
    train(Regression(), {"train": pairs(4)}, config(3), folder, quiet=True)
    return checkpoints.existing(folder)[-1]


def test_a_failure_while_saving_keeps_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    former = saved_run(tmp_path)
    before = {p.name: p.read_bytes() for p in former.iterdir()}
    run = prepare(Regression(), config(3), tmp_path)
    written: list[Path] = []

    def full(path: Path, tensors: Any) -> None:
        written.append(path)
        if len(written) == 2:
            raise OutputError("No space left on device")
        files.write_tensors(path, tensors)

    monkeypatch.setattr(checkpoints, "write_tensors", full)
    for step in (3, 4):
        written.clear()
        run.step = step
        with pytest.raises(OutputError, match="cannot write checkpoint"):
            run.save()
    assert {p.name: p.read_bytes() for p in former.iterdir()} == before
    assert checkpoints.existing(tmp_path) == [former] and not list(tmp_path.glob(".step*"))


def test_only_the_newest_are_kept(tmp_path: Path):
    run = prepare(Regression(), config(3), tmp_path)
    for step in (1, 2, 3):
        run.step = step
        run.save()
    assert [p.name for p in checkpoints.existing(tmp_path)] == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("file", ["net.safetensors", "net.ema.safetensors", "optimizers.safetensors"])
@pytest.mark.parametrize("damage", ["flipped", "short", "missing"])
def test_a_damaged_checkpoint_is_refused_by_name(file: str, damage: str, tmp_path: Path):
    path = saved_run(tmp_path) / file
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    else:
        content[-3] ^= 1
        path.write_bytes(content if damage == "flipped" else content[:-5])
    with pytest.raises(WeightsError, match=file):
        prepare(Regression(), config(3), tmp_path)


def test_a_damaged_record_is_refused(tmp_path: Path):
    (saved_run(tmp_path) / "state.json").write_text("{")
    with pytest.raises(WeightsError, match="does not fit"):
        prepare(Regression(), config(3), tmp_path)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path):
    train(diffusion(), {"train": latents()}, config(1), tmp_path, quiet=True)
    with pytest.raises(WeightsError):
        prepare(Regression(), config(3), tmp_path)
    with pytest.raises(WeightsError, match="moment"):
        prepare(diffusion(), config(1, name="muon"), tmp_path)


def test_checkpoints_of_before_checksums_still_load(tmp_path: Path):
    checkpoint = saved_run(tmp_path)
    record = json.loads((checkpoint / "state.json").read_text())
    del record["checksums"]
    (checkpoint / "state.json").write_text(json.dumps(record))
    weights = files.read_tensors(checkpoint / "net.safetensors")
    save_file(weights, checkpoint / "net.safetensors")
    assert torch.equal(prepare(Regression(), config(3), tmp_path).modules["net"].weight, weights["weight"])


SCRIPT = """
import sys, time
from pathlib import Path
from sfumato.training.loop import train
from tests.training.tasks import Regression, config, pairs
train(Regression(lambda step: time.sleep(0.01) or 1.0), {"train": pairs(4)}, config(100_000), Path(sys.argv[1]), quiet=True)
"""


def test_ctrl_c_in_mid_run_leaves_a_checkpoint_to_go_on_from(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 120
    # The log folder appears when the loop begins, after its signal handlers are in place.
    while not (tmp_path / "logs").is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert b"stopped at step" in stderr and b"KeyboardInterrupt" not in stderr
    assert len(checkpoints.existing(tmp_path)) == 1 and not list(tmp_path.glob(".step*"))
    run = prepare(Regression(), config(100_000), tmp_path)
    assert run.step > 0
    assert all(int(s["step"]) == run.step for o in run.optimizers["fit"] for s in o.state_dict()["state"].values())
