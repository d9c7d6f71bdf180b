"""Weights on disk: one safetensors file or an index with shards, read a tensor at a time; and their strict way into a module."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError

WEIGHTS = "diffusion_pytorch_model.safetensors"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, a file of a model's folder; `WeightsError` when it is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        hint = "a model is a folder with JSON configs and safetensors files, as save_pretrained and sfumato write it"
        raise WeightsError(f"missing file {path}", hint) from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise WeightsError(f"damaged file {path}: {error}", "fetch it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"damaged file {path}: an object is needed, not {type(content).__name__}", "fetch it again")
    return content


class Shards(Mapping[str, Tensor]):
    """The tensors of a diffusers weights folder by name, read when asked for and not kept. A context manager: files close at its end.

    Raises `WeightsError` naming a missing or damaged file, or a tensor that the index promises and its shard lacks.
    """

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        index = folder / f"{WEIGHTS}.index.json"
        if (folder / WEIGHTS).is_file():
            file = self._open(folder / WEIGHTS)
            self._files = dict.fromkeys(file.keys(), file)
        elif index.is_file():
            self._files = self._sharded(folder, index)
        else:
            raise WeightsError(f"missing file {folder / WEIGHTS}", f"or {index.name} with its shards")

    def _sharded(self, folder: Path, index: Path) -> dict[str, Any]:
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict):
            raise WeightsError(f"damaged file {index}: it has no weight_map", "fetch it again")
        # Names in an index are data from elsewhere: a shard lies beside it or nowhere.
        opened = {name: self._open(folder / Path(name).name) for name in sorted(set(places.values()))}
        for tensor, name in places.items():
            if tensor not in opened[name].keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                raise WeightsError(f"{folder / name} lacks {tensor}, which {index.name} places there", "fetch the shard again")
        return {tensor: opened[name] for tensor, name in places.items()}

    def _open(self, path: Path) -> Any:
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise WeightsError(f"missing file {path}", "fetch it")
        try:
            return self._stack.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"damaged file {path}: {error}", "fetch, reinstall or make it again") from error

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()


def assign_strictly(module: torch.nn.Module, found: Mapping[str, Tensor], where: str) -> None:
    """Give `module` (on meta) its tensors; `WeightsError` lists missing, extra and misshapen ones."""
    wanted = {n: tuple(t.shape) for n, t in module.state_dict().items()}
    missing = sorted(set(wanted) - set(found))
    extra = sorted(set(found) - set(wanted))
    misshapen = [
        f"{n} {tuple(found[n].shape)} instead of {wanted[n]}"
        for n in sorted(set(wanted) & set(found))
        if tuple(found[n].shape) != wanted[n]
    ]
    if missing or extra or misshapen:
        parts = [
            f"{kind}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
            for kind, names in (("missing", missing), ("extra", extra), ("misshapen", misshapen))
            if names
        ]
        raise WeightsError(
            f"{where} does not fit its config ({len(missing)} missing, {len(extra)} extra, {len(misshapen)} misshapen)", "; ".join(parts)
        )
    module.load_state_dict(dict(found), strict=True, assign=True)
