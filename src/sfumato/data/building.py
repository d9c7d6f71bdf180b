"""A folder of parquet shards that is built piece by piece: what EmojiWorld's drawings and its scenes have in common on disk.

`manifest.json` holds the request (what was asked) and a record of every shard with its sha256. A shard is a pure function of its
fingerprint, so a second run verifies and skips it, an interrupted run goes on where it stopped, and equal requests give equal bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sfumato.core import files
from sfumato.core.errors import OutputError

from .names import read_json

ROWS_PER_SHARD = 256

Progress = Callable[[int, int, str], None]
"""Called with (rows done, rows in all, what is being made)."""

Job = TypeVar("Job")
Made = TypeVar("Made")


def open_folder(out: Path, request: dict[str, Any], overwrite: bool) -> dict[str, dict[str, Any]]:
    """The shards of an earlier run of the same request, by file name; refuses a folder that holds anything else.

    With `overwrite`, another build's shards are removed. Raises `OutputError`.
    """
    path = out / "manifest.json"
    if not path.exists():
        if out.is_file():
            raise OutputError(f"{out} is a file", "name a folder")
        if out.is_dir() and any(out.iterdir()) and not overwrite:
            raise OutputError(f"{out} holds something else", "choose another folder, or pass --overwrite")
        return {}
    manifest = read_json(path)
    if {name: manifest.get(name) for name in request} == request:
        return {shard["file"]: shard for shard in manifest.get("shards", ())}
    if not overwrite:
        changed = [name for name in request if manifest.get(name) != request[name]]
        raise OutputError(f"{out} holds another build (its {', '.join(changed)} differ)", "choose another folder, or pass --overwrite")
    try:
        for shard in manifest.get("shards", ()):
            (out / shard["file"]).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot replace the build in {out}: {error.strerror}", "name a folder you may write to") from error
    return {}


def sound(out: Path, record: dict[str, Any], mark: str) -> bool:
    """Whether a recorded shard has this fingerprint and is on disk, whole."""
    path = out / record["file"]
    return record.get("fingerprint") == mark and path.is_file() and files.sha256(path) == record.get("sha256")


def write_table(path: Path, rows: Sequence[dict[str, Any]], schema: Any) -> dict[str, Any]:
    """Write `rows` (each with a `split`) as parquet, atomically: (rows, splits, sha256) of the shard's record. Raises `OutputError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows), schema=schema)
    files.write_with(path, lambda temporary: pq.write_table(table, temporary, compression="zstd", row_group_size=ROWS_PER_SHARD))
    splits = Counter(row["split"] for row in rows)
    return {"rows": len(rows), "splits": dict(sorted(splits.items())), "sha256": files.sha256(path)}


def write_manifest(out: Path, request: dict[str, Any], shards: list[dict[str, Any]], *, complete: bool, **summary: Any) -> None:
    """Write `manifest.json`: the request, the summary, the shards' records."""
    content = {**request, "complete": complete, **summary, "shards": shards}
    write_changed(out / "manifest.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def write_changed(path: Path, content: bytes) -> None:
    """Write only what differs, so that re-running a finished build touches no file."""
    if not path.is_file() or path.read_bytes() != content:
        files.write_bytes(path, content)


def in_order(make: Callable[[Job], Made], jobs: Sequence[Job], workers: int) -> Iterator[Made]:
    """`make` of each job, in order; with `workers` > 1 in that many processes."""
    if workers <= 1 or len(jobs) <= 1:
        yield from map(make, jobs)
        return
    import multiprocessing
    import signal

    # Forking needs no importable main module; the children leave Ctrl-C to the parent.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with multiprocessing.get_context(method).Pool(min(workers, len(jobs)), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap(make, jobs, chunksize=8)


@contextmanager
def reporter(progress: bool | Progress) -> Iterator[Progress]:
    """The caller's own function, a live bar on standard error, or silence."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda done, total, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("drawing {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
