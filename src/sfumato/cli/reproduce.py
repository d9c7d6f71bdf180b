"""`sfumato reproduce`: run the check of a published claim, or list what is known of all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro import conf

from ..core.errors import UsageError
from ..core.files import write_bytes
from .verb import Verb, note, unset


@dataclass(frozen=True, kw_only=True)
class Reproduce(Verb):
    """Check the claim of a published system and record what was found in docs/claims/SLUG.json.

    A claim that does not hold is a result, so exit code 0; code 1 means that an exact check of the parts failed (budget smoke).
    """

    # Which claim, for example sd3-mmdit.
    slug: Annotated[conf.Positional[str | None], unset("see --list", "SLUG")] = None
    # smoke: seconds. cpu: at most an hour on 2 cores. gpu: at most 25 minutes on a large GPU.
    budget: Literal["smoke", "cpu", "gpu"] = "smoke"
    # Folder of the records.
    out: Path = Path("docs/claims")
    # EmojiWorld's folder, for budgets that train.
    data: Annotated[Path | None, unset("data/emoji")] = None
    # The pipeline whose codec and text encoder are used.
    model: Annotated[str | None, unset("emoji-mmdit")] = None
    # A judge's folder.
    judge: Annotated[Path | None, unset("the one that ships")] = None
    # Folder of intermediate results; a check that was stopped goes on from it.
    work: Path = Path("runs/claims")
    # List the claims and what was found so far.
    list: bool = False
    # With --list: write the table into this file.
    markdown: Annotated[Path | None, unset("it is printed", "FILE")] = None
    # Print the record as JSON.
    json: bool = False

    def run(self) -> int:
        from ..papers import claims

        if self.list:
            return self._listing()
        if self.markdown is not None:
            raise UsageError("--markdown writes the list of claims", "sfumato reproduce --list --markdown FILE")
        if self.slug is None:
            raise UsageError("no claim was named", "sfumato reproduce --list shows them")
        report = claims.reproduce(self.slug, self.budget, self.out, data=self.data, model=self.model, judge=self.judge, work=self.work)
        if self.json:
            print(json.dumps(report.record(), ensure_ascii=False))
        else:
            for finding in report.findings:
                mark = {True: "ok  ", False: "FAIL", None: "    "}[finding.passed]
                print(f"{mark} {finding.name}: {finding.found} {finding.unit}".rstrip() + f" (expected {finding.expected})")
            print(f"{self.slug}, {self.budget}: {report.verdict}; {report.summary}")
            print(self.out / f"{self.slug}.json")
        return 0 if report.ok or self.budget != "smoke" else 1

    def _listing(self) -> int:
        from ..papers import claims

        if self.slug is not None:
            raise UsageError(f"--list shows all claims, not only {self.slug!r}", "leave out one of the two")
        if self.json:
            print(json.dumps([asdict(status) for status in claims.listing(self.out)], ensure_ascii=False))
        elif self.markdown is None:
            for status in claims.listing(self.out):
                print(f"{status.slug:24} {status.verdict:15} {status.detail}".rstrip())
        if self.markdown is not None:
            text = claims.markdown(self.out)
            write_bytes(self.markdown, text.encode())
            note(f"written: {self.markdown}")
        return 0
