"""DiT from diffusers folders: classes by name or number, the pictures diffusers draws, folders of before 2024, and back."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import diffusers
import pytest
from tests.pipelines.peers import dit, relative, saved
from torch import Tensor

import sfumato
from sfumato.backbones.checkpoints.folder import read_shape
from sfumato.core.errors import SfumatoError, UsageError
from sfumato.core.rng import Rows
from sfumato.evaluate.anatomy import anatomy
from sfumato.sampling.guidance import Guide

NAMES = {"0": "tench, Tinca tinca", "207": "golden retriever", "208": "Labrador retriever"}


def named(folder: Path, names: dict[str, str] | None = None) -> Path:
    """The folder with id2label in its model_index.json, where published ones have it."""
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "id2label": names or NAMES}))
    return folder


def drawn(pipe: Any, noise: Tensor, monkeypatch: pytest.MonkeyPatch, **call: Any) -> Tensor:
    """Their pictures in [-1, 1] from `noise`, which their pipeline takes from nobody."""
    monkeypatch.setattr("diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda shape, **_: noise)
    pipe.set_progress_bar_config(disable=True)
    return 2 * pipe(output_type="pt", **call).images - 1


@pytest.mark.parametrize(
    ("scheduler", "shape", "call"),
    [
        (None, {}, {}),
        (diffusers.DPMSolverMultistepScheduler(), {"out_channels": 4}, {"guidance": 1.0, "steps": 3}),
        (diffusers.DDIMScheduler(clip_sample=False, steps_offset=1), {"activation_fn": "gelu"}, {"guidance": 2.5}),
    ],
)
def test_pictures_are_those_of_diffusers(scheduler: Any, shape: dict, call: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Square ones: their positions know no others."""
    theirs = dit(scheduler, **shape)
    ours = sfumato.load(named(saved(theirs, tmp_path / "model")), ways="diffusers")
    pictures = ours(["Golden retriever", "3"], num=2, seed=3, **{"steps": 4, **call})
    noise = Rows((3, 4, 3, 4)).normal((4, 8, 8), "noise")
    settings = {"num_inference_steps": call.get("steps", 4), "guidance_scale": call.get("guidance", 4.0)}
    reference = drawn(theirs, noise, monkeypatch, class_labels=[207, 207, 3, 3], **settings)
    assert relative(pictures.images, reference) <= 1e-4
    assert reference.std() > 0.05 and relative(reference[0], reference[2]) > 1e-3


def test_the_originals_guidance_and_a_negative_class_bite(tmp_path: Path):
    ours = sfumato.load(named(saved(dit(), tmp_path / "model")))
    own = ours.defaults
    assert (own.size, own.steps, own.guidance, own.guide) == ((16, 16), 50, 4.0, Guide(channels=3))
    plain = ours("tench", steps=2).images
    assert ours("tench", steps=1, size=(8, 24)).images.shape == (1, 3, 8, 24)
    for options in ({"guide": Guide()}, {"negative": "labrador retriever"}, {"guidance": 2.0}):
        assert relative(ours("tench", steps=2, **options).images, plain) > 1e-4
    assert relative(ours("tench", steps=2, negative="208").images, ours("tench", steps=2, negative="labrador retriever").images) == 0


def test_a_class_is_a_number_or_one_of_its_names(tmp_path: Path):
    folder = saved(dit(), tmp_path / "model")
    with pytest.raises(UsageError, match=r"from 0 to 999; this model's folder has no names"):
        sfumato.load(folder)("tench")
    labels = sfumato.load(named(folder)).encoder
    asked = ["tench", " tinca Tinca", "tench, Tinca tinca", "0", "999", "", "Golden Retriever"]
    assert labels.encode(asked).labels.tolist() == [0, 0, 0, 0, 999, 1000, 207]
    with pytest.raises(UsageError, match="did you mean 'golden retriever'"):
        labels.encode(["golden retriver"])
    for wrong in ("1000", "-1", "xyzzy"):
        with pytest.raises(UsageError, match=f"unknown class '{wrong}'"):
            labels.encode([wrong])


LEGACY = {"cross_attention_dim": None, "num_vector_embeds": None, "only_cross_attention": False, "use_linear_projection": False}


def test_folders_of_the_former_class_are_read(tmp_path: Path):
    folder = named(saved(dit(), tmp_path / "model"))
    plain = sfumato.load(folder)("3", steps=2).images
    for name in ("model_index.json", "transformer/config.json"):
        file = folder / name
        content = json.loads(file.read_text().replace("DiTTransformer2DModel", "Transformer2DModel"))
        if name != "model_index.json":
            del content["norm_eps"]
            content |= LEGACY
        file.write_text(json.dumps(content))
    assert relative(sfumato.load(folder)("3", steps=2).images, plain) == 0
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("DiTPipeline", "PixArtSigmaPipeline"))
    with pytest.raises(SfumatoError, match="text_encoder"):
        sfumato.load(folder)
    file = folder / "transformer" / "config.json"
    written = json.loads(file.read_text())
    for field, value, told in (("norm_type", "layer_norm", "norm_type"), ("only_cross_attention", True, "only_cross"), ("new", 1, "new")):
        file.write_text(json.dumps({**written, field: value}))
        with pytest.raises(SfumatoError, match=told):
            read_shape(file.parent)


def test_diffusers_loads_what_we_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    theirs = dit()
    ours = sfumato.load(named(saved(theirs, tmp_path / "model")))
    again = ours.save(tmp_path / "again", format="diffusers")
    back = diffusers.DiTPipeline.from_pretrained(again)
    assert back.get_label_ids(["golden retriever", "Tinca tinca"]) == [207, 0]
    noise, call = Rows((0,)).normal((4, 8, 8), "noise"), {"class_labels": [7], "num_inference_steps": 2}
    pictures = [drawn(pipe, noise, monkeypatch, **call) for pipe in (back, theirs)]
    assert relative(*pictures) <= 1e-6
    assert sfumato.load(again).defaults == ours.defaults


def test_its_anatomy_has_no_words(tmp_path: Path):
    pipe = sfumato.load(saved(dit(), tmp_path / "model"))
    found = anatomy(pipe)
    assert found.flops > 0 and found.tokens == {"image": 16} and ElementTree.fromstring(found.svg()).tag.endswith("svg")
    with pytest.raises(UsageError, match="prompts are classes"):
        anatomy(pipe, text_tokens=16)
