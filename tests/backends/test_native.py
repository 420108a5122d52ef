"""transformers' own quantized layers: the same model as its library loads, or a refusal."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import checkpoints
import native_models
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_harness import write_task
from tiny_models import opened

from gate.backends import native
from gate.backends.hf import Hf
from gate.backends.native import Native
from gate.errors import BackendError, BackendUnavailableError, ExitCode, GateError, SettingsError
from gate.harness import Harness
from gate.settings import RuntimeQuantization, Settings, TaskMetric
from gate.speed import Workload

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

WINDOWS = (np.arange(96, dtype=np.int64).reshape(3, 32) * 11) % 999


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, export: Callable[[str], Path]) -> Path:
    """A directory with one model, unquantized and quantized, and a task by choice."""
    root = tmp_path_factory.mktemp("native")
    original = native_models.plain(root / "plain", export("bf16"))
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    native_models.bitsandbytes(root / "nf4", original, **four)
    native_models.bitsandbytes(root / "int8", original, load_in_8bit=True)
    native_models.compressed_tensors(root / "w8a8", original, "W8A8")
    write_task(root)
    return root


def backend(path: Path, root: Path | None = None, **changes: Any) -> Native:
    asked = Settings(backend="native", **changes)
    checkpoint, form = opened(path)
    harness = Harness.of(asked, checkpoint, root) if root else None
    return Native(checkpoint, form, harness, asked)


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.from_numpy(WINDOWS)).logits


@pytest.mark.parametrize(
    ("kind", "kernel"),
    [
        ("nf4", "NF4 computed by bitsandbytes {} (Linear4bit, 14 layers)"),
        ("int8", "INT8 computed by bitsandbytes {} (Linear8bitLt, 14 layers)"),
        ("w8a8", "int-quantized W8A8 channel computed by compressed-tensors {}"),
    ],
)
def test_it_is_the_model_that_transformers_loads(kind: str, kernel: str, place: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(place / kind, dtype="auto")
    with backend(place / kind) as ours:
        (library,) = ours.libraries
        assert torch.equal(logits(ours.model), logits(theirs))
        assert ours.kernel == kernel.format(version(library))
        assert ours.versions[library] == version(library)
        assert not ours.emulated and ours.rounding_floor(WINDOWS) is None
        assert logging.getLogger(library.replace("-", "_")).level == logging.ERROR
    assert logging.getLogger(library.replace("-", "_")).level != logging.ERROR


def test_without_quantization_it_is_the_reference(place: Path) -> None:
    """The contract, asked of both: tasks, texts and tokens."""
    sayings = TaskMetric(task=str(place / "sayings.yaml"))
    ours = backend(place / "plain", place, metrics=(sayings,))
    checkpoint, form = opened(place / "plain")
    with ours, Hf(checkpoint, form, ours._harness, ours.settings) as theirs:
        (setup,) = ours.setups()
        ids = ours.doc_ids(setup.task)
        assert ours.score(setup.task, ids) == theirs.score(setup.task, ids)
        for part, other in zip(ours.read(WINDOWS, top=4), theirs.read(WINDOWS, top=4), strict=True):
            assert np.array_equal(part, other)
        assert np.array_equal(ours.token_ids("a b"), theirs.token_ids("a b"))
        assert (ours.bos, ours.device, ours.dtype) == (theirs.bos, theirs.device, theirs.dtype)
        assert ours.kernel == theirs.kernel == "unquantized, bfloat16"


def test_a_quantized_model_answers_reads_and_generates(place: Path) -> None:
    sayings = TaskMetric(task=str(place / "sayings.yaml"))
    with backend(place / "nf4", place, metrics=(sayings,)) as loaded:
        (setup,) = loaded.setups()
        ids = loaded.doc_ids(setup.task)
        assert [found.doc_id for found in loaded.score(setup.task, ids)] == list(ids)
        assert np.isfinite(loaded.read(WINDOWS).logprobs).all()
        made = loaded.generate(Workload(1, 8, 4, 0), time.perf_counter)
        assert len(made.times) == 5


def test_quantized_at_load_is_what_is_stored_by_the_same_library(place: Path) -> None:
    import torch

    with (
        backend(place / "plain", runtime_quantization={"load_in_4bit": "nf4"}) as loaded,
        backend(place / "nf4") as stored,
    ):
        assert torch.equal(logits(loaded.model), logits(stored.model))
        assert loaded.kernel == f"quantized at load: bitsandbytes NF4, {by(stored)}"


def by(loaded: Native) -> str:
    """Which library computes it, in words."""
    return loaded.kernel.partition("computed ")[2]


def test_every_option_reaches_the_library() -> None:
    made = native.bitsandbytes_config(
        RuntimeQuantization(
            load_in_4bit="fp4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype="bfloat16",
        )
    )
    assert (made.bnb_4bit_quant_type, made.bnb_4bit_use_double_quant) == ("fp4", True)
    assert str(made.bnb_4bit_compute_dtype) == "torch.bfloat16"


def declared(path: Path, quantization: Any) -> Path:
    """A tiny checkpoint that declares a quantization."""
    checkpoints.build(path, None)
    checkpoints.edit_json(path, "config.json", lambda c: c.update(quantization_config=quantization))
    return path


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "load codes and drop their scales"),
        ({"quant_method": "quanto", "weights": "int8"}, "does not load what quanto saved"),
        ({"quant_method": "hqq"}, "no library is known here with which it computes hqq"),
        ({"quant_method": "tomorrow"}, "no library is known here with which it computes tomorrow"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "needs gptqmodel, optimum"),
    ],
)
def test_what_transformers_does_not_compute_is_refused_before_it_is_loaded(
    quantization: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BackendUnavailableError, match=message) as caught:
        backend(declared(tmp_path / "a", quantization))
    assert caught.value.exit_code == ExitCode.NO_VERDICT


def test_a_missing_library_is_named_with_its_command(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(native, "version", absent)
    with pytest.raises(BackendUnavailableError, match="needs bitsandbytes") as caught:
        backend(place / "nf4")
    assert caught.value.hint == "Run: pip install bitsandbytes"


def test_a_quantized_checkpoint_is_not_quantized_again(place: Path) -> None:
    with pytest.raises(SettingsError, match="stored as bitsandbytes: it cannot be quantized again"):
        backend(place / "nf4", runtime_quantization={"load_in_8bit": True})


def test_weights_that_transformers_would_decode_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block FP8 on a CPU: transformers decodes it with no more than a warning."""
    import torch
    from tiny_models import llama

    model = llama()
    path = tmp_path / "fp8"
    model.save_pretrained(path)
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    for name in [name for name in tensors if "_proj" in name]:
        rows, columns = tensors[name].shape
        tensors[f"{name}_scale_inv"] = torch.ones(-(-rows // 128), -(-columns // 128))
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    checkpoints.edit_json(path, "config.json", lambda c: c.update(quantization_config=quantization))
    monkeypatch.setattr(native, "LIBRARIES", {"fp8": ("accelerate",)})
    with (
        pytest.raises(BackendUnavailableError, match="it would decode the weights"),
        backend(path),
    ):
        pass


def test_a_weight_that_is_not_found_is_never_made_up(place: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = Path(shutil.copytree(place / "nf4", tmp_path / "lacking"))
    tensors = load_file(path / "model.safetensors")
    tensors = {name: t for name, t in tensors.items() if name != "model.norm.weight"}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with (
        pytest.raises(BackendError, match=r"lacks: model\.norm\.weight"),
        backend(path),
    ):
        pass


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": ["(a+)+$"]},
        {"quant_method": "compressed-tensors", "ignore": ["re:(x*)*y"], "config_groups": {}},
        {
            "quant_method": "bitsandbytes",
            "load_in_8bit": True,
            "llm_int8_skip_modules": ["a" * 999],
        },
    ],
)
def test_a_pattern_that_may_take_forever_is_not_given_to_a_library(
    quantization: Any, tmp_path: Path
) -> None:
    with pytest.raises(BackendUnavailableError, match="it may take forever"):
        backend(declared(tmp_path / "a", quantization))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=8,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_declared_is_passed_on_or_refused(place: Path, value: Any) -> None:
    checkpoint, form = opened(place / "nf4")
    declared = {**(checkpoint.quantization_config or {}), "llm_int8_skip_modules": value}
    hostile = replace(checkpoint, quantization_config=declared)
    with contextlib.suppress(GateError):
        native.require_able(hostile, form, Settings(backend="native"))


def test_an_absurd_declaration_ends_in_an_error_of_ours(place: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(place / "nf4", tmp_path / "absurd"))
    for absurd in ({"bnb_4bit_compute_dtype": "no dtype"}, {"bnb_4bit_quant_type": 7}):
        config = json.loads((place / "nf4" / "config.json").read_text())
        config["quantization_config"] |= absurd
        (path / "config.json").write_text(json.dumps(config))
        with pytest.raises(GateError), backend(path):
            pass
