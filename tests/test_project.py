"""The project as a whole: what an import costs, what is pinned, what the tree may contain."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sfumato

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sfumato"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def loaded_after(statements: str) -> set[str]:
    """Names of the top-level packages in `sys.modules` after `statements` ran in a fresh interpreter."""
    code = f"{statements}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def tree() -> list[Path]:
    """The files of the repository: tracked, or new and not ignored."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def test_import_is_cheap() -> None:
    heavy = {"torch", "numpy", "transformers", "diffusers", "datasets", "rich", "tyro"}
    assert not heavy & loaded_after("import sfumato")


def test_rooms_import_without_the_slow_libraries() -> None:
    rooms = sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))
    assert "core" in rooms
    slow = {"transformers", "diffusers", "datasets", "sentence_transformers", "gradio", "ray"}
    assert not slow & loaded_after("\n".join(f"import sfumato.{room}" for room in rooms))


def test_unknown_attribute_is_an_attribute_error() -> None:
    assert "load" in dir(sfumato)
    with pytest.raises(AttributeError, match="laod"):
        sfumato.laod  # noqa: B018


def test_only_the_command_line_knows_the_papers() -> None:
    """Here and not among import-linter's contracts: its `protected` contract cannot name a room before it exists."""
    graph = grimp.build_graph("sfumato", cache_dir=None)
    papers = {name for name in graph.modules if name == "sfumato.papers" or name.startswith("sfumato.papers.")}
    importers = {importer for name in papers for importer in graph.find_modules_that_directly_import(name)} - papers
    strangers = {name for name in importers if name.split(".")[1] != "cli"}
    assert not strangers, f"only sfumato.cli may import sfumato.papers, not {sorted(strangers)}"


def test_every_direct_dependency_is_pinned_within_its_bounds() -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    project = PROJECT["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        pin = {canonicalize_name(name): version for name, version in pins.items()}.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement.name}=={pin} is outside {requirement.specifier}"


def test_no_machine_paths_in_the_tree() -> None:
    machine = re.compile(r"(?<![\w.\-/])/(?:root|home|Users|work|mnt|opt)/\w")
    found = []
    for path in tree():
        data = path.read_bytes()
        if b"\0" in data[:8192]:
            continue
        for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), start=1):
            if machine.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_shipped_weights_are_not_ignored_and_fit() -> None:
    assets = [path for path in (PACKAGE / "assets").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    missing = set(assets) - set(tree())
    assert not missing, f"in src/sfumato/assets but not in the repository: {sorted(map(str, missing))}"
    assert sum(path.stat().st_size for path in assets) <= 90e6


def test_demo_prompts_name_a_concept_and_a_style() -> None:
    styles = ("noto", "fluent 3d", "fluent flat", "fxemoji", "twemoji", "emojione")
    lines = (ROOT / "examples" / "demo.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 8
    for line in lines:
        assert re.fullmatch(rf"[a-z ]+, (?:{'|'.join(styles)}) style", line), line
