"""Against the unquantized model: real exports agree with it, and every drift is told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from checkpoints import edit_json, edit_tensors
from judging import gather

from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.lint import lint
from gate.records import LintResult, ReferenceResult
from gate.reference import compare
from gate.rule import Evidence
from gate.rules import RULES

Q = "model.layers.0.self_attn.q_proj"


def compared(path: Path, reference: Path) -> ReferenceResult:
    evidence = gather(path)
    original = open_checkpoint(reference, CONTAINERS)
    return compare(evidence.checkpoint, evidence.form, evidence.layers, original)


def judged(path: Path, reference: Path) -> LintResult:
    found = gather(path)
    evidence = Evidence(found.checkpoint, found.form, found.layers, compared(path, reference))
    return lint(evidence, RULES, {})


def flagged(path: Path, reference: Path) -> dict[str, str]:
    findings = judged(path, reference).findings
    return {found.rule: found.severity for found in findings if found.severity != "note"}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A reference and an FP8 checkpoint that is really its rounding."""
    reference = checkpoints.build(tmp_path / "reference", None)
    path = checkpoints.build(tmp_path / "fp8", "FP8")
    original = checkpoints.read_safetensors(reference / "model.safetensors")
    grid = fp8_grid()

    def quantize(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name, (dtype, shape, _) in list(tensors.items()):
            if name in original and dtype == "F8_E4M3":
                raw = np.frombuffer(original[name][2], "<u2").astype("<u4") << 16
                values = raw.view("<f4")
                scale = np.abs(values).max() / 448
                codes = np.abs(values[:, None] / scale - grid[None]).argmin(1).astype("u1")
                tensors[name] = (dtype, shape, codes.tobytes())
                tensors[f"{name}_scale"] = checkpoints.f32((), float(scale))
            elif name in original:
                tensors[name] = original[name]

    edit_tensors(path, quantize)
    return path, reference


def fp8_grid() -> np.ndarray:
    from gate.codes import E4M3

    return np.nan_to_num(np.asarray(E4M3, np.float32), nan=1e9)


def test_a_rounding_of_the_reference_is_silent(pair: tuple[Path, Path]) -> None:
    assert flagged(*pair) == {}
    found = compared(*pair)
    assert found.changed_tensors == () and found.equal_tensors == 6
    assert len(found.layers) == 14 and found.skipped == ()
    assert all(0.02 < error.relative_rms < 0.03 for error in found.layers)
    assert all(error.cosine > 0.999 for error in found.layers)


def test_the_worst_layer_comes_first(pair: tuple[Path, Path]) -> None:
    path, reference = pair
    edit_tensors(path, lambda tensors: tensors.update({f"{Q}.weight": checkpoints.fp8((64, 64))}))
    assert compared(path, reference).layers[0].layer == Q
    assert flagged(path, reference) == {"weights-unlike-reference": "error"}


def test_nan_is_the_worst_and_never_close(pair: tuple[Path, Path]) -> None:
    path, reference = pair
    nan = checkpoints.f32((), float("nan"))
    edit_tensors(path, lambda tensors: tensors.update({f"{Q}.weight_scale": nan}))
    assert compared(path, reference).layers[0].layer == Q
    assert "weights-unlike-reference" in flagged(path, reference)


def replaced(name: str) -> Callable[[Path], None]:
    def change(tensors: dict[str, checkpoints.Tensor]) -> None:
        dtype, shape, data = tensors[name]
        tensors[name] = dtype, shape, bytes([data[0] ^ 1]) + data[1:]

    return lambda path: edit_tensors(path, change)


def config(**fields: object) -> Callable[[Path], None]:
    return lambda path: edit_json(path, "config.json", lambda value: value.update(fields))


def template(text: str) -> Callable[[Path], object]:
    return lambda path: (path / "chat_template.jinja").write_text(text)


DRIFTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "one bit of the embedding": (replaced("model.embed_tokens.weight"), "other-base", "error"),
    "one bit of a norm": (
        replaced("model.layers.1.input_layernorm.weight"),
        "other-base",
        "error",
    ),
    "another activation": (config(hidden_act="gelu"), "architecture-differs", "error"),
    "another dtype": (config(dtype="float32"), "dtype-differs", "warning"),
    "another end token": (
        lambda path: edit_json(
            path, "generation_config.json", lambda value: value.update(eos_token_id=7)
        ),
        "generation-config-differs",
        "warning",
    ),
    "no generation settings": (
        lambda path: (path / "generation_config.json").unlink(),
        "generation-config-differs",
        "warning",
    ),
    "another token": (
        lambda path: edit_json(path, "tokenizer.json", lambda value: value.update(model={"a": 0})),
        "tokenizer-differs",
        "warning",
    ),
    "another chat template": (template("{{ other }}"), "chat-template-differs", "warning"),
    "no chat template": (
        lambda path: (path / "chat_template.jinja").unlink(),
        "chat-template-differs",
        "warning",
    ),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_every_drift_is_told(pair: tuple[Path, Path], drift: str) -> None:
    path, reference = pair
    edit_json(reference, "config.json", lambda value: value.update(hidden_act="silu"))
    for directory in pair:
        template("{{ messages }}")(directory)
    change, rule, severity = DRIFTS[drift]
    change(path)
    assert flagged(path, reference) == {rule: severity}


def test_another_vocabulary(pair: tuple[Path, Path]) -> None:
    path, reference = pair
    edit_json(reference, "config.json", lambda value: value.update(vocab_size=95))
    assert flagged(path, reference) == {"vocabulary-differs": "error"}


def test_what_a_call_leaves_in_the_tokenizer_is_no_drift(pair: tuple[Path, Path]) -> None:
    path, reference = pair
    edit_json(path, "tokenizer.json", lambda value: value.update(padding={"length": 8}))
    template("{{ messages }}\n")(reference)
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert flagged(path, reference) == {}


def test_names_of_another_transformers_version(pair: tuple[Path, Path]) -> None:
    path, reference = pair

    def rename(tensors: dict[str, checkpoints.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.replace("model.", "model.language_model.", 1)] = tensors.pop(name)

    edit_tensors(reference, rename)
    found = compared(path, reference)
    assert (found.equal_tensors, len(found.layers)) == (6, 14)


def test_a_head_that_the_reference_ties_is_its_embedding(pair: tuple[Path, Path]) -> None:
    path, reference = pair
    config(tie_word_embeddings=True)(reference)
    other = checkpoints.bf16((96, 64), mean=1.0)
    edit_tensors(path, lambda tensors: tensors.update({"lm_head.weight": other}))
    assert compared(path, reference).changed_tensors == ("lm_head.weight",)

    def tie(tensors: dict[str, checkpoints.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    edit_tensors(path, tie)
    found = compared(path, reference)
    assert (found.changed_tensors, found.equal_tensors) == ((), 7)


def test_layers_without_a_decoder_are_left_out_with_the_reason(tmp_path: Path) -> None:
    reference = checkpoints.build(tmp_path / "reference", None)
    path = checkpoints.build(tmp_path / "fp8", "FP8")
    smoothing = checkpoints.bf16((64,))
    edit_tensors(path, lambda tensors: tensors.update({f"{Q}.pre_quant_scale": smoothing}))
    found = compared(path, reference)
    assert found.smoothed and len(found.layers) == 13
    assert found.skipped == ("1 layers: FP8 has no decoder yet",)


def test_a_reference_that_cannot_be_read(pair: tuple[Path, Path]) -> None:
    path, reference = pair
    (reference / "model.safetensors").write_bytes(b"version https://git-lfs")
    found = compared(path, reference)
    assert found.layers == () and "cannot be read" in found.skipped[0]


@pytest.mark.model
@pytest.mark.parametrize("name", ["fp8", "nvfp4"])
def test_a_real_export_keeps_every_unquantized_tensor(
    export: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    found = compared(export(name), export("bf16"))
    assert (found.equal_tensors, found.changed_tensors, len(found.layers)) == (62, (), 210)
    assert found.differences == () and found.skipped == ()
    limit = {"fp8": 0.9996, "nvfp4": 0.995}[name]
    assert found.layers[0].cosine > limit
    path = tmp_path / name
    shutil.copytree(export(name), path)
    replaced("model.norm.weight")(path)
    assert flagged(path, export("bf16")) == {"other-base": "error"}
