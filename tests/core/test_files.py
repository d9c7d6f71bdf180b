"""Files are whole or absent."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
import torch

from sfumato.core import files
from sfumato.core.errors import OutputError, WeightsError


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("crash", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_crash_inside_leaves_nothing_and_what_stood_there_stands(tmp_path: Path, crash: BaseException):
    path = tmp_path / "picture.png"
    for before in (None, b"former"):
        if before:
            path.write_bytes(before)
        with pytest.raises(type(crash)), files.atomic(path) as temporary:
            temporary.write_bytes(b"half")
            raise crash
        assert names(tmp_path) == ([] if before is None else ["picture.png"])
        assert before is None or path.read_bytes() == before


def test_a_write_replaces_the_whole_file_and_is_readable_by_others(tmp_path: Path):
    path = tmp_path / "deep" / "er" / "a.json"
    files.write_json(path, {"ü": [1, 2]})
    files.write_json(path, {"b": 1})
    assert json.loads(path.read_text()) == {"b": 1} and names(path.parent) == ["a.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_an_output_error_that_names_the_file(tmp_path: Path, number: int):
    path = tmp_path / "a.bin"
    with pytest.raises(OutputError, match=r"cannot write .*a\.bin") as caught, files.atomic(path):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(caught.value) and names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        files.write_bytes(tmp_path / "file" / "a", b"")


def test_overwriting_must_be_asked_for(tmp_path: Path):
    path = tmp_path / "a"
    files.refuse_overwrite(path, False)
    path.write_text("")
    files.refuse_overwrite(path, True)
    with pytest.raises(OutputError, match="--overwrite"):
        files.refuse_overwrite(path, False)


def test_checksums(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    good = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(path) == good
    files.verify(path, good)
    path.write_bytes(b"abd")
    with pytest.raises(WeightsError) as caught:
        files.verify(path, good)
    assert good in str(caught.value) and files.sha256(path) in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(WeightsError, match="missing"):
        files.verify(tmp_path / "b", good)


def test_tensors_round_trip_in_any_layout_and_are_readable_by_others(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    tensors = {"a": torch.randn(3, 4).T, "b": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last), "c": torch.arange(3)}
    files.write_tensors(path, tensors)
    back = files.read_tensors(path)
    assert back.keys() == tensors.keys() and all(torch.equal(back[n], t) for n, t in tensors.items())
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_tensors_that_cannot_be_written_or_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import safetensors.torch
    from safetensors import SafetensorError

    path = tmp_path / "w.safetensors"
    files.write_tensors(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(WeightsError, match="damaged"):
        files.read_tensors(path)
    with pytest.raises(WeightsError, match="missing"):
        files.read_tensors(tmp_path / "x")

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        files.write_tensors(tmp_path / "full.safetensors", {"a": torch.zeros(3)})
    assert names(tmp_path) == ["w.safetensors"]
