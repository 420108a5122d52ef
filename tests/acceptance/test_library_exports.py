"""SmolLM2 as bitsandbytes saves it and as GPTQ and AWQ pack it: from a directory to a verdict."""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import pytest
from quantizers import LINEARS, Quantizer, awq, gptq
from test_exit_codes import gate, said

from gate.records import Report

pytestmark = [pytest.mark.model, pytest.mark.slow]

SETTINGS = """
version: 1
checkpoints:
  - path: "**"
    reference: {reference}
metrics:
  - perplexity: {{file: wikitext.txt, window: 256, windows: 12}}
    max_ratio: 1.10
"""


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path], shared_data: Path
) -> Path:
    """A directory with settings, a text and the unquantized model's results."""
    root = tmp_path_factory.mktemp("libraries")
    (root / "quant-gate.yaml").write_text(SETTINGS.format(reference=export("bf16")))
    shutil.copy(shared_data / "wikitext-2-raw" / "wiki.test.raw", root / "wikitext.txt")
    said(gate(root, "eval", str(export("bf16")), "-o", "baselines/bf16.json", timeout_s=600), 0)
    return root


@pytest.fixture
def ratio(place: Path) -> Callable[[Path, int], float]:
    """Judges a checkpoint, and gives its perplexity over that of the unquantized one."""

    def judge(path: Path, code: int) -> float:
        report = place / f"{path.name}.json"
        words = ("check", str(path), "--report", f"json={report}")
        said(gate(place, *words, timeout_s=600), code)
        (found,) = Report.model_validate_json(report.read_bytes()).verdict.comparisons
        return found.retention

    return judge


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path]
) -> Callable[..., Path]:
    """What transformers saves of a model that bitsandbytes quantized."""

    @cache
    def make(kind: str, *, nested: bool = False, generated: bool = False) -> Path:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

        config = BitsAndBytesConfig(
            load_in_8bit=kind == "int8",
            load_in_4bit=kind != "int8",
            bnb_4bit_quant_type="nf4" if kind == "int8" else kind,
            bnb_4bit_use_double_quant=nested,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        model = AutoModelForCausalLM.from_pretrained(
            export("bf16"), quantization_config=config, device_map="cpu", dtype=torch.bfloat16
        )
        if generated:
            model.generate(torch.tensor([[504, 3575, 282]]), max_new_tokens=2, do_sample=False)
        path = tmp_path_factory.mktemp("saved") / f"{kind}-{nested}-{generated}"
        model.save_pretrained(path)
        AutoTokenizer.from_pretrained(export("bf16")).save_pretrained(path)
        return path

    return make


def says(path: Path) -> str:
    """How transformers' own reload of a directory goes on."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, device_map="cpu", dtype=torch.bfloat16)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=6, do_sample=False)
    return str(tokenizer.decode(answer[0]))


def test_int8_passes(saved: Any, ratio: Any) -> None:
    assert 0.98 <= ratio(saved("int8"), 0) <= 1.10


@pytest.mark.parametrize("generated", [False, True])
def test_nf4_with_nested_scales(saved: Any, ratio: Any, generated: bool) -> None:
    """Sound before and after: the scales are rounded once more, and talk sense."""
    path = saved("nf4", nested=True, generated=generated)
    assert 1.0 < ratio(path, 1) <= 1.35
    assert "Paris" in says(path)


def test_nf4_saved_before_generating(saved: Any, ratio: Any) -> None:
    path = saved("nf4")
    assert 1.0 < ratio(path, 1) <= 1.35
    assert "Paris" in says(path)


def test_nf4_saved_after_generating_fails(saved: Any, place: Path) -> None:
    """Where the library's kernels repacked the layers: its own reload talks nonsense."""
    from bitsandbytes.functional import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("bitsandbytes repacks layers on a CPU with AVX512-BF16 only")
    path = saved("nf4", generated=True)
    text = said(gate(place, "check", str(path)), 1)
    assert "absmax is BF16, not F32" in text
    assert "save it before it generates" in text
    assert "Paris" not in says(path)


def packed(reference: Path, path: Path, quantizer: Quantizer, declared: Mapping[str, Any]) -> Path:
    """The model with its linear layers rounded to the nearest, in a library's layout."""
    shutil.copytree(reference, path)

    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name, (_, shape, data) in list(tensors.items()):
            module = name.removesuffix(".weight")
            if module.rpartition(".")[2] in LINEARS:
                del tensors[name]
                upper = np.frombuffer(data, "<u2").astype("<u4") << 16
                stored = quantizer(upper.view("<f4").reshape(shape).astype(np.float64))
                tensors |= {f"{module}.{suffix}": value for suffix, value in stored.items()}

    checkpoints.edit_tensors(path, change)
    config = {"quantization_config": dict(declared)}
    checkpoints.edit_json(path, "config.json", lambda value: value.update(config))
    return path


@pytest.mark.parametrize(
    ("name", "code", "most"),
    [("gptq-8-bits", 0, 1.02), ("gptq-4-bits", 1, 1.5), ("gptq-order", 1, 1.5), ("awq", 1, 1.5)],
)
def test_packed(name: str, code: int, most: float, export: Any, ratio: Any, tmp_path: Path) -> None:
    """Eight bits pass; four, rounded without calibration, are told apart from a broken decode."""
    bits = 8 if name == "gptq-8-bits" else 4
    order = name == "gptq-order"
    if name == "awq":
        quantizer, declared = awq(64), {"quant_method": "awq", "zero_point": True}
    else:
        quantizer = gptq(bits, 64, desc_act=order, v2=order)
        declared = {"quant_method": "gptq", "sym": True, "desc_act": order}
        declared["checkpoint_format"] = "gptq_v2" if order else "gptq"
    path = packed(
        export("bf16"), tmp_path / name, quantizer, declared | {"bits": bits, "group_size": 64}
    )
    assert 0.98 <= ratio(path, code) <= most


def test_a_head_of_the_wrong_version_fails(export: Any, place: Path, tmp_path: Path) -> None:
    """Zeros of v1 declared v2: every weight is one step off, and a rule says so first."""
    declared = {"quant_method": "gptq", "sym": True, "bits": 4, "group_size": 64}
    path = packed(export("bf16"), tmp_path / "wrong", gptq(4, 64), declared)
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    checkpoints.write_json(path / "config.json", config)
    assert "gptq-zero-format" in said(gate(place, "check", str(path)), 1)
