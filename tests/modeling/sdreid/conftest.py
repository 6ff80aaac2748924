"""The conversion of a checkpoint of the reference release."""

import pytest
import torch
from release_files import YAML
from worlds.programs import run_tool


@pytest.fixture
def convert(tmp_path):
    """Converts a file that holds `content`; gives the exit code and what was printed."""

    def run(content: dict, architecture: str, *more: str) -> tuple[int, str]:
        torch.save(content, tmp_path / "theirs.pth")
        (tmp_path / "theirs.yml").write_text(YAML.format(architecture=architecture))
        files = ["--weights", tmp_path / "theirs.pth", "--config-file", tmp_path / "theirs.yml"]
        output = tmp_path / "ours" / "model_best.pth"
        code, out, error = run_tool("convert_checkpoint.py", *files, "--output", output, *more)
        return code, out + error

    return run
