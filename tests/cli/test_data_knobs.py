"""Every option of `sfumato data emoji` reaches the builder."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sfumato.cli.data import Emoji

from .conftest import Cli


def test_every_option_reaches_the_builder(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.data import emoji

    seen: list[dict[str, Any]] = []

    def build(out: Path, **options: Any) -> emoji.Report:
        seen.append({"out": out, **options})
        return emoji.Report(out, {"noto": {"train": 1}}, {}, 0, 0, 1, 0)

    monkeypatch.setattr(emoji, "build_emoji", build)
    turned: dict[str, tuple[object, ...]] = {
        "out": (), "size": ("--size", 64), "styles": ("--styles", "noto", "fxemoji"), "skin_tones": ("--skin-tones",),
        "packages": ("--packages", "p"), "workers": ("--workers", 1), "overwrite": ("--overwrite",),
    }  # fmt: skip
    assert set(turned) | {"quiet", "debug"} == {f.name for f in fields(Emoji)}
    assert cli("data", "emoji", "--out", "plain").code == 0
    for name, words in turned.items():
        assert cli("data", "emoji", "--out", name, *words).code == 0
        assert seen[0][name] != seen[-1][name], name
