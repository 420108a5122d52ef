"""What a baseline belongs to, which one is found, and when it is refused."""

import dataclasses
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from results import DIGEST, perplexity, result, setup, task

from gate import baseline, records
from gate.checkpoint import Checkpoint, open_checkpoint
from gate.containers import CONTAINERS
from gate.errors import (
    BaselineError,
    BaselineMismatchError,
    BaselineMissingError,
    CheckpointError,
    GateError,
)

TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [{"id": 3, "content": "<s>", "special": True}],
    "normalizer": None,
    "model": {"type": "BPE", "vocab": {"a": 0, "_b": 1, "padding": 2}, "merges": [["a", "b"]]},
}


def written(path: Path, **files: object) -> Checkpoint:
    """A checkpoint of these files; a dict becomes JSON. `_json` in a name stands for `.json`."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in ({"config_json": {"model_type": "llama"}} | files).items():
        text = content if isinstance(content, str) else json.dumps(content)
        (path / name.replace("_json", ".json").replace("_jinja", ".jinja")).write_text(text)
    return open_checkpoint(path, CONTAINERS)


@pytest.mark.model
def test_an_export_is_the_same_model_with_other_weights(export: Callable[[str], Path]):
    """ModelOpt leaves its calibration's truncation in tokenizer.json: no token changes."""
    reference, candidate = (open_checkpoint(export(n), CONTAINERS) for n in ("bf16", "fp8"))
    files = [(c.path / "tokenizer.json").read_bytes() for c in (reference, candidate)]
    assert files[0] != files[1]
    for digest in (baseline.tokenizer_digest, baseline.config_digest, baseline.template_sha):
        assert digest(reference) == digest(candidate)
    assert baseline.weights_digest(reference) != baseline.weights_digest(candidate)


def shards(path: Path, contents: dict[str, bytes]) -> Checkpoint:
    path.mkdir()
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return open_checkpoint(path, CONTAINERS)


def test_weights_digest_is_of_names_and_contents(tmp_path: Path):
    contents = {"a.safetensors": b"one", "b.safetensors": b"two"}
    digest = baseline.weights_digest(shards(tmp_path / "1", contents))
    again = shards(tmp_path / "2", dict(reversed(contents.items())))
    assert baseline.weights_digest(again) == digest
    swapped = {"a.safetensors": b"two", "b.safetensors": b"one"}
    assert baseline.weights_digest(shards(tmp_path / "3", swapped)) != digest
    (tmp_path / "2" / "b.safetensors").write_bytes(b"twp")
    assert baseline.weights_digest(again) != digest


def test_weights_outside_the_checkpoint_are_not_read(tmp_path: Path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "model.safetensors").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(b"secret")
    digest = baseline.weights_digest(open_checkpoint(tmp_path / "c", CONTAINERS))
    (tmp_path / "secret").write_bytes(b"other")
    assert baseline.weights_digest(open_checkpoint(tmp_path / "c", CONTAINERS)) == digest


def test_a_file_that_became_a_link_outwards_is_refused(tmp_path: Path):
    checkpoint = shards(tmp_path / "1", {"a.safetensors": b"one"})
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "1" / "a.safetensors").unlink()
    (tmp_path / "1" / "a.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="leads out"):
        baseline.weights_digest(checkpoint)


def test_a_vanished_weight_file_is_a_clear_error(tmp_path: Path):
    checkpoint = shards(tmp_path / "1", {"a.safetensors": b"one"})
    (tmp_path / "1" / "a.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        baseline.weights_digest(checkpoint)


def test_config_digest_leaves_out_what_an_export_changes(tmp_path: Path):
    model = {"model_type": "llama", "hidden_size": 576, "text_config": {"num_hidden_layers": 30}}
    exported = {
        "hidden_size": 576,
        "model_type": "llama",
        "text_config": {"num_hidden_layers": 30, "dtype": "float16"},
        "torch_dtype": "bfloat16",
        "transformers_version": "5.23.0",
        "_name_or_path": "/somewhere",
        "quantization_config": {"quant_algo": "FP8"},
        "pad_token_id": None,
    }
    digest = baseline.config_digest(written(tmp_path / "1", config_json=model))
    assert baseline.config_digest(written(tmp_path / "2", config_json=exported)) == digest
    deeper = model | {"text_config": {"num_hidden_layers": 31}}
    assert baseline.config_digest(written(tmp_path / "3", config_json=deeper)) != digest


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"truncation": {"max_length": 512}, "padding": {"pad_id": 0}}, True),
        ({"model": TOKENIZER["model"] | {"merges": ["a b"], "ignore_merges": False}}, True),
        ({"model": TOKENIZER["model"] | {"ignore_merges": True}}, False),
        ({"model": TOKENIZER["model"] | {"vocab": {"a": 0, "_c": 1, "padding": 2}}}, False),
        ({"model": TOKENIZER["model"] | {"vocab": {"a": 0, "_b": 1, "padded": 2}}}, False),
        ({"model": TOKENIZER["model"] | {"merges": [["b", "a"]]}}, False),
        ({"added_tokens": []}, False),
        ({"normalizer": {"type": "NFC"}}, False),
    ],
)
def test_tokenizer_digest_is_of_what_makes_tokens(tmp_path: Path, change: dict, same: bool):
    one = written(tmp_path / "1", tokenizer_json=TOKENIZER)
    two = written(tmp_path / "2", tokenizer_json=json.dumps(TOKENIZER | change, indent=3))
    assert (baseline.tokenizer_digest(one) == baseline.tokenizer_digest(two)) is same


def test_a_tokenizer_without_tokenizer_json_is_told_by_its_files(tmp_path: Path):
    def digest(name: str, content: bytes) -> str:
        checkpoint = written(tmp_path / name)
        (tmp_path / name / "tokenizer.model").write_bytes(content)
        return baseline.tokenizer_digest(checkpoint)

    assert digest("1", b"\xff\x00a") == digest("2", b"\xff\x00a") != digest("3", b"\xff\x00b")


def test_the_template_is_found_where_transformers_looks(tmp_path: Path):
    template = "{{ messages }}"
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": template}]
    shas = {
        baseline.template_sha(checkpoint)
        for checkpoint in (
            written(tmp_path / "1", chat_template_jinja=template),
            written(tmp_path / "2", tokenizer_config_json={"chat_template": template}),
            written(tmp_path / "3", tokenizer_config_json={"chat_template": named}),
            written(
                tmp_path / "4",
                chat_template_jinja=template,
                tokenizer_config_json={"chat_template": "other"},
            ),
        )
    }
    assert len(shas) == 1 and shas != {None}
    assert baseline.template_sha(written(tmp_path / "5")) is None
    assert baseline.template_sha(written(tmp_path / "6", tokenizer_config_json="[")) is None


def test_a_missing_baseline_names_its_command(tmp_path: Path):
    with pytest.raises(BaselineMissingError) as error:
        baseline.load(tmp_path / "b.json", "gate eval acme/model -o b.json")
    assert error.value.exit_code == 3
    assert "gate eval acme/model -o b.json" in error.value.hint


def test_the_command_survives_a_shell():
    command = baseline.eval_command("my models/a; rm -rf x", settings="s.yaml", path="b.json")
    expected = ["gate", "eval", "my models/a; rm -rf x", "--settings", "s.yaml", "-o", "b.json"]
    assert shlex.split(command) == expected
    made = baseline.eval_command("acme/Model-8B", "0e9e39f")
    assert made == "gate eval acme/Model-8B@0e9e39f -o baselines/model-8b.json"


def test_a_newer_baseline_is_refused(tmp_path: Path):
    value = result().model_dump(mode="json") | {"schema_version": records.SCHEMA_VERSION + 1}
    (tmp_path / "b.json").write_text(json.dumps(value))
    with pytest.raises(GateError, match="schema version") as error:
        baseline.load(tmp_path / "b.json")
    assert error.value.exit_code == 3
    with pytest.raises(BaselineMissingError, match="schema version"):
        baseline.find(tmp_path, baseline.Conditions.of(result()))


BASE = result(task([1.0]), perplexities=[perplexity([1.0, 2.0])])


def conditions(**changes: object) -> baseline.Conditions:
    return dataclasses.replace(baseline.Conditions.of(BASE), **changes)


def test_a_result_is_comparable_with_itself():
    assert baseline.mismatches(BASE, conditions()) == ()
    assert baseline.warnings(BASE, conditions()) == ()
    baseline.require_comparable(BASE, conditions(), Path("b.json"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"backend": "vllm"}, "backend is hf in the baseline and vllm here"),
        ({"tokenizer_digest": DIGEST["a"]}, "tokenizer is 000000000000 in the baseline"),
        ({"template_sha": None}, "chat template is 000000000000 in the baseline and none here"),
        ({"setups": (setup(num_fewshot=5),)}, "ifeval num_fewshot is 0 in the baseline and 5"),
        ({"setups": (setup(task_hash=DIGEST["a"]),)}, "ifeval task_hash"),
        ({"setups": (setup(apply_chat_template=False),)}, "ifeval apply_chat_template is True"),
        (
            {"setups": (setup(generation_kwargs={"until": [], "max_gen_toks": 128}),)},
            "ifeval generation_kwargs.max_gen_toks is 1280 in the baseline and 128 here",
        ),
        ({"setups": (setup(task="gsm8k"),)}, "it has no task gsm8k"),
        ({"setups": (setup(think="keep"),)}, "ifeval think is strip in the baseline and keep here"),
        (
            {"setups": (setup(apply_chat_template=False),), "template_sha": None},
            "chat template is 000000000000 in the baseline and none here",
        ),
        ({"tokens_digests": {"domain.txt": DIGEST["h"]}}, "tokens of domain.txt is"),
        ({"tokens_digests": {"other.txt": DIGEST["h"]}}, "it has no perplexity on other.txt"),
    ],
)
def test_a_difference_is_named_with_both_values(changes: dict, words: str):
    with pytest.raises(BaselineMismatchError) as error:
        baseline.require_comparable(BASE, conditions(**changes), Path("b.json"))
    assert words in error.value.message
    assert "gate eval acme/model@0e9e39f249a1 -o b.json" in error.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"activations": "off"},
        {"backend": "replay"},
        {"setups": ()},
        {"setups": (setup(documents=DIGEST["a"]),)},
        {"template_sha": None, "setups": ()},
        {"setups": (setup(think="strip"),)},
    ],
)
def test_what_is_no_difference(changes: dict):
    assert baseline.mismatches(BASE, conditions(**changes)) == ()


def test_a_missing_template_is_copied_rather_than_the_baseline_made_again():
    with pytest.raises(BaselineMismatchError) as error:
        baseline.require_comparable(BASE, conditions(template_sha=None), Path("b.json"))
    assert error.value.hint.startswith("Copy the chat template of acme/model into the checkpoint")


def test_an_older_baseline_scored_think_blocks_as_they_were():
    answer = records.Answer(doc_id=0, text="<think>Hm.</think>Yes.", tokens=9, finish="stop")
    older = BASE.model_copy(update={"answers": {"ifeval": (answer,)}})
    assert baseline.mismatches(older, conditions(setups=(setup(think="strip"),))) == (
        "ifeval think is keep in the baseline and strip here",
    )
    assert baseline.mismatches(older, conditions(setups=(setup(think="keep"),))) == ()
    assert baseline.mismatches(older, baseline.Conditions.of(older)) == ()


def test_a_quantized_baseline_must_quantize_activations_alike():
    quantized = BASE.model_copy(update={"format": "modelopt"})
    assert baseline.mismatches(quantized, conditions(activations="off")) == (
        "activations is emulate in the baseline and off here",
    )


def test_another_machine_is_a_warning():
    changes = {"device": "NVIDIA H100", "dtype": "float16", "versions": {"torch": "2.11.0"}}
    assert baseline.mismatches(BASE, conditions(**changes)) == ()
    assert baseline.warnings(BASE, conditions(config_digest=DIGEST["a"], **changes)) == (
        "config.json differs from the baseline's beyond its quantization",
        "device is cpu in the baseline and NVIDIA H100 here",
        "dtype is bfloat16 in the baseline and float16 here",
        "torch is 2.13.0 in the baseline and 2.11.0 here",
    )


def stored(directory: Path, **results: records.EvalResult) -> Path:
    for name, value in results.items():
        records.write(directory / f"{name}.json", value)
    return directory


def test_the_baseline_of_a_reference_is_found(tmp_path: Path):
    other = BASE.model_copy(update={"weights_digest": DIGEST["a"], "model": "acme/other"})
    stored(tmp_path, mine=BASE, other=other)
    (tmp_path / "notes.json").write_text("[]")

    def name(**reference: str) -> str:
        return baseline.find(tmp_path, conditions(), **reference)[0].stem

    assert name(reference_digest=BASE.weights_digest) == "mine"
    assert name(reference_digest=DIGEST["a"]) == "other"
    assert name(model="acme/model", revision="0e9e39f") == "mine"
    assert name(model="acme/model") == "mine"
    for reference in (
        {"reference_digest": DIGEST["b"]},
        {"model": "acme/model", "revision": "1234567"},
        {"model": "acme/third"},
    ):
        with pytest.raises(BaselineMissingError):
            name(**reference)


def test_without_a_reference_the_comparable_one_is_found(tmp_path: Path):
    longer = BASE.model_copy(update={"setups": (setup(num_fewshot=5),)})
    stored(tmp_path, mine=BASE, longer=longer)
    assert baseline.find(tmp_path, conditions())[0].stem == "mine"
    # Two that are comparable: the one of the same config.json, else neither.
    stored(tmp_path, twin=BASE.model_copy(update={"config_digest": DIGEST["a"]}))
    assert baseline.find(tmp_path, conditions())[0].stem == "mine"
    with pytest.raises(BaselineError, match="several baselines fit") as error:
        baseline.find(tmp_path, conditions(config_digest=DIGEST["b"]))
    assert "mine.json" in error.value.message and "twin.json" in error.value.message
    assert "--baseline" in error.value.hint


def test_a_reference_whose_baseline_measured_something_else_says_what(tmp_path: Path):
    stored(tmp_path, mine=BASE)
    with pytest.raises(BaselineMismatchError, match="num_fewshot is 0 in the baseline and 5"):
        baseline.find(
            tmp_path,
            conditions(setups=(setup(num_fewshot=5),)),
            reference_digest=BASE.weights_digest,
        )


def test_no_directory_is_no_baseline(tmp_path: Path):
    with pytest.raises(BaselineMissingError) as error:
        baseline.find(tmp_path / "baselines", conditions(), command="gate eval acme/model -o x")
    assert "gate eval acme/model -o x" in error.value.hint


def test_a_copy_of_a_checkpoint_has_its_digests(tmp_path: Path):
    one = written(tmp_path / "1", tokenizer_json=TOKENIZER)
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    two = open_checkpoint(tmp_path / "2", CONTAINERS)
    for digest in (baseline.weights_digest, baseline.config_digest, baseline.tokenizer_digest):
        assert digest(one) == digest(two)
