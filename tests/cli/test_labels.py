"""`sfumato generate` with a model that draws classes: labels and numbers stand where prompts do."""

from pathlib import Path

from tests.cli.conftest import Cli
from tests.pipelines.peers import dit, saved
from tests.pipelines.test_dit import named


def test_the_command_line_takes_them_as_prompts(cli: Cli, tmp_path: Path):
    folder = named(saved(dit(), tmp_path / "model"))
    ran = cli("generate", "--model", str(folder), "golden retriever", "3", "--steps", "2", "--out", str(tmp_path / "out"))
    assert ran.code == 0, ran.err
    assert {path.name for path in (tmp_path / "out").glob("*-0.png")} == {"golden-retriever-0.png", "3-0.png"}
    assert "did you mean 'tench'" in cli("generate", "--model", str(folder), "tensh", "--out", str(tmp_path / "out")).err
