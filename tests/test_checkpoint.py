"""Opening: what is found, what is noted as a problem, and that nothing else can happen."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
from checkpoints import edit_json, write_json, write_safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judging import judge

from gate.checkpoint import Checkpoint, find_checkpoints, open_checkpoint
from gate.containers import CONTAINERS
from gate.errors import CheckpointError, GateError, SettingsError
from gate.formats import FORMATS
from gate.quantization import identify
from gate.size import decoded_bytes, size

INDEX = "model.safetensors.index.json"
quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(path, CONTAINERS)


def problems(path: Path) -> set[str]:
    return {problem.rule for problem in opened(path).problems}


@pytest.mark.parametrize("shards", [1, 3])
def test_a_sound_checkpoint(tmp_path: Path, shards: int) -> None:
    found = opened(checkpoints.build(tmp_path, "NVFP4", shards=shards))
    assert found.problems == ()
    assert len(found.weight_files) == shards
    assert (found.weight_map is None) == (shards == 1)
    assert len(found.tensors) == 6 + 14 * 4
    assert found.config["hidden_size"] == 64
    assert found.hf_quant_config is not None
    assert found.quantization_config is not None
    info = found.tensors["model.norm.weight"]
    assert found.read(info).shape == (64,)


def test_the_path_must_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        opened(tmp_path / "absent")
    file = tmp_path / "config.json"
    file.write_text("{}")
    with pytest.raises(SettingsError, match="is a file") as caught:
        opened(file)
    assert str(tmp_path) in caught.value.hint


def test_checkpoints_inside_a_checkpoint_are_separate(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, "FP8")
    checkpoints.build(tmp_path / "NVFP4", "NVFP4")
    outer = opened(tmp_path)
    assert outer.children == (tmp_path / "NVFP4",)
    assert {info.dtype for info in outer.tensors.values()} == {"F8_E4M3", "F32", "BF16"}
    assert find_checkpoints(tmp_path, CONTAINERS) == (tmp_path,)


def test_a_folder_without_a_configuration_lists_its_children(tmp_path: Path) -> None:
    for name in ("b", "a", ".cache"):
        checkpoints.build(tmp_path / "variants" / name, None)
    wanted = (tmp_path / "variants" / "a", tmp_path / "variants" / "b")
    assert find_checkpoints(tmp_path, CONTAINERS) == wanted
    with pytest.raises(CheckpointError, match="2 checkpoints") as caught:
        opened(tmp_path)
    assert str(wanted[0]) in caught.value.hint


def test_a_link_to_a_directory_is_no_child(tmp_path: Path) -> None:
    checkpoints.build(tmp_path / "a", None)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert find_checkpoints(tmp_path, CONTAINERS) == (tmp_path / "a",)


def test_a_tensor_in_two_shards_is_read_where_the_index_says(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, None, shards=2)
    second = tmp_path / "model-00002-of-00002.safetensors"
    tensors = checkpoints.read_safetensors(second)
    write_safetensors(second, tensors | {"model.embed_tokens.weight": checkpoints.f32((1,))})
    found = opened(tmp_path)
    assert [problem.rule for problem in found.problems] == ["duplicate-tensor"]
    assert found.tensors["model.embed_tokens.weight"].dtype == "BF16"


def test_a_gap_in_numbered_shards_shows_without_an_index(tmp_path: Path) -> None:
    checkpoints.build(tmp_path, None, shards=3)
    (tmp_path / INDEX).unlink()
    assert opened(tmp_path).problems == ()
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    (problem,) = opened(tmp_path).problems
    assert (problem.rule, problem.file) == ("shard-missing", "model-00002-of-00003.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/passwd",
        "a/../../outside.safetensors",
        "link.safetensors",
        "loop.safetensors",
        "dangling.safetensors",
        "nul\0.safetensors",
        "\ud800.safetensors",
        "x" * 5000,
        "",
        ".",
        "directory.safetensors",
    ],
    ids=range(12),
)
def test_the_index_leads_to_no_other_file(tmp_path: Path, name: str) -> None:
    write_safetensors(tmp_path / "outside.safetensors", {"secret": checkpoints.f32((1,))})
    path = checkpoints.build(tmp_path / "model", None, shards=2)
    (path / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (path / "loop.safetensors").symlink_to("loop.safetensors")
    (path / "dangling.safetensors").symlink_to("nowhere")
    (path / "directory.safetensors").mkdir()
    edit_json(path, INDEX, lambda index: index["weight_map"].update(secret=name))
    found = opened(path)
    assert "secret" not in found.tensors
    assert {problem.rule for problem in found.problems} <= {"header-unreadable", "shard-missing"}
    assert found.problems


@pytest.mark.parametrize("name", ["config.json", "hf_quant_config.json", "model.safetensors"])
def test_a_link_out_of_the_checkpoint_is_not_followed(tmp_path: Path, name: str) -> None:
    path = checkpoints.build(tmp_path / "model")
    (path / name).rename(tmp_path / "outside")
    (path / name).symlink_to(tmp_path / "outside")
    found = opened(path)
    assert any(problem.file == name for problem in found.problems)
    assert not (found.tensors if name == "model.safetensors" else None)
    assert found.config == {} or name != "config.json"


def test_the_hub_cache_links_to_its_own_blobs(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path / "models--a--b" / "snapshots" / "0123")
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(path.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(Path("../../blobs") / str(number))
    assert opened(path).problems == ()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (path / name).unlink()
        os.mkfifo(path / name)
    assert problems(path) == {"shard-missing", "config-json-unreadable"}


@pytest.mark.parametrize("kept", ["model.safetensors.index.json", "config.json"])
def test_absurd_json(tmp_path: Path, kept: str) -> None:
    path = checkpoints.build(tmp_path, shards=2)
    for text in ("[" * 100_000, '{"a":' * 100_000, "1" * 10_000, "\x00", "NaN", ""):
        (path / kept).write_text(text)
        rule = "config-json-unreadable" if kept == "config.json" else "header-unreadable"
        assert problems(path) == {rule}


def test_a_huge_configuration_is_not_read(tmp_path: Path) -> None:
    path = checkpoints.build(tmp_path)
    with (path / "config.json").open("wb") as file:
        file.truncate(2**40)
    assert problems(path) == {"config-json-unreadable"}


@pytest.mark.parametrize("value", [[], "FP8", 5, True])
def test_a_declaration_that_is_no_object(tmp_path: Path, value: object) -> None:
    path = checkpoints.build(tmp_path, None)
    edit_json(path, "config.json", lambda config: config.update(quantization_config=value))
    assert problems(path) == {"quant-config-unreadable"}
    assert opened(path).quantization_config is None


def test_pickles_are_named_and_not_opened(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {})
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    (problem,) = opened(tmp_path).problems
    assert (problem.rule, problem.file) == ("no-weights", "pytorch_model.bin")


KEYS = st.sampled_from(
    [
        "quantization",
        "quantization_config",
        "quant_algo",
        "quant_method",
        "kv_cache_quant_algo",
        "kv_cache_scheme",
        "group_size",
        "exclude_modules",
        "ignore",
        "quantized_layers",
        "config_groups",
        "weights",
        "num_bits",
        "producer",
        "name",
        "text_config",
        "tie_word_embeddings",
        "model.layers.0.mlp",
        "weight_map",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["FP8", "NVFP4", "MIXED_PRECISION", "modelopt", "fp8", "*", "re:.*", "lm_*"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


DECLARED = VALUES | st.fixed_dictionaries(
    {"quant_algo": st.sampled_from(["FP8", "NVFP4", "FP8_PB_WO", "MIXED_PRECISION"]) | VALUES},
    optional={
        "quant_method": VALUES,
        "group_size": VALUES,
        "exclude_modules": VALUES,
        "quantized_layers": st.dictionaries(
            KEYS | st.just("model.layers.0.self_attn"),
            st.dictionaries(KEYS, VALUES, max_size=3),
            max_size=3,
        ),
        "config_groups": VALUES,
        "kv_cache_scheme": VALUES,
    },
)


def survives(path: Path) -> None:
    """The whole static part says something, or raises one of our own errors."""
    try:
        judge(path).model_dump_json()
        checkpoint = opened(path)
        form = identify(checkpoint, FORMATS)
        size(checkpoint, form).model_dump_json()
        assert decoded_bytes(checkpoint, form) >= 0
    except GateError:
        pass


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """One sound checkpoint, whose configuration each example writes anew."""
    path = checkpoints.build(tmp_path_factory.mktemp("sound"), "NVFP4", layers=1, tied=False)
    checkpoints.edit_tensors(path, lambda t: t.update(checkpoints.linear("m", "FP8", (8, 8))))
    return lambda: path


@quick
@given(value=DECLARED, declared=DECLARED, part=KEYS)
def test_any_configuration(
    sound: Callable[[], Path], value: object, declared: object, part: str
) -> None:
    path = sound()
    write_json(path / "hf_quant_config.json", {"quantization": value, part: declared})
    write_json(path / "config.json", {part: value, "quantization_config": declared})
    survives(path)


@quick
@given(raw=st.binary(max_size=100), name=st.sampled_from(["config.json", INDEX, "x.safetensors"]))
def test_any_file(tmp_path: Path, raw: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(raw)
    survives(tmp_path)


@quick
@given(st.dictionaries(st.text(max_size=6), st.text(max_size=6) | VALUES, max_size=5))
def test_any_index(tmp_path: Path, weight_map: dict[str, object]) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    write_safetensors(tmp_path / "a.safetensors", {"a": checkpoints.f32((1,))})
    survives(tmp_path)
