"""Weights on disk: one safetensors file or an index with shards, read a tensor at a time; and their strict way into a module."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import WeightsError

WEIGHTS = "diffusion_pytorch_model.safetensors"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def pickled(path: Path) -> WeightsError:
    """The refusal of a file that is a pickle."""
    return WeightsError(
        f"{path} is pickled, and opening it can run code",
        "convert it to safetensors where you trust it; save_pretrained of its own library writes them",
    )


def _stored(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (folder / f"{name}.index.json").is_file()


def require_weights(folder: Path, name: str = WEIGHTS) -> None:
    """Raise `WeightsError` unless `folder` has the safetensors file `name` or an index of its shards; it says what lies there instead."""
    refuse_others(folder, name)
    if not _stored(folder, name):
        raise WeightsError(f"missing file {folder / name}", f"or {name}.index.json with its shards")


def refuse_others(folder: Path, name: str = WEIGHTS) -> None:
    """Raise `WeightsError` where a variant or a pickle lies in the place of `name`."""
    if _stored(folder, name):
        return
    files = sorted(folder.glob("*"))
    for file in files:
        if found := re.fullmatch(rf"{re.escape(Path(name).stem)}\.(.+?)(-\d+-of-\d+)?\.safetensors", file.name):
            variant, there, here = found[1], file.name, name
            if found[2]:
                there, here = f"{name}.index.{variant}.json", f"{name}.index.json"
            raise WeightsError(f"{folder} holds the variant {variant!r} alone", f"rename {there} to {here}, or fetch {name}")
    for file in files:
        if file.suffix in PICKLES:
            raise pickled(file)


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


_TYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# Below this many bytes a copy is cheaper than a mapping.
_SMALL = 2**16


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: bytes `start` … `stop` - 1 of a safetensors file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    def read(self) -> Tensor:
        """The tensor, mapped by itself: whoever lets go of it gives its memory back, whatever becomes of its neighbours."""
        if self.stop - self.start >= _SMALL and not self.start % self.dtype.itemsize:
            try:
                # From the file's beginning, for a mapping starts at a page; what is not read takes no memory.
                mapped = torch.from_file(str(self.file), shared=False, size=self.stop, dtype=torch.uint8)
                return mapped[self.start :].view(self.dtype).reshape(self.shape)
            except RuntimeError:
                pass  # systems limit what one process maps; a copy serves as well
        with open(self.file, "rb") as file:
            file.seek(self.start)
            content = bytearray(file.read(self.stop - self.start))
        return (torch.frombuffer(content, dtype=self.dtype) if content else torch.empty(0, dtype=self.dtype)).reshape(self.shape)


def _places(path: Path) -> dict[str, Place]:
    """What a safetensors file holds; no tensor is read. The library checks that the header fits the file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"missing file {path}", "fetch it")
    try:
        with safe_open(path, framework="np"), open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"damaged file {path}: {error}", "fetch, reinstall or make it again") from error
    found = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if unknown := sorted({entry["dtype"] for entry in found.values()} - _TYPES.keys()):
        raise WeightsError(f"{path} holds tensors of type {unknown[0]}", f"types read here: {', '.join(_TYPES)}")
    return {
        name: Place(path, _TYPES[entry["dtype"]], tuple(entry["shape"]), *(8 + length + offset for offset in entry["data_offsets"]))
        for name, entry in found.items()
    }


class Shards(Mapping[str, Tensor]):
    """The tensors of a weights folder by name, read when asked for and not kept. `name`: of its one file, or before ".index.json".

    Raises `WeightsError` naming a missing or damaged file, or a tensor that the index promises and its shard lacks.
    """

    def __init__(self, folder: Path, name: str = WEIGHTS) -> None:
        require_weights(folder, name)
        whole = folder / name
        self.places = _places(whole) if whole.is_file() else self._sharded(folder, folder / f"{name}.index.json")

    def _sharded(self, folder: Path, index: Path) -> dict[str, Place]:
        where = read_json(index).get("weight_map")
        if not isinstance(where, dict):
            raise WeightsError(f"damaged file {index}: it has no weight_map", "fetch it again")
        # Names in an index are data from elsewhere: a shard lies beside it or nowhere.
        opened = {shard: _places(folder / Path(shard).name) for shard in sorted(set(where.values()))}
        for tensor, shard in where.items():
            if tensor not in opened[shard]:
                raise WeightsError(f"{folder / shard} lacks {tensor}, which {index.name} places there", "fetch the shard again")
        return {tensor: opened[shard][tensor] for tensor, shard in where.items()}

    @property
    def files(self) -> list[Path]:
        """The files that hold them."""
        return sorted({place.file for place in self.places.values()})

    def bytes(self, dtype: torch.dtype | None = None) -> int:
        """Memory that all of them take, numbers with a point as `dtype`; None = as stored."""

        def width(stored: torch.dtype) -> int:
            return (dtype if dtype is not None and stored.is_floating_point else stored).itemsize

        return sum(math.prod(place.shape) * width(place.dtype) for place in self.places.values())

    def __getitem__(self, name: str) -> Tensor:
        return self.places[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


# Components that pipelines of either format load; others (a safety checker, say) stay where they are.
_COMPONENTS = ("transformer*", "unet*", "vae*", "text_encoder*")


def pipeline_bytes(folder: Path, dtype: torch.dtype | None = None) -> int:
    """Memory that the components of a pipeline's folder take as `dtype`; None = as stored. Nothing is said of what is missing."""
    found = [
        Shards(component, name)
        for pattern in _COMPONENTS
        for component in sorted(folder.glob(pattern))
        for name in (WEIGHTS, "model.safetensors")
        if (component / name).is_file() or (component / f"{name}.index.json").is_file()
    ]
    return sum(stored.bytes(dtype) for stored in found)


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
