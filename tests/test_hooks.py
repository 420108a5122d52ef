"""The pre-commit hook: what it is called with, and for which files."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from gate.cli import cli

(HOOK,) = yaml.safe_load((Path(__file__).parent.parent / ".pre-commit-hooks.yaml").read_text())


def test_the_entry_is_a_command_that_exists() -> None:
    program, verb, *options = shlex.split(HOOK["entry"])
    assert program == "gate"
    known = {name for option in cli.commands[verb].params for name in option.opts}
    assert set(options) <= known
    assert HOOK["id"] == "quant-gate-lint" and HOOK["require_serial"] is True
    assert HOOK["language"] == "python" and "additional_dependencies" not in HOOK


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("models/a/model-00001-of-00002.safetensors", True),
        ("model.Q4_K_M.gguf", True),
        ("models/a/config.json", True),
        ("config.json", True),
        ("models/a/hf_quant_config.json", True),
        ("models/a/model.safetensors.index.json", True),
        ("models/a/quantize_config.json", True),
        ("models/a/tokenizer.json", True),
        ("app/myconfig.json", False),
        ("package.json", False),
        ("weights.safetensors.txt", False),
        ("README.md", False),
    ],
)
def test_files(file: str, wanted: bool) -> None:
    assert bool(re.search(HOOK["files"], file)) is wanted
