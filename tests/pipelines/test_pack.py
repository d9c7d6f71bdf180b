"""A packed pipeline draws as before, says so, and does nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sfumato
from sfumato.core.errors import UsageError
from sfumato.surgery import fresh, merge


def test_weights_that_are_gone_are_not_read(folder: Path, tmp_path: Path) -> None:
    pipe = sfumato.load(folder)
    drawn = pipe("a red heart", seed=3)
    lora = fresh(pipe.denoiser.net, 2)
    file = pipe.save_lora(lora, tmp_path / "style.safetensors")
    assert pipe.pack() is pipe and pipe.device.type == "cpu"
    packed = pipe("a red heart", seed=3)
    assert (
        float((packed.images - drawn.images).norm() / drawn.images.norm()) <= 1e-4
        and packed.settings["packed"]
        and not drawn.settings["packed"]
    )
    assert torch.equal(pipe("a red heart", seed=3, loras=[pipe.lora(file)]).images, packed.images), "a fresh LoRA changes nothing"
    for what in (
        lambda: pipe.save(tmp_path / "model"),
        lambda: pipe.to(dtype=torch.bfloat16),
        lambda: pipe.merged([lora], "merged"),
        lambda: merge(pipe.denoiser.net, [lora]),
    ):
        with pytest.raises(UsageError, match="plain weights are gone"):
            what()
    assert not (tmp_path / "model").exists()
    with pytest.raises((RuntimeError, NotImplementedError)):
        pipe.denoiser.net.state_dict()["text.weight"].sum().item()
