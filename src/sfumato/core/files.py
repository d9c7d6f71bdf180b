"""Files that are whole or absent: atomic writes, checksums, and the refusal to overwrite."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import OutputError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def refuse_overwrite(path: Path, overwrite: bool) -> None:
    """Raise `OutputError` when `path` exists and `overwrite` is false."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists and is left as it is", "choose another name, or pass --overwrite")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; it replaces `path` when the block ends well and vanishes otherwise.

    Raises `OutputError` when the disk is full, read-only or the folder cannot be made.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes private files; a result is as readable as the user's umask allows.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "free space, or name a folder you may write to") from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented, key-ordered JSON, atomically."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def write_with(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write(temporary)` fill a file that then replaces `path` atomically."""
    with atomic(path) as temporary:
        write(temporary)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file atomically; tensors come from any device and need not be contiguous."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # safetensors reports a full disk by an error of its own, and makes private files; `atomic` deals with OSError and with modes.
    with atomic(path) as temporary:
        try:
            save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; `WeightsError` when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise WeightsError(f"missing file {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"damaged file {path}: {error}", "fetch, reinstall or make it again") from error


def sha256(path: Path) -> str:
    """Hex digest of a file's content; `WeightsError` when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def verify(path: Path, expected: str) -> None:
    """Raise `WeightsError` naming the file and both checksums unless `path` has the sha256 `expected`."""
    if not path.is_file():
        raise WeightsError(f"missing file {path}", f"expected sha256 {expected}")
    found = sha256(path)
    if found != expected:
        raise WeightsError(f"damaged file {path}", f"expected sha256 {expected}, found {found}; fetch or reinstall it")
