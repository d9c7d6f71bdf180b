"""Published folders that are not quite right: each fault is named, and nothing is ignored."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
from tests.pipelines.peers import pixart, saved

import sfumato
from sfumato.core.errors import ConfigError, SfumatoError, UsageError
from sfumato.pipelines import TextToImage
from sfumato.pipelines.published.schedulers import TABLES, Scheduler, read, write
from sfumato.sampling.schedules import Layout

SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(pixart("Sigma"), tmp_path_factory.mktemp("published") / "model")


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


FAULTS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    (SCHEDULER, lambda c: c.update(_class_name="DPMSolverMultistepSchedular"), "did you mean 'DPMSolverMultistepScheduler'"),
    (SCHEDULER, lambda c: c.update(_class_name="FlowMatchEulerDiscreteScheduler"), "scheduler class of this pipeline"),
    (SCHEDULER, lambda c: c.update(beta_strat=0.1), "did you mean 'beta_start'"),
    (SCHEDULER, lambda c: c.update(thresholding=True), "thresholding = True"),
    (SCHEDULER, lambda c: c.update(use_karras_sigmas=True), "use_karras_sigmas"),
    (SCHEDULER, lambda c: c.update(prediction_type="flow_prediction"), "flow_prediction"),
    (SCHEDULER, lambda c: c.update(beta_schedule="laplace"), "beta curve"),
    (SCHEDULER, lambda c: c.update(timestep_spacing="even"), "linspace, leading or trailing"),
    (SCHEDULER, lambda c: c.update(solver_order=3), "solver_order = 3"),
    (SCHEDULER, lambda c: c.update(final_sigmas_type="sigma_min", lower_order_final=False), "lower_order_final = False"),
    (INDEX, lambda c: c.update(_class_name="PixArtSigmPipeline"), "did you mean 'PixArtSigmaPipeline'"),
    (INDEX, lambda c: c.update(text_encoder=[None, None]), "has no text_encoder"),
    (INDEX, lambda c: c.pop("tokenizer"), "has no tokenizer"),
    (INDEX, lambda c: c.update(text_encoder=["transformers", "UMT5EncoderModel"]), "T5EncoderModel"),
    (INDEX, lambda c: c.update(requires_safety_checker=False), "model_index.json 'requires_safety_checker'"),
    (INDEX, lambda c: c.update(tokenizr="T5Tokenizer"), "did you mean 'tokenizer'"),
    (INDEX, lambda c: c.update(safety_checker=["x", "Checker"]), "safety_checker"),
    ("transformer/config.json", lambda c: c.update(layers=3), "layers"),
    (INDEX, lambda c: c.update(_class_name="SanaSprintPipeline"), "noise the picture again"),
    (INDEX, lambda c: c.update(_class_name="UniDiffuserPipeline"), "has no unet"),
    ("vae/config.json", lambda c: c.update(chanels=3), "chanels"),
]


@pytest.mark.parametrize(("file", "change", "told"), FAULTS)
def test_a_fault_in_a_config_is_named(file: str, change: Callable[[dict[str, Any]], Any], told: str, folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "model", copy_function=shutil.copy)
    edit(tmp_path / "model" / file, change)
    with pytest.raises(SfumatoError, match=told):
        sfumato.load(tmp_path / "model")


@pytest.mark.parametrize("part", ["scheduler", "vae", "transformer", "text_encoder", "tokenizer"])
def test_a_missing_component_is_named(part: str, folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / part)
    with pytest.raises(SfumatoError, match=part):
        sfumato.load(tmp_path / "model")


def test_what_would_change_nothing_is_refused(folder: Path, pipe: TextToImage, tmp_path: Path):
    published = sfumato.load(folder)
    for options, told in (({"shift": 3.0}, "shift is 3.0"), ({"cfg": 2.0}, "cfg is 2.0"), ({"steps": 1000}, "steps is 1000")):
        with pytest.raises(UsageError, match=told):
            published("a fox", size=(8, 8), **options)
    with pytest.raises(UsageError, match="layout 'linspace'"):
        pipe("a fox", layout=Layout("linspace"))
    with pytest.raises(UsageError, match="diffusers"):
        published.save(tmp_path / "ours")
    with pytest.raises(UsageError, match="minilm"):
        pipe.save(tmp_path / "theirs", format="diffusers")
    with pytest.raises(UsageError, match="text_tokens"):
        sfumato.load(pipe.save(tmp_path / "own"), text_tokens=9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["own"]


CONFIGS: list[dict[str, Any]] = [
    {"_class_name": "DPMSolverMultistepScheduler"},
    {"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "leading", "steps_offset": 1, "solver_order": 1},
    {"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True},
    {"_class_name": "DDIMScheduler", "clip_sample": False, "set_alpha_to_one": False, "prediction_type": "v_prediction"},
    {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "steps_offset": 1},
    {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True, "max_shift": 1.3},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_scheduler_is_read_back_as_it_was_written(config: dict[str, Any]):
    import diffusers

    even = bool(config.get("use_dynamic_shifting"))
    scheduler = read(config, even)
    written = write(scheduler)
    assert read(written, even) == scheduler
    getattr(diffusers, config["_class_name"]).from_config(written)
    assert set(written) == set(dict(getattr(diffusers, config["_class_name"])().config)) - {"_use_default_values"} | {"_class_name"}


def test_a_scheduler_that_diffusers_lacks_is_refused():
    from sfumato.core.denoiser import Meaning

    with pytest.raises(ConfigError, match="own format"):
        write(Scheduler(Meaning("v", "cosine"), Layout(), "heun"))


@pytest.mark.parametrize("name", TABLES)
def test_what_a_scheduler_config_leaves_out_is_diffusers_default(name: str):
    """A field that is not there means diffusers' own value: ours where it is used, and named where that is not what is computed."""
    table, theirs = TABLES[name], inspect.signature(getattr(diffusers, name).__init__).parameters
    assert all(theirs[field].default == value for field, value in {**table.used, **table.idle}.items())
    assert table.stated == {field for field, value in table.fixed.items() if theirs[field].default != value}
    whole = {**table.used, **table.fixed, "_class_name": name}
    for field in table.stated:
        with pytest.raises(ConfigError, match=f"{name} without {field}"):
            table.checked(name, {k: v for k, v in whole.items() if k != field})
