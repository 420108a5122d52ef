"""A bundle carries an evaluation to a machine without a network."""

import hashlib
import json
import os
import pydoc_data.topics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import hub_stub
import pytest

from gate import bundle, offline, preflight
from gate.cli.options import request
from gate.errors import GateError, SettingsError
from gate.records import Bundle, read

SETTINGS = """\
version: 1
batch_size: 3
canary_prompts: 0
checkpoints:
  - path: "**"
    baseline: baselines/base.json
metrics:
  - task: ifeval
    metric: inst_level_strict_acc
    max_gen_toks: 4
  - perplexity: {file: texts/topics.txt, window: 64, windows: 2}
    max_ratio: 1.10
"""

LOCAL = """\
version: 1
metrics:
  - task: tasks/own.yaml
    documents: documents.jsonl
"""

OWN_TASK = """\
task: own
include: more/shared.yaml
output_type: multiple_choice
doc_to_target: answer
doc_to_choice: [no, yes]
"""

NO_SOCKETS = """
import os, socket, sys
def refuse(event, arguments):
    if event == "socket.getaddrinfo" or (
        event == "socket.connect" and arguments[0].family != socket.AF_UNIX
    ):
        os.write(2, f"NETWORK {event} {arguments}".encode())
        os._exit(77)
sys.addaudithook(refuse)
"""


def gate(
    directory: Path, *arguments: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in {"NLTK_DATA", *offline.SWITCHES}}
    return subprocess.run(
        [sys.executable, "-m", "gate", *arguments],
        cwd=directory, env=kept | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def elsewhere(directory: Path) -> dict[str, str]:
    """The environment of a machine whose caches are empty and whose sockets end the process."""
    site = directory / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(NO_SOCKETS)
    return {
        "PYTHONPATH": str(site),
        "HOME": str(directory / "home"),
        "HF_HOME": str(directory / "home" / "huggingface"),
        "QUANT_GATE_CACHE": str(directory / "home" / "quant-gate"),
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings with a text, and the hub's data set of IFEval."""
    directory = tmp_path_factory.mktemp("repository")
    (directory / "texts").mkdir()
    topics = sorted(pydoc_data.topics.topics.items())
    (directory / "texts" / "topics.txt").write_text("\n\n".join(text for _, text in topics))
    (directory / "quant-gate.yaml").write_text(SETTINGS)
    return directory


@pytest.fixture(scope="module")
def packed(
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    sentence_data: Path,
    export: Callable[[str], Path],
) -> Path:
    """A bundle made where the hub answers, after the baseline was."""
    rows = [
        {
            "key": number,
            "prompt": f"Name {number} rivers without any commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        }
        for number in (2, 3, 4)
    ]
    home = tmp_path_factory.mktemp("home")
    output = tmp_path_factory.mktemp("packed") / "bundle"
    content = "\n".join(map(json.dumps, rows)).encode()
    with hub_stub.serve("google/IFEval", {"ifeval_input_data.jsonl": content}) as endpoint:
        environment = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "NLTK_DATA": str(sentence_data),
            "QUANT_GATE_CACHE": str(home / "quant-gate"),
        }
        for command in (
            ["eval", str(export("bf16")), "-o", "baselines/base.json"],
            ["bundle", "-o", str(output)],
        ):
            done = gate(repository, *command, environment=environment)
            assert done.returncode == 0, done.stdout + done.stderr
    assert f"gate doctor --offline --settings {output}/quant-gate.yaml" in done.stdout
    return output


@pytest.mark.model
def test_doctor_proves_that_no_network_is_needed_and_check_needs_none(
    packed: Path, tmp_path: Path, export: Callable[[str], Path]
) -> None:
    settings = ("--settings", str(packed / "quant-gate.yaml"))
    done = gate(tmp_path, "doctor", "--offline", *settings, environment=elsewhere(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("ok      bundle:", "ok      task ifeval:", "ok      network: not used"):
        assert line in done.stdout
    assert "ok      baseline baselines/base.json:" in done.stdout
    before = read(packed / "bundle.json", Bundle)
    # Mounted read-only, as an image or another user's directory is.
    for path in (packed, *packed.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    done = gate(tmp_path, "check", str(export("bf16")), *settings, environment=elsewhere(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "inst_level_strict_acc" in done.stdout
    assert set(before.files) == {
        path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()
    } - {"bundle.json"}


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings whose every file lies beside them."""
    root = tmp_path / "repository"
    (root / "tasks" / "more").mkdir(parents=True)
    (root / "tasks" / "own.yaml").write_text(OWN_TASK)
    (root / "tasks" / "more" / "shared.yaml").write_text("doc_to_text: question\n")
    (root / "documents.jsonl").write_text('{"question": "1 = 1?", "answer": 1}\n')
    (root / "baselines").mkdir()
    (root / "baselines" / "base.json").write_text("{}")
    (root / "weights.safetensors").write_text("")
    (root / "quant-gate.yaml").write_text(LOCAL)
    monkeypatch.chdir(root)
    monkeypatch.delenv(bundle.NAMED, raising=False)
    return root


def pack(root: Path) -> Path:
    """The bundle of the settings here."""
    bundle.pack(request("", None), root.parent / "bundle")
    return root.parent / "bundle"


def test_what_the_settings_name_keeps_its_place_and_nothing_else_comes_along(local: Path) -> None:
    packed = pack(local)
    written = read(packed / "bundle.json", Bundle)
    assert sorted(written.files) == [
        "baselines/base.json",
        "documents.jsonl",
        "quant-gate.yaml",
        "tasks/more/shared.yaml",
        "tasks/own.yaml",
    ]
    assert "lm-eval" in written.versions
    for name, digest in written.files.items():
        assert hashlib.sha256((packed / name).read_bytes()).hexdigest() == digest
        assert (packed / name).read_bytes() == (local / name).read_bytes()


def test_a_changed_file_is_found(local: Path) -> None:
    packed = pack(local)
    (sound,) = bundle.doctor(packed)
    assert sound.error is None and "5 files" in sound.detail
    (packed / "documents.jsonl").write_text('{"question": "1 = 2?", "answer": 1}\n')
    (changed,) = bundle.doctor(packed)
    assert changed.error and "documents.jsonl is not what was packed" in changed.error.message
    (packed / "documents.jsonl").unlink()
    (missing,) = bundle.doctor(packed)
    assert missing.error and "documents.jsonl of the bundle is missing" in missing.error.message
    assert list(bundle.doctor(local)) == [], "there is none"


def test_weights_are_refused_and_an_earlier_bundle_stays(local: Path) -> None:
    earlier = (pack(local) / "bundle.json").read_text()
    (local / "quant-gate.yaml").write_text(LOCAL + "include_path: .\n")
    with pytest.raises(SettingsError, match=r"weights\.safetensors holds weights"):
        pack(local)
    assert (local.parent / "bundle" / "bundle.json").read_text() == earlier
    assert sorted(path.name for path in local.parent.iterdir()) == ["bundle", "repository"]


def test_a_bundle_is_replaced_and_another_directory_is_not(local: Path) -> None:
    pack(local)
    (local / "documents.jsonl").write_text('{"question": "2 = 2?", "answer": 1}\n')
    packed = pack(local)
    assert "2 = 2" in (packed / "documents.jsonl").read_text()
    (packed / "bundle.json").unlink()
    with pytest.raises(GateError, match="is no bundle"):
        pack(local)
    assert (packed / "documents.jsonl").is_file()


def test_files_outside_the_settings_directory_are_refused(local: Path) -> None:
    (local / "documents.jsonl").rename(local.parent / "documents.jsonl")
    (local / "documents.jsonl").symlink_to("../documents.jsonl")
    with pytest.raises(SettingsError, match="outside their directory"):
        pack(local)


@pytest.mark.parametrize("name", ["../escaped", "/etc/hostname", "huggingface/datasets/../../../x"])
def test_a_manifest_that_names_files_elsewhere_is_refused(local: Path, name: str) -> None:
    packed = pack(local)
    value = json.loads((packed / "bundle.json").read_text())
    value["files"][name] = "0" * 64
    (packed / "bundle.json").write_text(json.dumps(value))
    with pytest.raises(GateError, match="outside of it"):
        bundle.use(packed)


def test_the_named_bundle_counts_more_than_the_settings_own(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack(local)
    monkeypatch.setenv(bundle.NAMED, str(local))
    with pytest.raises(GateError, match="is no bundle") as raised:
        bundle.use(packed)
    assert "gate bundle -o" in raised.value.hint


def test_a_connection_that_is_tried_is_refused_and_named() -> None:
    code = (
        "import os, socket\n"
        "from gate.offline import refuse_network\n"
        "tried = refuse_network()\n"
        "for ask in (lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "            lambda: socket.getaddrinfo('example.org', 443)):\n"
        "    try: ask()\n"
        "    except ConnectionRefusedError as error: print(error)\n"
        "left, right = socket.socketpair(); left.send(b'x')\n"
        "print(len(tried), os.environ['HF_HUB_OFFLINE'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "example.org is not asked" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "2 1"
    (found,) = preflight.network(["example.org"])
    assert found.error is not None and "example.org" in found.error.message
