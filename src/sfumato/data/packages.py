"""The openly licensed npm packages that EmojiWorld is drawn from: which ones, where they lie, and how they are fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core.errors import DataError, UnknownNameError

from .names import read_json

LABELS = ("emojibase-data", "17.0.0")
TRAINABLE = ("Apache-2.0", "MIT", "CC-BY-4.0")
HELD_OUT = ("CC-BY-SA-4.0",)


@dataclass(frozen=True)
class Style:
    """One icon set: `word` names the style in captions and splits; `licence` is its SPDX name."""

    word: str
    package: str
    version: str
    licence: str

    @property
    def trainable(self) -> bool:
        """Whether weights that ship may be trained on it; share-alike sets are held-out styles."""
        return self.licence in TRAINABLE

    @property
    def slug(self) -> str:
        return self.word.replace(" ", "-")


STYLES = (
    Style("noto", "@iconify-json/noto", "1.2.9", "Apache-2.0"),
    Style("fluent 3d", "@iconify-json/fluent-emoji", "1.2.7", "MIT"),
    Style("fluent flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT"),
    Style("fxemoji", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0"),
    Style("twemoji", "@iconify-json/twemoji", "1.2.5", "CC-BY-4.0"),
    Style("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0"),
    Style("openmoji", "@iconify-json/openmoji", "1.2.29", "CC-BY-SA-4.0"),
    Style("emojione v1", "@iconify-json/emojione-v1", "1.2.3", "CC-BY-SA-4.0"),
)

# More hands for the same concepts, for a judge alone to learn from. High contrast has fluent flat's shapes, monotone emojione's.
LESSONS = (
    Style("noto v1", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0"),
    Style("fluent high contrast", "@iconify-json/fluent-emoji-high-contrast", "1.2.6", "MIT"),
    Style("emojione monotone", "@iconify-json/emojione-monotone", "1.2.1", "CC-BY-4.0"),
    Style("streamline", "@iconify-json/streamline-emojis", "1.2.4", "CC-BY-4.0"),
)


def choose_styles(words: Sequence[str] | None) -> tuple[Style, ...]:
    """The styles of these words in the tables' order; None means all of `STYLES`. Raises `UnknownNameError` with the nearest words."""
    if words is None:
        return STYLES
    known = {style.word: style for style in (*STYLES, *LESSONS)}
    for word in words:
        if word not in known:
            raise UnknownNameError("style", word, known)
    return tuple(style for word, style in known.items() if word in words)


@dataclass(frozen=True)
class IconSet:
    """The parsed files of one style's package: `icons` is icons.json, `chars` maps hexcodes to icon names (may be empty)."""

    style: Style
    version: str
    licence: str
    icons: dict[str, Any]
    chars: dict[str, str]


def read_icon_set(style: Style, modules: Path) -> IconSet:
    """Read one package from a `node_modules` folder. Raises `DataError` when it is missing, damaged or under another licence."""
    folder = modules / style.package
    package, info = read_json(folder / "package.json"), read_json(folder / "info.json")
    licence = info["license"]["spdx"]
    if licence != style.licence:
        raise DataError(f"{style.package} {package['version']} is under {licence}, not {style.licence}", f"use version {style.version}")
    chars = folder / "chars.json"
    return IconSet(style, package["version"], licence, read_json(folder / "icons.json"), read_json(chars) if chars.exists() else {})


def cache_folder() -> Path:
    """Where fetched packages are kept: sfumato's folder in the user's cache ($XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfumato" / "npm"


def find_packages(styles: Sequence[Style], packages: Path | None) -> Path:
    """A `node_modules` folder that holds emojibase-data and every style's package.

    `packages` names an existing one (or the folder around it); None means the cache, filled with the npm client when something
    is missing or of another version. Raises `DataError` when a package is missing or cannot be fetched.
    """
    wanted = [LABELS, *((style.package, style.version) for style in styles)]
    if packages is None:
        modules = cache_folder() / "node_modules"
        if any(_version(modules / name) != version for name, version in wanted):
            _npm_install(cache_folder(), wanted)
        return modules
    modules = packages / "node_modules" if (packages / "node_modules").is_dir() else packages
    missing = [f"{name}@{version}" for name, version in wanted if not (modules / name / "package.json").is_file()]
    if missing:
        raise DataError(f"{packages} lacks {', '.join(missing)}", f"npm install --prefix {packages} {' '.join(missing)}")
    return modules


def _version(folder: Path) -> str | None:
    path = folder / "package.json"
    return str(read_json(path).get("version")) if path.is_file() else None


def _npm_install(folder: Path, wanted: Sequence[tuple[str, str]]) -> None:
    names = [f"{name}@{version}" for name, version in wanted]
    command = f"npm install --prefix {folder} {' '.join(names)}"
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            "the npm client is not installed, and the emoji packages come through it",
            f"install Node.js, or run elsewhere\n    {command}\n  and name the folder: --packages DIR/node_modules",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", *names]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=900, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"npm could not fetch the emoji packages: {error}", f"try by hand: {command}") from error
    if done.returncode:
        said = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise DataError(f"npm could not fetch the emoji packages (exit status {done.returncode}):\n    {said}", f"try by hand: {command}")
