"""`sfumato reproduce`: run the check of a published claim, or list what is known of all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro import conf

from ..core.errors import UsageError
from ..core.files import write_bytes
from .verb import Verb, unset


@dataclass(frozen=True, kw_only=True)
class Reproduce(Verb):
    """Check the claim of a published system and write the verdict to docs/claims/SLUG.json; exit code 0 whatever the verdict."""

    # Which claim, for example sd3-mmdit.
    slug: Annotated[conf.Positional[str | None], unset("see --list", "SLUG")] = None
    # smoke: seconds. cpu: at most an hour on 2 cores. gpu: at most 25 minutes on a large GPU.
    budget: Literal["smoke", "cpu", "gpu"] = "smoke"
    # Folder of the records.
    out: Path = Path("docs/claims")
    # List the claims and what was found so far.
    list: bool = False
    # With --list: write the table into this file.
    markdown: Annotated[Path | None, unset("it is printed", "FILE")] = None

    def run(self) -> int:
        from ..papers import claims

        if self.list:
            if self.slug is not None:
                raise UsageError(f"--list shows all claims, not only {self.slug!r}", "leave out one of the two")
            if self.markdown is not None:
                write_bytes(self.markdown, claims.markdown().encode())
                print(self.markdown)
            else:
                print(claims.markdown())
            return 0
        if self.markdown is not None:
            raise UsageError("--markdown writes the list of claims", "sfumato reproduce --list --markdown FILE")
        if self.slug is None:
            raise UsageError("no claim was named", "sfumato reproduce --list shows them")
        print(json.dumps(claims.reproduce(self.slug, self.budget, self.out), indent=2, ensure_ascii=False))
        return 0
