"""Every option of `sfumato reproduce` reaches the check."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sfumato.cli.reproduce import Reproduce

from .conftest import Cli


def test_every_option_reaches_the_check(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato.papers import claims

    seen: list[tuple[Any, ...]] = []
    passed = [True]

    def check(*arguments: Any, **options: Any) -> claims.Report:
        seen.append((*arguments, options))
        finding = claims.Finding("two and two", 4.0, 4.0 if passed[0] else 5.0, passed[0])
        return claims.Report("sd3-mmdit", "smoke", "not yet", "so", (finding,), (), (), "", {}, 0.1)

    monkeypatch.setattr(claims, "reproduce", check)
    turned: dict[str, tuple[object, ...]] = {
        "budget": ("--budget", "cpu"), "out": ("--out", "o"), "data": ("--data", "d"), "model": ("--model", "m"),
        "judge": ("--judge", "j"), "work": ("--work", "w"),
    }  # fmt: skip
    assert set(turned) | {"slug", "list", "markdown", "json", "debug"} == {f.name for f in fields(Reproduce)}
    assert "two and two" in cli("reproduce", "sd3-mmdit").out
    for name, words in turned.items():
        assert cli("reproduce", "sd3-mmdit", *words).code == 0
        assert seen[0] != seen[-1], name
    assert cli("reproduce", "sd3-mmdit", "--json").lines[0]["verdict"] == "not yet"
    passed[0] = False
    assert cli("reproduce", "sd3-mmdit").code == 1 and cli("reproduce", "sd3-mmdit", "--budget", "cpu").code == 0
    assert "sd3-mmdit" in cli("reproduce", "--list").out
    assert cli("reproduce", "--list", "--markdown", "claims.md").code == 0 and "# Claims" in Path("claims.md").read_text()
    for words in ((), ("--markdown", "x.md"), ("sd3-mmdit", "--list")):
        assert cli("reproduce", *words).code == 2
    monkeypatch.undo()
    assert "did you mean" in cli("reproduce", "sd3-mmdi").err
