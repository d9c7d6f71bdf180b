"""Every option of `sfumato inspect` bites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from .conftest import Cli, Ran
from .knobs import refused

HEAT, TIME = ("--heatmap", "a cat"), ("--profile", "--steps", "1")
# Option -> (the command it turns, the words that turn it, how it shows in the numbers printed; None: they differ).
INSPECT: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[Ran, Ran], bool] | None]] = {
    "against": ((), ("--against", "nowhere"), refused("--overwrite means nothing to the LoRA")),
    "heatmap": (HEAT, ("--heatmap", "a dog"), None),
    "profile": ((), ("--profile",), lambda plain, turned: "shares" in turned.lines[0]),
    "steps": (HEAT, ("--steps", "3"), None),
    "guidance": (HEAT, ("--guidance", "2"), None),
    "seed": (HEAT, ("--seed", "5"), None),
    "size": ((), ("--size", "48x32"), None),
    "tokens": ((), ("--tokens", "20"), None),
    "blocks": (HEAT, ("--blocks", "0"), None),
    "out": ((), ("--out", "here"), lambda plain, turned: Path("here/anatomy.svg").is_file()),
    "json": ((), (), lambda plain, turned: turned.out.startswith("{")),
    "overwrite": (TIME, ("--overwrite",), lambda plain, turned: turned.code == 0),
    "device": ((), ("--device", "warp"), refused("device 'warp'")),
    "dtype": ((), ("--dtype", "bfloat16"), None),
    "quiet": ((), ("--quiet",), lambda plain, turned: turned.code == 0),
    "debug": ((), ("--debug", "--tokens", "1"), refused("Traceback")),
}


def test_every_option_of_inspect(cli: Cli, model: Path) -> None:
    from sfumato.cli.inspect import Inspect

    assert set(INSPECT) | {"model"} == {f.name for f in fields(Inspect)}
    assert refused("unknown model 'nowhere'")(Ran(0, "", ""), cli("inspect", "nowhere"))
    plain: dict[tuple[str, ...], Ran] = {}
    for name, (command, words, bites) in INSPECT.items():
        if command not in plain:
            plain[command] = cli("inspect", model, *command, "--json", "--overwrite")
            assert plain[command].code == 0, plain[command].err
        turned = cli(
            "inspect", model, *command, *words, "--json", *(() if "--overwrite" in words or "--out" in words else ("--overwrite",))
        )
        assert bites(plain[command], turned) if bites else plain[command].lines != turned.lines, (name, turned)
    assert cli("inspect", model, *TIME).code == 1  # what --overwrite is for
    assert not cli("inspect", model).out.startswith("{")
