"""What a source consists of before pictures are decoded: one interface over Arrow tables and image folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sfumato.core.errors import DataError

from .captions import CAPTION_FIELDS, caption_list, read_captions

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_FIELDS = ("image", "img", "picture", "png", "jpg", "jpeg", "webp")
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"))


class Records(Protocol):
    """Rows by number. `captions` and `image` raise `DataError` with the reason when that one row is broken."""

    def __len__(self) -> int: ...
    def id(self, i: int) -> str: ...
    def captions(self, i: int) -> tuple[str, ...]: ...
    def attributes(self, i: int) -> Mapping[str, Any]: ...
    def image(self, i: int) -> bytes: ...
    def column(self, name: str) -> list[Any] | None:
        """All rows' values of a column, None when the rows have no column of their own by that name."""


class TableRecords:
    """Rows of an Arrow table; pictures stay undecoded in it (memory-mapped where the table is)."""

    def __init__(self, table: pa.Table, name: str) -> None:
        """Finds the image and caption columns; `DataError` names the columns when either is missing."""
        import pyarrow as pa

        self._table, self._name = table, name
        types = {field.name: field.type for field in table.schema}
        images = [c for c, t in types.items() if _is_image(t) and (pa.types.is_struct(t) or c in IMAGE_FIELDS)]
        texts = [c for c in CAPTION_FIELDS if c in types and _is_text(types[c])]
        for found, kind, wanted in ((images, "image", IMAGE_FIELDS), (texts, "caption", CAPTION_FIELDS)):
            if not found:
                raise DataError(f"{name} has no {kind} column; its columns are {', '.join(types)}", f"name it one of {', '.join(wanted)}")
        self._image = min(images, key=lambda c: IMAGE_FIELDS.index(c) if c in IMAGE_FIELDS else len(IMAGE_FIELDS))
        self._caption = "captions" if "captions" in texts else texts[0]
        self._others = table.select([c for c in types if c not in (self._image, self._caption)])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def id(self, i: int) -> str:
        value = self._others["id"][i].as_py() if "id" in self._others.column_names else None
        return f"{self._name}[{i}]" if value is None else str(value)

    def captions(self, i: int) -> tuple[str, ...]:
        return caption_list(self._table[self._caption][i].as_py())

    def attributes(self, i: int) -> Mapping[str, Any]:
        return {name: self._others[name][i].as_py() for name in self._others.column_names}

    def image(self, i: int) -> bytes:
        value = self._table[self._image][i].as_py()
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if content is None and path and Path(path).is_file():
            return Path(path).read_bytes()
        if not content:
            raise DataError("the row has no image")
        return bytes(content)

    def column(self, name: str) -> list[Any] | None:
        return list(self._others[name].to_pylist()) if name in self._others.column_names else None


class FolderRecords:
    """Images of a folder and its subfolders, each with a `.txt` or `.json` of the same name beside it."""

    def __init__(self, folder: Path) -> None:
        """Raises `DataError` when the folder holds no image."""
        self._folder = folder
        self._paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
        if not self._paths:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{folder} holds no image", f"a data set, or images ({kinds}) with .txt or .json captions beside them")

    def __len__(self) -> int:
        return len(self._paths)

    def id(self, i: int) -> str:
        return self._paths[i].relative_to(self._folder).as_posix()

    def _read(self, i: int) -> tuple[tuple[str, ...], Mapping[str, Any]]:
        path = self._paths[i]
        for suffix in (".txt", ".json"):
            for beside in (path.with_suffix(suffix), path.with_name(path.name + suffix)):
                if beside.is_file():
                    return read_captions(beside)
        raise DataError(f"no caption beside it: {path.with_suffix('.txt').name} or {path.with_suffix('.json').name}")

    def captions(self, i: int) -> tuple[str, ...]:
        return self._read(i)[0]

    def attributes(self, i: int) -> Mapping[str, Any]:
        return self._read(i)[1]

    def image(self, i: int) -> bytes:
        try:
            return self._paths[i].read_bytes()
        except OSError as error:
            raise DataError(f"the image cannot be read: {error.strerror or error}") from error

    def column(self, name: str) -> list[Any] | None:
        if name != "split":
            return None
        folders: Sequence[str] = [p.relative_to(self._folder).parts[0] for p in self._paths]
        known = [{"val": "validation", "valid": "validation"}.get(folder, folder) for folder in folders]
        return known if set(known) <= {"train", "validation", "test"} else None


def _is_image(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return "bytes" in {field.name for field in kind}
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
