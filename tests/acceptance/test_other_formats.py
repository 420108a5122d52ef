"""SmolLM2-135M as the libraries of other formats quantize it: export to exit code."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_exit_codes import gate, said
from test_real_model import PERPLEXITY_ONLY, workplace

pytestmark = [pytest.mark.model, pytest.mark.slow]

INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
TOKEN = {"num_bits": 8, "strategy": "token", "dynamic": True}


def compressed(scheme: dict[str, Any]) -> Callable[[Path, Path], None]:
    """By compressed-tensors, with the scales of the largest weights."""

    def make(original: Path, path: Path) -> None:
        from compressed_checkpoints import compress

        shutil.copytree(original, path)
        compress(path, scheme)

    return make


def quanto(weights: str) -> Callable[[Path, Path], None]:
    """By optimum-quanto, the head included."""

    def make(original: Path, path: Path) -> None:
        from optimum.quanto import QuantizedModelForCausalLM, qtypes
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(original, dtype="auto")
        QuantizedModelForCausalLM.quantize(model, weights=qtypes[weights]).save_pretrained(path)
        AutoTokenizer.from_pretrained(original).save_pretrained(path)

    return make


def block_fp8(original: Path, path: Path) -> None:
    """By transformers' own operation: it leaves out what blocks do not divide, so they are 64."""
    from checkpoints import edit_json, edit_tensors
    from compressed_checkpoints import raw, values
    from transformers import FineGrainedFP8Config
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    config = FineGrainedFP8Config(weight_block_size=(64, 64))
    quantize = Fp8Quantize(SimpleNamespace(quantization_config=config))
    shutil.copytree(original, path)

    def change(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.endswith("_proj.weight")]:
            made = quantize._quantize_one(name, values(tensors.pop(name)))
            tensors |= {key: raw(value) for key, value in made.items()}

    edit_tensors(path, change)
    declared = {"quant_method": "fp8", "weight_block_size": [64, 64]}
    edit_json(path, "config.json", lambda c: c.update(quantization_config=declared))


MADE: dict[str, tuple[Callable[[Path, Path], None], int]] = {
    "INT8 per token": (compressed({"weights": INT8, "input_activations": TOKEN}), 0),
    "FP8 dynamic": (
        compressed({"weights": FP8, "input_activations": TOKEN | {"type": "float"}}),
        0,
    ),
    "block FP8": (block_fp8, 0),
    "quanto qint8": (quanto("qint8"), 0),
    "quanto qfloat8": (quanto("qfloat8"), 0),
    "W4A16 g64": (compressed({"weights": INT4}), 1),
    "W4A16 g64 asym": (compressed({"weights": INT4 | {"symmetric": False}}), 1),
}
"""And the exit code: no four bits that are merely rounded pass on so small a model."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path]) -> Path:
    """A working directory with the original's baseline."""
    settings = PERPLEXITY_ONLY.format(reference=export("bf16"))
    directory = workplace(tmp_path_factory.mktemp("judged"), settings)
    said(gate(directory, "eval", str(export("bf16")), "-o", "baselines/bf16.json"), 0)
    return directory


@pytest.mark.parametrize("name", MADE)
def test_it_is_judged(
    name: str, place: Path, export: Callable[[str], Path], tmp_path: Path
) -> None:
    make, code = MADE[name]
    make(export("bf16"), tmp_path / "m")
    text = said(gate(place, "check", str(tmp_path / "m")), code)
    ratio = float(re.search(r"perplexity on \S+ is ([\d.]+) times", text)[1])
    assert (ratio <= 1.10) is (code == 0)
    assert re.search(r"Lint +(no findings|1 note);", text), "the head beside its embedding"
