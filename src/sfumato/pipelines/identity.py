"""Which model it was: a name and the checksums of its weights, which every picture carries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..core.errors import WeightsError
from ..core.files import sha256


class Identity(Mapping[str, str]):
    """`name`, and for each entry of `files` their checksum, taken when it is first asked for: gigabytes take longer to hash than to load.

    A checksum is the sha256 of the one file, or of its shards' digests in the order given. Raises `WeightsError` for a file that is gone
    or was written to since.
    """

    def __init__(self, name: str, files: Mapping[str, Sequence[Path]]) -> None:
        self._found = {"name": name}
        self._files = files
        self._seen = {path: _state(path) for paths in files.values() for path in paths}

    def __getitem__(self, key: str) -> str:
        if key not in self._found:
            digest = _checksum(self._files[key])
            for path in self._files[key]:
                if _state(path) != self._seen[path]:
                    raise WeightsError(f"{path} was written to after it was loaded", "load the model again")
            self._found[key] = digest
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("name", *self._files))

    def __len__(self) -> int:
        return 1 + len(self._files)


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _checksum(files: Sequence[Path]) -> str:
    if len(files) == 1:
        return sha256(files[0])
    with ThreadPoolExecutor() as threads:  # hashing lets go of the interpreter
        return hashlib.sha256("".join(threads.map(sha256, files)).encode()).hexdigest()
