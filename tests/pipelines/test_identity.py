"""Checksums that are taken when asked for: of one file, of shards, and of the very file that was loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sfumato.core import files
from sfumato.core.errors import WeightsError
from sfumato.pipelines.identity import Identity


def test_checksums_are_taken_once_and_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [tmp_path / "a", tmp_path / "b"]
    for path in parts:
        path.write_text(path.name)
    hashed: list[Path] = []
    monkeypatch.setattr("sfumato.pipelines.identity.sha256", lambda path: hashed.append(path) or files.sha256(path))
    model = Identity("model", {"sha256": parts, "codec_sha256": parts[:1]})
    assert list(model) == ["name", "sha256", "codec_sha256"] and len(model) == 3 and model["name"] == "model" and not hashed
    whole = "".join(hashlib.sha256(path.name.encode()).hexdigest() for path in parts)
    expected = {
        "name": "model",
        "sha256": hashlib.sha256(whole.encode()).hexdigest(),
        "codec_sha256": hashlib.sha256(b"a").hexdigest(),
    }
    assert dict(model) == dict(model) == expected and len(hashed) == 3
    assert model.get("other") is None


def test_a_file_that_changed_since_is_not_what_was_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")
    model = Identity("model", {"sha256": [path]})
    path.write_text("and after")
    with pytest.raises(WeightsError, match="was written to after"):
        model["sha256"]
    path.unlink()
    with pytest.raises(WeightsError, match="cannot read"):
        model["sha256"]
