"""Which kind of source a name or path is, and its records. Nothing here decodes a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.core import files
from sfumato.core.errors import DataError, WeightsError

from .names import read_json
from .records import FolderRecords, Records, TableRecords

if TYPE_CHECKING:
    import pyarrow as pa

HUB_NAME = re.compile(r"(hub:)?([\w.-]+/)?[\w.-]+")


def read_records(spec: str | Path, split: str | None, size: int) -> tuple[Records, bool]:
    """(records, whether checksums have verified them) of a source. Raises `DataError` when it is missing or of no known kind."""
    path = Path(spec)
    if not path.exists():
        text = str(spec)
        if text.startswith("hub:") or (isinstance(spec, str) and HUB_NAME.fullmatch(text) and "/" in text):
            return TableRecords(_hub(text.removeprefix("hub:"), split), text), False
        raise DataError(f"there is no {path}", "a folder, a .parquet file, or a data set on the hub (org/name, or hub:name)")
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{path} is a {path.suffix or 'nameless'} file", "a .parquet file or a folder is needed")
        return TableRecords(_parquet([path]), path.name), False
    kind = read_json(path / "manifest.json").get("format") if (path / "manifest.json").is_file() else None
    if kind in ("sfumato-emoji", "sfumato-scenes"):
        return _world(path, size), True
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return TableRecords(_arrow(path, split), path.name), False
    parquet = sorted(path.rglob("*.parquet"))
    if parquet:
        return TableRecords(_parquet(parquet), path.name), False
    return FolderRecords(path), False


class _EmojiWorld(TableRecords):
    """EmojiWorld's rows; at a size other than the stored one a picture is drawn from its SVG instead of being resampled."""

    def __init__(self, table: pa.Table, name: str, redraw: int | None) -> None:
        super().__init__(table, name)
        self._redraw = redraw

    def image(self, i: int) -> bytes:
        if self._redraw is None:
            return super().image(i)
        from .render import rasterise

        return rasterise(self._table["svg"][i].as_py(), self._redraw)


def _world(folder: Path, size: int) -> Records:
    """The verified rows of a folder that `sfumato data` built. Scenes of another size are resampled: a scene has no SVG."""
    manifest = read_json(folder / "manifest.json")
    drawings = manifest["format"] == "sfumato-emoji"
    again = f"sfumato data emoji --out {folder}" if drawings else f"sfumato data scenes --out {folder} and the options in its manifest.json"
    if not manifest.get("complete"):
        raise DataError(f"{folder} was not built to the end", f"go on with: {again}")
    paths = [folder / shard["file"] for shard in manifest["shards"]]
    for path, shard in zip(paths, manifest["shards"], strict=True):
        try:
            files.verify(path, shard["sha256"])
        except WeightsError as error:
            raise DataError(error.message, f"build it anew with: {again}") from error
    return _EmojiWorld(_parquet(paths), folder.name, size if drawings and size != manifest["size"] else None)


def _parquet(paths: list[Path]) -> pa.Table:
    """All rows of these files, in memory (a set larger than memory goes into an Arrow folder, which is memory-mapped)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for path in paths:
        try:
            tables.append(pq.read_table(path))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot read {path}: {error}", "a whole parquet file is needed") from error
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise DataError(f"the files beside {paths[0]} have different columns: {error}", "name one file") from error


def _arrow(folder: Path, split: str | None) -> pa.Table:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # datasets raises many kinds on a damaged folder
        raise DataError(f"cannot read the Arrow folder {folder}: {error}", "save it again with Dataset.save_to_disk") from error
    return _table(loaded, split, str(folder))


def _hub(name: str, split: str | None) -> pa.Table:
    import datasets

    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # offline, absent, private or scripted: the library's own words tell which
        raise DataError(
            f"cannot load the data set {name!r} from the hub: {type(error).__name__}: {error}",
            "check the name and the network, or name a local folder or .parquet file",
        ) from error
    return _table(loaded, split, name)


def _table(loaded: Any, split: str | None, name: str) -> pa.Table:
    """The Arrow table (memory-mapped) of a data set, or of its splits in a row with a `split` column."""
    import datasets
    import pyarrow as pa

    if isinstance(loaded, datasets.Dataset):
        return loaded.with_format("arrow")[:]
    if not loaded:
        raise DataError(f"{name} holds no split")
    named = split is None or split in loaded  # a split the data set lacks is made by the hash rule from all of its rows
    tables = []
    for part, dataset in loaded.items():
        table = dataset.with_format("arrow")[:]
        if named and "split" not in table.column_names:
            table = table.append_column("split", pa.array([str(part)] * len(table)))
        tables.append(table)
    return pa.concat_tables(tables, promote_options="default")
