"""What a runtime makes of the stored layers: joined scales, inputs left as they are."""

from pathlib import Path

import numpy as np
import pytest
from checkpoints import edit_tensors, f32
from tiny_models import export, llama, opened

from gate import fit
from gate.emulation import Emulated, concerns, emulated, targeted
from gate.lint import walk
from gate.quantization import Format, Role
from gate.records import Fit, Target
from gate.settings import Settings

pytestmark = pytest.mark.model

JOINED = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
GLOBAL = "model.layers.0.mlp.up_proj.weight_scale_2"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    for name in ("FP8_DEFAULT", "NVFP4_DEFAULT"):
        export(llama(), name, root / name)
    edit_tensors(root / "NVFP4_DEFAULT", lambda tensors: tensors.update({GLOBAL: f32((), 0.01)}))
    return root


def meant(path: Path, runtime: str, gpu: str, **stated: str) -> tuple[Format | None, Fit]:
    """What a checkpoint is on a target."""
    checkpoint, form = opened(path)
    found = fit.fit(checkpoint, form, walk(checkpoint, form), Target(runtime=runtime, gpu=gpu))
    return emulated(form, checkpoint, Settings(**stated), found), found


def e4m3() -> np.ndarray:
    """Every value of the format, by its definition."""
    exponents, fractions = np.meshgrid(np.arange(16), np.arange(8))
    normal = 2.0 ** (exponents - 7) * (1 + fractions / 8)
    values = np.where(exponents == 0, 2.0**-6 * fractions / 8, normal)
    return np.unique(values[values <= 448])


def test_joined_fp8_weights_are_quantized_again_to_the_largest_scale(exported: Path) -> None:
    checkpoint, stored = opened(exported / "FP8_DEFAULT")
    form, _ = meant(exported / "FP8_DEFAULT", "vllm", "h100")
    assert isinstance(form, Emulated) and stored is not None
    layers = {layer.name: layer for layer in form.layers(checkpoint)}
    assert {name.rpartition(".")[2] for name in form.requantized} == set(JOINED)
    values = e4m3()
    for name, layer in layers.items():
        before, after = stored.dequantize(layer, np), form.dequantize(layer, np)
        parent, _, leaf = name.rpartition(".")
        if leaf not in JOINED:
            assert np.array_equal(before, after)
            continue
        group = [n for n in layers if n.startswith(parent) and n.rpartition(".")[2] in JOINED]
        scale = np.float32(max(layers[n].scales[Role.WEIGHT_SCALE].high for n in group))
        wanted, got = np.abs(np.float16(before)).astype(np.float64) / scale, np.abs(after) / scale
        # On the values of the format, none of which is nearer; half way, either is.
        found = values[np.abs(got[..., None] - values).argmin(-1)]
        np.testing.assert_allclose(got, found, rtol=1e-6)
        nearest = np.abs(wanted[..., None] - values).min(-1)
        np.testing.assert_allclose(np.abs(wanted - found), nearest, rtol=1e-4, atol=1e-4)


def test_joined_nvfp4_layers_take_the_largest_global_scale(exported: Path) -> None:
    checkpoint, stored = opened(exported / "NVFP4_DEFAULT")
    form, _ = meant(exported / "NVFP4_DEFAULT", "vllm", "b200")
    before = {layer.name: layer for layer in stored.layers(checkpoint)}
    after = {layer.name: layer for layer in form.layers(checkpoint)}
    gate, up = ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj")
    theirs = stored.dequantize(before[gate], np)
    times = np.float32(0.01) / np.float32(before[gate].scales["weight_global_scale"].high)
    np.testing.assert_allclose(form.dequantize(after[gate], np), theirs * times, rtol=1e-5)
    assert np.array_equal(form.dequantize(after[up], np), stored.dequantize(before[up], np))


@pytest.mark.parametrize(("gpu", "rounded"), [("h100", False), ("b200", True)])
def test_inputs_are_rounded_where_the_matrix_units_take_them(
    exported: Path, gpu: str, rounded: bool
) -> None:
    checkpoint, _ = opened(exported / "NVFP4_DEFAULT")
    form, _ = meant(exported / "NVFP4_DEFAULT", "vllm", gpu)
    assert {layer.input_scheme is not None for layer in form.layers(checkpoint)} == {rounded}


def test_stored_weights_are_left_and_the_report_says_so(exported: Path) -> None:
    form, found = meant(exported / "FP8_DEFAULT", "vllm", "h100", weights="stored")
    assert not isinstance(form, Emulated)
    told = targeted(form, Settings(weights="stored"), found, "cpu")
    assert [concern.kind for concern in concerns(told)] == ["other-path"]


def test_nothing_is_said_of_what_is_as_on_the_target(exported: Path) -> None:
    form, found = meant(exported / "FP8_DEFAULT", "vllm", "h100")
    told = targeted(form, Settings(), found, "cpu")
    assert told.requantized == 10 and not list(concerns(told))
    assert told.name == "vLLM 0.32 on NVIDIA H100"
    assert targeted(form, Settings(), replace_runtime(found), "cpu") is None


def replace_runtime(found: Fit) -> Fit:
    """The same without a runtime."""
    return found.model_copy(update={"runtime": None})


@pytest.mark.parametrize(("runtime", "kind"), [("tensorrt-llm", "unknown-path"), ("sglang", None)])
def test_what_was_not_checked_is_said(exported: Path, runtime: str, kind: str | None) -> None:
    form, found = meant(exported / "FP8_DEFAULT", runtime, "h100")
    said = [concern.kind for concern in concerns(targeted(form, Settings(), found, "cpu"))]
    assert said == ([kind] if kind else [])
