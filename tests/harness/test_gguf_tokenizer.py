"""The tokenizer that a GGUF file describes, and the one that may lie beside it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_files
import gguf_models
import pytest
from tiny_models import llama, opened

from gate import baseline
from gate.errors import CheckpointError
from gate.harness import load_tokenizer, prompting

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

FILE = "model.gguf"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the real file alone."""
    path = tmp_path_factory.mktemp("real")
    (path / FILE).hardlink_to(gguf_files.real_file())
    return path


def test_makes_the_tokens_of_the_model_s_own(real: Path, export: Callable[[str], Path]) -> None:
    own, theirs = load_tokenizer(real, whole_file=FILE), load_tokenizer(export("bf16"))
    assert prompting.tokens_digest(own, ["Hello 12"]) == prompting.tokens_digest(
        theirs, ["Hello 12"]
    )
    assert prompting.tokens_digest(own, ["a"]) != prompting.tokens_digest(own, ["b"])
    assert own.chat_template == theirs.chat_template
    specials = [(t.bos_token, t.eos_token, t.pad_token, t.unk_token) for t in (own, theirs)]
    assert specials[0] == specials[1]


def test_a_tokenizer_json_beside_the_file_is_used(
    real: Path, export: Callable[[str], Path], tmp_path: Path
) -> None:
    """It says how a text is split before: here, digits one by one or all together."""
    (tmp_path / FILE).hardlink_to(real / FILE)
    described = json.loads((export("bf16") / "tokenizer.json").read_text())
    described["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    (tmp_path / "chat_template.jinja").write_text("another")
    own, alone = load_tokenizer(tmp_path, whole_file=FILE), load_tokenizer(real, whole_file=FILE)
    assert own("hello")["input_ids"] == alone(" hello")["input_ids"]
    assert own.chat_template == alone.chat_template != "another"
    assert prompting.tokens_digest(own, []) != prompting.tokens_digest(alone, [])


def test_a_tokenizer_json_of_another_model_is_refused(
    real: Path, export: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / FILE).hardlink_to(real / FILE)
    described = json.loads((export("bf16") / "tokenizer.json").read_text())
    vocabulary = described["model"]["vocab"]
    vocabulary["hello"], vocabulary["world"] = vocabulary["world"], vocabulary["hello"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not the tokenizer of model"):
        load_tokenizer(tmp_path, whole_file=FILE)


@pytest.fixture(scope="module")
def tiny() -> Any:
    return llama()


def written(model: Any, path: Path, **keys: Any) -> Any:
    found = {f"tokenizer.{key}": value for key, value in keys.items()}
    gguf_models.convert(model, path / FILE, metadata=found)
    return load_tokenizer(path, whole_file=FILE)


@pytest.mark.parametrize(
    ("keys", "begins"),
    [
        ({}, False),
        ({"ggml.add_bos_token": True}, True),
        ({"ggml.pre": "llama-bpe"}, True),
        ({"ggml.pre": "llama-bpe", "ggml.add_bos_token": False}, False),
    ],
    ids=["plain", "stated", "by its kind", "stated otherwise"],
)
def test_texts_begin_with_a_bos_where_llama_cpp_puts_one(
    tiny: Any, tmp_path: Path, keys: dict[str, Any], begins: bool
) -> None:
    tokenizer = written(tiny, tmp_path, **keys)
    assert (tokenizer("\u0105").input_ids[0] == tokenizer.bos_token_id) is begins


@pytest.mark.parametrize(
    "keys",
    [
        {"ggml.model": "rwkv"},
        {"ggml.model": None},
        {"ggml.bos_token_id": 4_000_000_000},
        {"ggml.tokens": None},
        {"ggml.merges": ["x y z", "q"]},
        {"ggml.token_type": ["a"]},
    ],
    ids=lambda keys: " ".join(keys),
)
def test_what_describes_no_tokenizer_is_refused(
    tiny: Any, tmp_path: Path, keys: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match=r"the tokenizer of .*model\.gguf cannot be loaded"):
        written(tiny, tmp_path, **keys)


def digests(path: Path) -> tuple[str, str, "str | None"]:
    checkpoint, _ = opened(path)
    return (
        baseline.tokenizer_digest(checkpoint),
        baseline.config_digest(checkpoint),
        baseline.template_sha(checkpoint),
    )


def test_fingerprints_are_of_what_the_file_says(
    tiny: Any, real: Path, export: Callable[[str], Path], tmp_path: Path
) -> None:
    """Long arrays count by their content; the weights' type changes none of the three."""
    made = {
        name: digests(gguf_models.convert(tiny, tmp_path / name / FILE, **options).parent)
        for name, options in {
            "plain": {},
            "quantized": {"kind": "Q8_0"},
            "base": {"metadata": {"llama.rope.freq_base": 5.0}},
            "bos": {"metadata": {"tokenizer.ggml.bos_token_id": 5}},
        }.items()
    }
    assert made["plain"] == made["quantized"]
    assert [made["plain"][i] == made["base"][i] for i in range(3)] == [True, False, True]
    assert [made["plain"][i] == made["bos"][i] for i in range(3)] == [False, True, True]
    assert digests(real)[2] == digests(export("bf16"))[2]


def test_one_token_of_many_changes_the_fingerprint(real: Path, tmp_path: Path) -> None:
    shutil.copy(real / FILE, tmp_path / FILE)
    with (tmp_path / FILE).open("r+b") as file:
        head = file.read(2**21)
        file.seek(head.index("\u0120zebra".encode()[:6]))
        file.write("\u0120zibr".encode()[:6])
    assert digests(tmp_path)[0] != digests(real)[0]
    assert digests(tmp_path)[1:] == digests(real)[1:]
