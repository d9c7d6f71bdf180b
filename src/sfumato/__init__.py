"""sfumato: a workbench for text-to-image diffusion transformers.

Importing the package costs nothing: torch is loaded by the first part that needs it. `sfumato.load(name_or_dir)` is the way in.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` is looked up in `sfumato.pipelines` on first use.

    By name, not with an import statement: this module is above every room in the import graph, so a room that reads
    `__version__` would otherwise count as importing the pipelines.
    """
    if name == "load":
        load = importlib.import_module("sfumato.pipelines").load
        globals()["load"] = load
        return load
    raise AttributeError(f"module 'sfumato' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
