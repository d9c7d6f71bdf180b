"""Models that transformers computes, from folders: safetensors only, every key matched, nothing fetched, no code of a checkpoint run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .errors import WeightsError
from .weights import read_json, require_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def require_safetensors(folder: Path) -> None:
    """Refuse a folder without complete safetensors files, before transformers looks for something else to load."""
    require_weights(folder, name := "model.safetensors")
    if (folder / name).is_file():
        return
    index = folder / f"{name}.index.json"
    for shard in sorted(set(read_json(index).get("weight_map", {}).values())):
        if not (folder / shard).is_file():
            raise WeightsError(f"missing file {folder / shard}", f"{index.name} lists it; fetch it")


def load_pretrained(model_class: str, folder: Path, dtype: torch.dtype, left_behind: tuple[str, ...] = ()) -> PreTrainedModel:
    """The transformers model `model_class` in `folder`, from its safetensors alone, every key accounted for.

    Keys that start with one of `left_behind` may be in the file without a place. Raises `WeightsError`.
    """
    import transformers
    from transformers.utils import logging

    # transformers 4.56 renamed the argument, and warns at the old name.
    release = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    precision: dict[str, Any] = {"dtype" if release >= (4, 56) else "torch_dtype": dtype}
    load: Callable[..., tuple[PreTrainedModel, Mapping[str, Any]]] = getattr(transformers, model_class).from_pretrained
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # we raise on what it would print
    logging.disable_progress_bar()
    try:
        model, report = load(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True, **precision,
        )  # fmt: skip
    except Exception as error:  # safetensors, OS and config errors have no common base
        raise WeightsError(f"cannot load {folder}: {error}", "fetch the folder again") from error
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
    _refuse_mismatch(model, folder, report, left_behind)
    return model


def _refuse_mismatch(model: nn.Module, folder: Path, report: Mapping[str, Any], left_behind: tuple[str, ...]) -> None:
    """Raise `WeightsError` unless every key found its place: a model half of random numbers would only draw badly."""
    missing = sorted(map(str, report["missing_keys"]))
    misshapen = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"])
    unexpected = sorted(map(str, report["unexpected_keys"]))
    extra = [key for key in unexpected if not key.startswith(left_behind) and not key.endswith("position_ids")]
    faults = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in (("missing", missing), ("misshapen", misshapen), ("unknown", extra))
        if keys
    ]
    if faults:
        total = len(model.state_dict())
        raise WeightsError(
            f"the weights in {folder} are not those of a {type(model).__name__}: of {total} keys {', '.join(faults)}",
            "its config.json and its weights come from different models; fetch both from one place",
        )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer in `folder`; `WeightsError` when there is none that can be loaded."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise WeightsError(f"cannot load the tokenizer in {folder}: {error}", "fetch the folder again") from error
    if not tokenizer.is_fast:
        raise WeightsError(
            f"the tokenizer in {folder} ({type(tokenizer).__name__}) cannot say which characters a token covers",
            "a tokenizer.json is needed: fetch one, or let the model's own transformers class write it with save_pretrained",
        )
    return tokenizer
