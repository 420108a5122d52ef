"""The programs of `examples/` make real checkpoints that the gate finds sound."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf_files
import pytest

from gate import demo

pytestmark = [pytest.mark.model, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "examples"
MADE = {
    "fp8": ("modelopt_export.py", "--recipe", "FP8_DEFAULT_CFG"),
    "smoothed": ("modelopt_export.py", "--recipe", "INT8_SMOOTHQUANT_CFG"),
    "w8a8": ("compressed_tensors_save.py", "--scheme", "W8A8"),
    "fp8-dynamic": ("compressed_tensors_save.py", "--scheme", "FP8_DYNAMIC"),
    "nf4": ("bitsandbytes_save.py", "--kind", "nf4"),
    "int8": ("bitsandbytes_save.py", "--kind", "int8"),
}


def run(name: str, *words: "str | Path") -> None:
    subprocess.run([sys.executable, EXAMPLES / name, *words], check=True)


@pytest.mark.parametrize("made", MADE)
def test_what_an_example_makes_is_sound(
    made: str, tmp_path: Path, export: Callable[[str], Path]
) -> None:
    program, *options = MADE[made]
    if program == "modelopt_export.py":
        text = tmp_path / "topics.txt"
        text.write_text("\n\n".join(demo.topics()[:4]))
        options += ["--windows", "2", "--text", str(text)]
    run(program, export("bf16"), tmp_path / made, *options)
    done = subprocess.run([sys.executable, "-m", "gate", "lint", tmp_path / made], check=False)
    assert done.returncode == 0


def test_a_gguf_file_in_another_type_is_sound(tmp_path: Path) -> None:
    source = gguf_files.real_file()
    run("gguf_requantize.py", source, tmp_path / "q8.gguf", "--type", "Q8_0")
    done = subprocess.run([sys.executable, "-m", "gate", "lint", tmp_path / "q8.gguf"], check=False)
    assert done.returncode == 0
