"""LoRA on a pipeline: an argument of a call, recorded with the picture, merged, saved and loaded; the pipeline keeps nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sfumato
from sfumato.core.errors import UsageError, WeightsError
from sfumato.pipelines import TextToImage
from sfumato.pipelines.folder import structure
from sfumato.surgery import Delta, Lora, fresh

PROMPT = "a red heart"


def alive(pipe: TextToImage, seed: int = 0) -> Lora:
    lora = fresh(pipe.denoiser.net, 4, alpha=8.0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return Lora({n: Delta(d.down.detach(), 0.2 * torch.randn(d.up.shape, generator=generator), d.alpha) for n, d in lora.deltas.items()})


@pytest.fixture
def file(pipe: TextToImage, tmp_path: Path) -> Path:
    return pipe.save_lora(alive(pipe), tmp_path / "style.safetensors")


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_a_call_carries_it_and_the_pipeline_keeps_nothing(pipe: TextToImage, file: Path) -> None:
    plain = pipe(PROMPT, seed=3).images
    kept = {n: p.clone() for n, p in pipe.denoiser.net.state_dict().items()}
    lora = pipe.lora(file, 0.8)
    drawn = pipe(PROMPT, seed=3, loras=[lora])
    assert error(drawn.images, plain) > 1e-3 and torch.equal(pipe(PROMPT, seed=3).images, plain)
    assert torch.equal(pipe(PROMPT, seed=3, loras=[lora.at(0.0)]).images, plain)
    assert all(torch.equal(p, kept[n]) for n, p in pipe.denoiser.net.state_dict().items())
    assert drawn.settings["loras"] == [{"path": str(file), "sha256": sfumato.core.files.sha256(file), "weight": 0.8}]
    assert pipe(PROMPT).settings["loras"] == []


def test_loras_add_up_and_merge(pipe: TextToImage, tmp_path: Path) -> None:
    one, two = alive(pipe, 0).at(0.6), alive(pipe, 1).at(-0.4)
    both = pipe(PROMPT, seed=3, loras=[one, two]).images
    assert error(both, pipe(PROMPT, seed=3, loras=[one]).images) > 1e-3
    merged = pipe.merged([one, two], "both")
    assert error(merged(PROMPT, seed=3).images, both) <= 1e-4 and merged.identity == {"name": "both"} and pipe.identity["name"] == "tiny"
    again = sfumato.load(merged.save(tmp_path / "both"))
    assert torch.equal(again(PROMPT, seed=3).images, merged(PROMPT, seed=3).images) and again.identity["sha256"]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_each_picture_has_its_own_weight(pipe: TextToImage, guidance: float) -> None:
    lora = alive(pipe)
    together = pipe(PROMPT, num=3, seed=3, guidance=guidance, loras=[lora.at((0.0, 0.5, 1.0))]).images
    for row, weight in enumerate((0.0, 0.5, 1.0)):
        assert error(together[row : row + 1], pipe(PROMPT, seed=3 + row, guidance=guidance, loras=[lora.at(weight)]).images) <= 1e-4
    with pytest.raises(UsageError, match="2 weights for 3 rows"):
        pipe(PROMPT, num=3, loras=[lora.at((0.0, 0.5))])


def test_lanes_stay_one_batch(pipe: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guidance with a LoRA costs no second evaluation, unless something asks for its lane."""
    seen: list[int] = []
    forward = type(pipe.denoiser.net).forward
    monkeypatch.setattr(type(pipe.denoiser.net), "forward", lambda *asked: seen.append(len(asked[1]["image"].x)) or forward(*asked))
    pipe(PROMPT, num=2, steps=2, loras=[alive(pipe).at((0.5, 1.0))])
    assert seen == [4, 4]


def test_another_networks_lora_is_refused(pipe: TextToImage, tmp_path: Path) -> None:
    from tests.builders import mmdit

    other = mmdit(width=48)
    with pytest.raises(WeightsError, match="made for another network"):
        pipe(PROMPT, loras=[fresh(other, 2)])
    from sfumato.surgery import save_lora

    with pytest.raises(WeightsError, match="for a MMDiT of another size"):
        pipe.lora(save_lora(fresh(other, 2), other, tmp_path / "other.safetensors"))


def test_a_structure_without_weights(pipe: TextToImage, folder: Path) -> None:
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    for where in (folder, folder / "transformer"):
        net = structure(where)
        assert net.config == pipe.denoiser.net.config and all(p.is_meta for p in net.parameters())
