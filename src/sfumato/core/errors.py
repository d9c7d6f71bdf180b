"""Errors that teach. Every error a user can cause is a `SfumatoError`: it says what was wrong, the value, and what would be right.

The command line prints `str(error)` alone (no traceback without `--debug`) and exits with `error.exit_code`:
2 when the request itself was wrong (usage), 1 when a sound request could not be carried out (failure).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SfumatoError(Exception):
    """Base class. `message` says what is wrong and names the value; `hint` says what would be right."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n  {hint}" if hint else message)
        self.message = message
        self.hint = hint


class UsageError(SfumatoError):
    """The request is wrong in itself: an option, a size, a name. Nothing was started."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that no registry entry answers to; the nearest ones are offered."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        self.nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        nearest = " or ".join(repr(n) for n in self.nearest)
        listing = ", ".join(names) or "none"
        super().__init__(
            f"unknown {kind} {name!r}",
            f"did you mean {nearest}? known: {listing}" if nearest else f"known: {listing}",
        )


class ConfigError(UsageError):
    """A configuration with an unknown field or a value outside its range."""


class ConflictError(UsageError):
    """Two parts that cannot act together, or a part that a model cannot carry; the reason is in the message."""


class WeightsError(SfumatoError):
    """A weight file that is missing, damaged, misshapen or of the wrong family."""


class DataError(SfumatoError):
    """A data source that cannot be read at all (single broken items are quarantined instead)."""


class OutputError(SfumatoError):
    """A result that could not be written: a full or read-only disk, or a file that must not be overwritten."""


class NonFiniteError(SfumatoError):
    """A NaN or an infinity, caught where it appeared: site, step and dtype are in the message."""


class CancelledError(SfumatoError):
    """The user stopped the run; what was finished stays on disk."""

    exit_code = 130
