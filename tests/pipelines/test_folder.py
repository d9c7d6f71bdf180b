"""Pipelines on disk: what is saved is what was drawn with, others can read it, and nothing doubtful is loaded."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import sfumato
from sfumato.core import files
from sfumato.core.errors import ConfigError, OutputError, SfumatoError, UnknownNameError, UsageError, WeightsError
from sfumato.pipelines import TextToImage, components
from sfumato.pipelines import folder as folders

PROMPT = "a red heart"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_saved_pipeline_draws_the_same_bits(pipe: TextToImage, folder: Path):
    again = sfumato.load(folder)
    assert torch.equal(again(PROMPT, num=2, seed=3).images, pipe(PROMPT, num=2, seed=3).images)
    assert (again.slots, again.defaults, again.card) == (pipe.slots, pipe.defaults, pipe.card)
    assert again.identity["name"] == "tiny" and again.identity["sha256"] == files.sha256(folder / TRANSFORMER)
    assert not any(p.requires_grad for p in [*again.denoiser.net.parameters(), *again.codec.parameters()])
    third = again.save(folder.parent / "third")
    for file in (TRANSFORMER, VAE, "sfumato.json", "model_index.json", "vae/config.json"):
        assert (third / file).read_bytes() == (folder / file).read_bytes()


def test_diffusers_reads_the_codec_and_the_scheduler(pipe: TextToImage, folder: Path):
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(vae.encode(x).latent_dist.mean, pipe.codec.posterior(x).mean)
    assert FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler").config.shift == 1.5


def test_weights_can_be_stored_in_half(pipe: TextToImage, tmp_path: Path):
    folders.save(pipe, tmp_path / "half", dtype=torch.bfloat16)
    again = sfumato.load(tmp_path / "half")
    assert again.dtype == torch.float32 and pipe.dtype == torch.float32
    assert (tmp_path / "half" / TRANSFORMER).stat().st_size < 0.6 * sum(4 * p.numel() for p in pipe.denoiser.net.parameters()) + 20_000


@pytest.mark.parametrize("file", [TRANSFORMER, VAE])
def test_a_damaged_byte_names_the_file_and_both_checksums(file: str, folder: Path):
    path = folder / file
    good = files.sha256(path)
    content = bytearray(path.read_bytes())
    content[-7] ^= 4
    path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        sfumato.load(folder)
    assert file in str(caught.value) and good in str(caught.value) and files.sha256(path) in str(caught.value)


@pytest.mark.parametrize("file", [TRANSFORMER, VAE, "sfumato.json", "transformer/config.json", "vae/config.json"])
def test_a_missing_file_is_named(file: str, folder: Path):
    (folder / file).unlink()
    with pytest.raises(WeightsError, match=file):
        sfumato.load(folder)


@pytest.mark.parametrize("file", ["sfumato.json", "model_index.json", "transformer/config.json"])
@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
def test_damaged_json_is_named(file: str, content: str, folder: Path):
    (folder / file).write_text(content, encoding="latin-1")
    with pytest.raises(WeightsError, match=f"damaged file .*{file}"):
        sfumato.load(folder)


class Trap:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("opened-a-pickle",))


@pytest.mark.parametrize("place", [".", "transformer"])
def test_pickled_weights_are_refused_unopened(place: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    (folder / TRANSFORMER).unlink()
    (folder / place / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    if place == ".":
        (folder / "model_index.json").unlink()
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is pickled"):
        sfumato.load(folder)
    assert not Path("opened-a-pickle").exists()


def test_a_folder_without_a_pipeline_and_an_unknown_model_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(WeightsError, match="no pipeline folder"):
        sfumato.load(tmp_path)
    monkeypatch.setattr(folders, "shipped", lambda: ["emoji-mmdit", "other"])
    with pytest.raises(UnknownNameError, match="did you mean 'emoji-mmdit'"):
        sfumato.load("emoji-mdit")


STRICT: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("sfumato.json", lambda c: c.update(sluts=[]), "slots"),
    ("sfumato.json", lambda c: c["defaults"].update(step=3), "steps"),
    ("sfumato.json", lambda c: c["meaning"].update(predictions="flow"), "prediction"),
    ("sfumato.json", lambda c: c["meaning"].update(prediction="flo"), "'flow'"),
    ("sfumato.json", lambda c: c["slots"][0].update(drop=0.1), "dropout"),
    ("sfumato.json", lambda c: c.pop("meaning"), "lacks meaning"),
    ("sfumato.json", lambda c: c.update(text_encoder="minlm"), "minilm"),
    ("sfumato.json", lambda c: c["checksums"].pop(VAE), "no checksum of vae"),
    ("transformer/config.json", lambda c: c.update(dept=3), "depth"),
    ("transformer/config.json", lambda c: c.update(depth="3"), "MMDiTConfig.depth"),
    ("transformer/config.json", lambda c: c.update(depth=2), "extra"),
    ("transformer/config.json", lambda c: c.update(depth=4), "missing"),
    ("transformer/config.json", lambda c: c.update(mlp_ratio=3), "misshapen"),
    ("transformer/config.json", lambda c: c.update(_class_name="MMDit"), "MMDiT"),
    ("vae/config.json", lambda c: c.update(chanels=3), "chanels"),
    ("vae/config.json", lambda c: c.update(latent_channels=3), "misshapen"),
]


@pytest.mark.parametrize(("file", "change", "told"), STRICT)
def test_loading_is_strict(file: str, change: Callable[[dict[str, Any]], Any], told: str, folder: Path):
    edit(folder / file, change)
    with pytest.raises(SfumatoError, match=told):
        sfumato.load(folder)


def test_an_unusable_device_is_a_usage_error(folder: Path):
    for device in ("cudaa", "mps" if torch.cuda.is_available() else "cuda"):
        with pytest.raises(UsageError, match=f"device '{device}' cannot be used"):
            sfumato.load(folder, device=device)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_overwriting_must_be_asked_for_and_replaces_the_whole_folder(pipe: TextToImage, folder: Path):
    (folder / "notes.txt").write_text("mine")
    before = listing(folder)
    with pytest.raises(OutputError, match="--overwrite"):
        pipe.save(folder)
    assert listing(folder) == before
    pipe.save(folder, overwrite=True)
    assert listing(folder) == {n: c for n, c in before.items() if n != "notes.txt"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_pipeline_is_never_replaced(pipe: TextToImage, tmp_path: Path, overwrite: bool):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError):
        pipe.save(home, overwrite=overwrite)
    with pytest.raises(OutputError):
        pipe.save(home / "thesis.tex", overwrite=overwrite)
    assert listing(tmp_path) == {"home/thesis.tex": b"years of work"}


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 2])
def test_a_failure_while_saving_leaves_what_stood_there(
    pipe: TextToImage, folder: Path, failure: BaseException, call: int, monkeypatch: pytest.MonkeyPatch
):
    before, calls = listing(folder), []

    def failing(path: Path, tensors: Any) -> None:
        calls.append(path)
        if len(calls) == call:
            raise failure
        files.write_tensors(path, tensors)

    monkeypatch.setattr(components, "write_tensors", failing)
    for target, overwrite in ((folder, True), (folder.parent / "new", False)):
        calls.clear()
        with pytest.raises(OutputError if isinstance(failure, OSError) else KeyboardInterrupt):
            pipe.save(target, overwrite=overwrite)
    assert [p.name for p in folder.parent.iterdir()] == ["tiny"] and listing(folder) == before


def test_a_failure_at_the_last_move_puts_the_former_folder_back(pipe: TextToImage, folder: Path, monkeypatch: pytest.MonkeyPatch):
    before, replace = listing(folder), os.replace

    def failing(source: Path, target: Path) -> None:
        if str(source).endswith("tiny.part"):
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OutputError):
        pipe.save(folder, overwrite=True)
    assert [p.name for p in folder.parent.iterdir()] == ["tiny"] and listing(folder) == before


def test_a_copy_elsewhere_loads(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "x" / "copy")
    assert sfumato.load(str(tmp_path / "x" / "copy")).identity["name"] == "tiny"


def test_an_unregistered_network_is_told(pipe: TextToImage, tmp_path: Path):
    from dataclasses import replace

    from tests.builders import toy

    with pytest.raises(UnknownNameError, match="Toy"):
        replace(pipe, denoiser=toy(lambda x, t, cond: x)).save(tmp_path / "toy")
    assert issubclass(UnknownNameError, UsageError) and issubclass(ConfigError, UsageError) and not list(tmp_path.iterdir())
