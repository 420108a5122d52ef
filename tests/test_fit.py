"""What is known of runtimes and GPUs, and what is computed from it."""

import json
from pathlib import Path
from typing import Any

import gguf_files
import pytest
from checkpoints import build, edit_json, edit_tensors, write_raw
from compressed_checkpoints import compressed
from judging import gather

from gate import fit as fitting
from gate.errors import SettingsError
from gate.fit import parse_bytes
from gate.fit.support import UNVERIFIED, Checked, table
from gate.records import Execution, Fit, MemoryNeed, Target


def fit(path: Path, **target: Any) -> Fit:
    """How a checkpoint would run."""
    evidence = gather(path)
    return fitting.fit(evidence.checkpoint, evidence.form, evidence.layers, Target(**target))


def only(found: Fit) -> Execution:
    """The one algorithm's way."""
    (execution,) = found.executions
    return execution


def memory(path: Path, **target: Any) -> MemoryNeed:
    """What one device needs."""
    found = fit(path, **target).memory
    assert found is not None
    return found


# The table.


def test_every_cell_names_where_it_can_be_checked() -> None:
    sources = table().sources
    assert all(address.startswith("https://") for address in sources.values())
    cells = [
        cell
        for runtime in table().runtimes.values()
        for rows in runtime.methods.values()
        for row in rows.values()
        for cell in row
    ]
    facts = [
        fact
        for part in [*table().gpus.values(), *table().runtimes.values()]
        for _, fact in part
        if isinstance(fact, Checked)
    ]
    named = {entry.source for entry in [*cells, *facts]}
    assert named - {UNVERIFIED} == sources.keys()
    assert all(cell.source in sources for cell in cells)
    assert all(cell.why.endswith(".") for cell in cells)


def test_only_some_memory_sizes_and_amd_formats_are_unverified() -> None:
    found = {
        (name, field)
        for name, gpu in table().gpus.items()
        for field, fact in gpu
        if isinstance(fact, Checked) and fact.source == UNVERIFIED
    }
    assert found == {("l4", "memory_gb"), ("a10", "memory_gb"), ("mi300x", "formats")}


@pytest.mark.parametrize(
    ("gpu", "formats"),
    [
        ("l40s", {"FP8", "INT8", "INT4"}),
        ("l4", {"FP8", "INT8", "INT4"}),
        ("rtx4090", {"FP8", "INT8", "INT4"}),
        ("h100", {"FP8", "INT8"}),
        ("h200", {"FP8", "INT8"}),
        ("a100", {"INT8", "INT4"}),
        ("a10", {"INT8", "INT4"}),
        ("b200", {"FP4", "FP8", "INT8"}),
        ("b300", {"FP4", "FP8", "INT8"}),
        ("gb200", {"FP4", "FP8", "INT8"}),
        ("rtx5090", {"FP4", "FP8", "INT8"}),
        ("rtx6000-pro-blackwell", {"FP4", "FP8", "INT8"}),
    ],
)
def test_tensor_cores_as_cuda_s_own_table_has_them(gpu: str, formats: set[str]) -> None:
    """Source: CUDA programming guide, table of Tensor Core input data types."""
    known = table().gpus[gpu].formats
    assert known is not None
    assert set(known.value) == formats


def test_no_native_path_without_such_tensor_cores() -> None:
    for gpu in table().gpus.values():
        for runtime in table().runtimes.values():
            for rows in runtime.methods.values():
                for row in rows.values():
                    cell = next((cell for cell in row if cell.applies(gpu)), None)
                    if cell and cell.path.startswith("native") and gpu.formats:
                        assert cell.path.removeprefix("native ") in gpu.formats.value


def test_names_for_the_command_line() -> None:
    assert {"h100", "b200", "l40s", "a100", "rtx4090", "apple"} <= set(fitting.GPUS)
    assert fitting.RUNTIMES == ("vllm", "tensorrt-llm", "sglang", "transformers", "llama.cpp")


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny")
    with pytest.raises(SettingsError, match="no GPU"):
        fit(path, gpu="h1000")
    with pytest.raises(SettingsError, match="no runtime"):
        fit(path, runtime="vlm")


# Which way.


@pytest.mark.parametrize(
    ("algo", "runtime", "gpu", "path"),
    [
        ("NVFP4", "vllm", "h100", "weight-only kernel"),
        ("NVFP4", "vllm", "a100", "weight-only kernel"),
        ("NVFP4", "vllm", "b200", "native FP4"),
        ("NVFP4", "vllm", "rtx5090", "native FP4"),
        ("NVFP4", "vllm", "mi300x", "not known"),
        ("NVFP4", "vllm", None, "not known"),
        ("W4A16_NVFP4", "vllm", "b200", "weight-only kernel"),
        ("FP8", "vllm", "h100", "native FP8"),
        ("FP8", "vllm", "l40s", "native FP8"),
        ("FP8", "vllm", "a100", "weight-only kernel"),
        ("fp8_pb_wo", "vllm", "h100", "native FP8"),
        ("NVFP4", "tensorrt-llm", "b300", "native FP4"),
        ("NVFP4", "tensorrt-llm", "h100", "weight-only kernel"),
        ("NVFP4", "tensorrt-llm", "l40s", "not loaded"),
        ("fp8_pb_wo", "tensorrt-llm", "b200", "native FP8"),
        ("fp8_pb_wo", "tensorrt-llm", "rtx5090", "not known"),
        ("FP8", "tensorrt-llm", "rtx4090", "native FP8"),
        ("FP8", "tensorrt-llm", "a100", "not loaded"),
        ("NVFP4", "sglang", "gb200", "native FP4"),
        ("NVFP4", "sglang", "h200", "weight-only kernel"),
        ("FP8", "sglang", "mi300x", "not loaded"),
        ("FP8", "sglang", "a100", "not known"),
        ("FP8", "transformers", "h100", "not loaded"),
        ("NVFP4", "llama.cpp", "apple", "not loaded"),
    ],
)
def test_the_way_that_modelopt_takes(
    tmp_path: Path, algo: str, runtime: str, gpu: str | None, path: str
) -> None:
    found = only(fit(build(tmp_path / "tiny", algo), runtime=runtime, gpu=gpu))
    assert found.path == path
    assert found.layers == 14
    assert (found.source is None) == (path == "not known")
    assert found.reason.endswith(".")


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
FP8 = {"num_bits": 8, "type": "float", "strategy": "tensor"}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
PER_TOKEN = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}


@pytest.mark.parametrize(
    ("weights", "inputs", "gpu", "path"),
    [
        (INT4, None, "b200", "weight-only kernel"),
        (INT8, PER_TOKEN, "a100", "native INT8"),
        (INT8, PER_TOKEN, "b200", "not loaded"),
        (FP8, FP8, "mi300x", "native FP8"),
        (FP8, FP8, "a10", "weight-only kernel"),
        (NVFP4, NVFP4 | {"dynamic": "local"}, "b300", "native FP4"),
        (NVFP4, None, "b300", "weight-only kernel"),
    ],
)
def test_compressed_tensors_is_looked_up_by_its_scheme(
    tmp_path: Path,
    weights: dict[str, Any],
    inputs: dict[str, Any] | None,
    gpu: str,
    path: str,
) -> None:
    scheme = {"weights": weights} | ({"input_activations": inputs} if inputs else {})
    made = compressed(tmp_path / "tiny", scheme)
    assert only(fit(made, runtime="vllm", gpu=gpu)).path == path


def test_compressed_tensors_is_decoded_by_transformers(tmp_path: Path) -> None:
    made = compressed(tmp_path / "tiny", {"weights": INT4})
    decoded = memory(build(tmp_path / "bf16", None)).weights
    need = memory(made, runtime="transformers", gpu="h100")
    assert only(fit(made, runtime="transformers", gpu="h100")).path == "dequantized"
    assert need.weights == decoded
    assert need.workspace > memory(made, runtime="vllm", gpu="h100").workspace
    assert need.weights > memory(made, runtime="vllm", gpu="h100").weights


def test_a_declared_cache_of_compressed_tensors(tmp_path: Path) -> None:
    kv = FP8 | {"dynamic": False, "symmetric": True}
    made = compressed(tmp_path / "tiny", {"weights": INT4}, kv_cache_scheme=kv)
    plain = compressed(tmp_path / "plain", {"weights": INT4})
    target = {"runtime": "vllm", "context": 1000}
    assert memory(made, **target).kv_cache == (memory(plain, **target).kv_cache or 0) // 2


def test_gguf(tmp_path: Path) -> None:
    path = gguf_files.build(tmp_path / "tiny")
    found = fit(path, runtime="llama.cpp", gpu="apple", context=1000, memory_bytes=10**10)
    assert only(found).path == "weight-only kernel"
    assert found.memory is not None
    assert found.memory.kv_cache == 2 * 5 * gguf_files.KV * 2 * 1000
    assert found.memory.fits


def test_what_stands_in_the_way(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny")
    assert only(fit(path, runtime="transformers")).blocked_by == "runtime"
    assert only(fit(path, runtime="tensorrt-llm", gpu="a100")).blocked_by == "hardware"
    assert only(fit(path, runtime="vllm", gpu="a100")).blocked_by is None


def test_mixed_algorithms_take_their_own_ways(tmp_path: Path) -> None:
    found = fit(build(tmp_path / "tiny", "MIXED_PRECISION"), runtime="vllm", gpu="h100")
    ways = {entry.algorithm: entry.path for entry in found.executions}
    assert ways == {"FP8": "native FP8", "NVFP4": "weight-only kernel"}
    assert sum(entry.layers for entry in found.executions) == 14


def test_an_algorithm_outside_a_runtime_s_list(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny")
    for file, key in (("hf_quant_config.json", "quantization"), ("config.json", "")):
        edit_json(
            path,
            file,
            lambda value, key=key: value[key or "quantization_config"].update(
                quant_algo="W4A8_AWQ"
            ),
        )
    assert only(fit(path, runtime="vllm", gpu="h100")).path == "not loaded"
    assert only(fit(path, runtime="tensorrt-llm", gpu="h100")).path == "native FP8"
    assert only(fit(path, runtime="tensorrt-llm", gpu="a100")).blocked_by == "hardware"


def test_a_format_without_description_is_looked_up_by_its_method(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", None)
    edit_json(
        path, "config.json", lambda value: value.update(quantization_config={"quant_method": "x\n"})
    )
    assert only(fit(path, runtime="vllm", gpu="h100")).path == "not known"
    assert only(fit(path, runtime="llama.cpp")).algorithm == "x?"


def test_an_unquantized_checkpoint(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", None)
    assert fit(path, runtime="vllm", gpu="h100").executions == ()
    assert only(fit(path, runtime="llama.cpp")).path == "not loaded"


def test_without_a_runtime_the_gpu_s_formats_are_named(tmp_path: Path) -> None:
    found = only(fit(build(tmp_path / "tiny"), gpu="h100"))
    assert found.path == "not known"
    assert found.reason == "No runtime was named; NVIDIA H100 computes in FP8, INT8."


def test_memory_alone_says_nothing_of_ways(tmp_path: Path) -> None:
    assert fit(build(tmp_path / "tiny"), memory_bytes=10**9).executions == ()


# Memory.

LLAMA_8B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


def cache(tmp_path: Path, config: dict[str, Any], **target: Any) -> MemoryNeed:
    """Of a checkpoint with these figures."""
    path = build(tmp_path / "tiny")
    edit_json(path, "config.json", lambda value: value.update(config))
    return memory(path, **({"context": 8192} | target))


def test_the_cache_of_grouped_heads(tmp_path: Path) -> None:
    found = cache(tmp_path, LLAMA_8B, concurrency=4)
    assert found.kv_cache == 2 * 32 * 8 * 128 * 2 * 8192 * 4
    assert found.kv_cache_exact
    assert found.notes == ()


def test_heads_are_shared_and_then_repeated(tmp_path: Path) -> None:
    whole = cache(tmp_path / "a", LLAMA_8B).kv_cache or 0
    assert cache(tmp_path / "b", LLAMA_8B, tensor_parallel=4).kv_cache == whole // 4
    assert cache(tmp_path / "c", LLAMA_8B, tensor_parallel=16).kv_cache == whole // 8


def test_layers_are_shared_where_the_runtime_divides_them(tmp_path: Path) -> None:
    whole = cache(tmp_path / "a", LLAMA_8B).kv_cache or 0
    found = cache(tmp_path / "b", LLAMA_8B, tensor_parallel=16, runtime="llama.cpp")
    assert found.kv_cache == whole // 16


def test_a_latent_cache_is_whole_on_every_device(tmp_path: Path) -> None:
    deepseek = {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    found = cache(tmp_path, deepseek, tensor_parallel=8)
    assert found.kv_cache == 61 * 576 * 2 * 8192


def test_windows_bound_the_cache(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 16
    found = cache(tmp_path, LLAMA_8B | {"layer_types": kinds, "sliding_window": 128})
    assert found.kv_cache == 2 * 8 * 128 * 2 * 16 * (8192 + 128)
    assert found.kv_cache_exact


@pytest.mark.parametrize(
    "kinds",
    [
        {"layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8},
        {"layers_block_type": ["mamba"] * 24 + ["attention"] * 8},
        {"hybrid_override_pattern": "M-" * 12 + "*" * 8},
    ],
)
def test_layers_of_another_kind_cache_nothing(tmp_path: Path, kinds: dict[str, Any]) -> None:
    found = cache(tmp_path, LLAMA_8B | kinds)
    assert found.kv_cache == 2 * 8 * 128 * 2 * 8192 * 8
    assert found.kv_cache_exact


@pytest.mark.parametrize("more", [{"sliding_window": 4096}, {"full_attention_interval": 4}])
def test_a_bound_is_called_one(tmp_path: Path, more: dict[str, Any]) -> None:
    found = cache(tmp_path, LLAMA_8B | more)
    assert found.kv_cache == 2 * 32 * 8 * 128 * 2 * 8192
    assert not found.kv_cache_exact
    assert found.notes == ("the KV cache is the most that it can take",)


def test_a_window_that_is_switched_off_bounds_nothing(tmp_path: Path) -> None:
    off = {"sliding_window": 128, "use_sliding_window": False}
    assert cache(tmp_path, LLAMA_8B | off).kv_cache_exact


@pytest.mark.parametrize(
    ("algo", "runtime", "bytes_per_value", "exact"),
    [
        ("FP8", "vllm", 1.0, True),
        ("NVFP4", "vllm", 2.0, True),
        ("NVFP4", "tensorrt-llm", 0.5625, True),
        ("FP8", None, 1.0, True),
        ("FP8", "sglang", 2.0, False),
    ],
)
def test_the_declared_dtype_of_the_cache(
    tmp_path: Path, algo: str, runtime: str | None, bytes_per_value: float, exact: bool
) -> None:
    path = build(tmp_path / "tiny")
    edit_json(path, "config.json", lambda value: value.update(LLAMA_8B))
    edit_json(
        path,
        "hf_quant_config.json",
        lambda value: value["quantization"].update(kv_cache_quant_algo=algo),
    )
    found = memory(path, runtime=runtime, context=8192)
    assert found.kv_cache == 2 * 32 * 8 * 128 * 8192 * bytes_per_value
    assert found.kv_cache_exact == exact


def test_packed_weights_are_counted_as_stored(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", "NVFP4")
    stored = sum(info.nbytes for info in gather(path).checkpoint.tensors.values())
    assert memory(path, runtime="vllm", gpu="h100").weights == stored
    assert memory(path, runtime="vllm", gpu="h100", tensor_parallel=2).weights == -(-stored // 2)


def test_a_tied_head_is_not_loaded_twice(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", None, tied=False)
    before = memory(path).weights
    edit_json(path, "config.json", lambda value: value.update(tie_word_embeddings=True))
    assert before - memory(path).weights == 96 * 64 * 2


def test_wide_floats_are_computed_in_16_bits(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", None)
    stored = memory(path).weights
    edit_tensors(
        path,
        lambda tensors: tensors.update(
            {
                name: ("F32", shape, bytes(2 * len(data)))
                for name, (_, shape, data) in tensors.items()
            }
        ),
    )
    assert memory(path).weights == stored


def test_memory_is_the_vendor_s_unless_it_is_named(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny")
    assert memory(path, gpu="h100").available == 80 * 10**9
    assert memory(path, gpu="h100", tensor_parallel=2).available == 80 * 10**9
    assert memory(path, memory_bytes=10**9, tensor_parallel=2).available == 10**9 // 2
    assert memory(path, gpu="apple").available is None
    assert memory(path, gpu="apple").fits is None


def test_the_allowance_is_that_of_the_evaluation(tmp_path: Path) -> None:
    from gate.errors import BackendUnavailableError
    from gate.preflight import require_memory
    from gate.size import workspace_bytes

    assert memory(build(tmp_path / "tiny")).workspace == workspace_bytes()
    decoded = 10**9
    require_memory(decoded, decoded + workspace_bytes(decoded))
    with pytest.raises(BackendUnavailableError):
        require_memory(decoded, decoded + workspace_bytes(decoded) - 1)


def test_no_weights_no_memory(tmp_path: Path) -> None:
    path = build(tmp_path / "tiny", None)
    (path / "model.safetensors").unlink()
    assert fit(path, gpu="h100", context=10).memory is None


# Untrusted figures.


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 10**4000},
        {"head_dim": 10**4000},
        {"kv_lora_rank": 10**4000},
        {"layer_types": [1, None]},
        {"layer_types": "full_attention"},
        {"hybrid_override_pattern": ["*"]},
        {"num_key_value_heads": True, "num_attention_heads": None},
        {"text_config": []},
        {"text_config": {"layer_types": {}}},
    ],
)
def test_absurd_figures_are_no_crash(tmp_path: Path, config: dict[str, Any]) -> None:
    found = cache(tmp_path, config, tensor_parallel=3, runtime="vllm", gpu="h100")
    assert found.fits in {True, False}


def test_a_fit_is_stored_and_read(tmp_path: Path) -> None:
    found = fit(build(tmp_path / "tiny"), runtime="vllm", gpu="a100", context=100)
    assert Fit.model_validate_json(found.model_dump_json()) == found


# Amounts.


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("36GB", 36 * 10**9),
        ("36 GiB", 36 * 2**30),
        ("1.5tb", 1_500_000_000_000),
        (" 512MiB ", 2**29),
        ("40000000000", 40_000_000_000),
    ],
)
def test_amounts(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "GB", "36 G B", "-1GB", "0GB", "nan", "1e9", "36PB", "9" * 99]
)
def test_no_amounts(text: str) -> None:
    with pytest.raises(SettingsError, match="no amount"):
        parse_bytes(text)


def sparse(path: Path, gigabytes: int) -> Path:
    """A checkpoint whose one weight file claims that much, and holds nothing."""
    build(path, None)
    count = gigabytes * 10**9 // 2
    entry = {"dtype": "BF16", "shape": [count], "data_offsets": [0, count * 2]}
    header = json.dumps({"model.norm.weight": entry}).encode()
    write_raw(path / "model.safetensors", header)
    with (path / "model.safetensors").open("r+b") as file:
        file.truncate(8 + len(header) + count * 2)
    return path


def test_a_laptop_of_36_gb_does_not_hold_40_gb(tmp_path: Path) -> None:
    found = memory(sparse(tmp_path / "big", 40), gpu="apple", memory_bytes=parse_bytes("36GB"))
    assert found.weights == 40 * 10**9
    assert found.fits is False
    assert found.certain > (found.available or 0)
