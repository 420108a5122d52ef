"""The image: really built, on a bootstrapped base with a CPU torch, and run as its user.

What is not built here, for want of a registry and a GPU: the CUDA base, vLLM's image, torch's
CUDA wheels (`image/torch.lock`). QUANT_GATE_TEST_IMAGES names a directory that keeps the base.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import build, edit_tensors
from tiny_models import VOCABULARY, export, llama

pytestmark = pytest.mark.image

ROOT = Path(__file__).parent.parent
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
BASE = "localhost/base:ci"
PACKAGES = "ca-certificates,git,git-lfs,python3,python3-venv"
DIST_PACKAGES = "usr/local/lib/python{}.{}/dist-packages".format(*sys.version_info)

SETTINGS = """\
version: 1
checkpoints:
  - path: "**"
    baseline: baselines/base.json
metrics:
  - perplexity: {file: text.txt, window: 32, windows: 4}
    max_ratio: 1.5
"""


class Buildah:
    """Builds and runs images without a daemon."""

    def __init__(self, store: Path) -> None:
        self.command = ["buildah", "--root", str(store / "store"), "--runroot", str(store / "run")]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip()

    def build(self, tag: str, target: str, **arguments: str) -> None:
        given = {
            "BASE_IMAGE": BASE,
            "VLLM_IMAGE": BASE,
            "TORCH_LOCK": "",
            "PIP_CERT": CERTIFICATES,
        }
        if index := os.environ.get("PIP_INDEX_URL"):
            given["PIP_INDEX_URL"] = index
        self(
            "build", "--isolation", "chroot", "--format", "docker", "--layers=false",
            "--pull-never", "--target", target, "--tag", tag,
            "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro",
            *(f"--build-arg={name}={value}" for name, value in given.items()),
            *(f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()),
            ".",
        )  # fmt: skip


class Container:
    """A container of an image; commands in it run one after the other."""

    def __init__(self, buildah: Buildah, image: str) -> None:
        self.buildah = buildah
        self.name = buildah("from", "--pull-never", image)

    @property
    def config(self) -> dict[str, Any]:
        described = json.loads(self.buildah("inspect", self.name))
        return dict(described["OCIv1"]["config"])

    def run(
        self, *command: str, user: int | None = None, mounts: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run the entry point, or whatever else `command` begins with."""
        options = [f"--volume={mount}" for mount in mounts]
        options += [f"--user={user}"] if user is not None else []
        return subprocess.run(
            [*self.buildah.command, "run", "--isolation", "chroot", *options, self.name, "--",
             *command],
            capture_output=True, text=True, check=False,
        )  # fmt: skip


def said(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    everything = done.stdout + done.stderr
    assert done.returncode == code, everything
    return everything


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """With a base that has Python and torch, as vLLM's image has them."""
    missing = [tool for tool in ("buildah", "mmdebstrap") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {' and '.join(missing or ['nothing else'])}")
    kept = os.environ.get("QUANT_GATE_TEST_IMAGES")
    # Not below pytest's own directory, which it keeps for three runs.
    store = Path(kept) if kept else tmp_path_factory.mktemp("images")
    made = Buildah(store)
    if BASE not in made("images", "--format", "{{.Name}}:{{.Tag}}").split():
        make_base(made, store)
    yield made
    if not kept:
        made("rm", "--all")
        made("rmi", "--all", "--force")


def make_base(buildah: Buildah, directory: Path) -> None:
    """Debian 12 with its Python 3.11, and the build of torch that this host gives."""
    archive = directory / "base.tar"
    variant = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
    subprocess.run([*variant, "bookworm", str(archive)], check=True)
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(archive), "/")
    archive.unlink()
    target = Path(buildah("mount", container)) / DIST_PACKAGES
    torch = next(
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("torch==")
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, torch], check=True)
    buildah("umount", container)
    buildah("commit", "--quiet", "--rm", container, BASE)


@pytest.fixture(scope="module")
def gate(buildah: Buildah) -> Container:
    buildah.build("localhost/gate:ci", "gate")
    return Container(buildah, "localhost/gate:ci")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of root's: settings, a text, a model and ModelOpt's FP8 export of it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("workspace")
    words = {f"w{number}": number for number in range(VOCABULARY - 1)} | {"<s>": VOCABULARY - 1}
    own = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<s>")
    export(llama(), "FP8_DEFAULT", directory / "fp8")
    (directory / "fp8-plain").rename(directory / "original")
    for name in ("fp8", "original"):
        tokenizer.save_pretrained(directory / name)
    build(directory / "nvfp4", "NVFP4")
    scale = "model.layers.0.mlp.up_proj.weight_scale"
    edit_tensors(build(directory / "broken", "FP8"), lambda tensors: tensors.pop(scale))
    (directory / "text.txt").write_text(" ".join(f"w{n * 31 % 100}" for n in range(400)))
    (directory / "quant-gate.yaml").write_text(SETTINGS)
    (directory / "baselines").mkdir()
    subprocess.run(["chmod", "-R", "a+rX,go-w", str(directory)], check=True)
    return directory


def test_what_the_image_says_of_itself(gate: Container) -> None:
    config = gate.config
    assert config["Entrypoint"] == ["gate"]
    assert config["User"] == "10001"
    assert config["WorkingDir"] == "/workspace"
    assert list(config["Volumes"]) == ["/cache"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    names = {entry.partition("=")[0] for entry in config["Env"]}
    assert names == {"PATH", "HOME", "USER", "HF_HOME", "QUANT_GATE_CACHE"}, "no build argument"


def test_its_user_writes_nothing_but_its_cache(gate: Container) -> None:
    # What it may not even look into ends find with 1.
    find = "find / -xdev -maxdepth 4 -type d -writable ! -path '/proc/*' ! -path '/dev/*' -prune"
    found = said(gate.run("sh", "-c", f"{find} 2>/dev/null || true"))
    assert set(found.split()) <= {"/cache", "/tmp", "/var/tmp", "/run/lock"}


def test_lint_on_a_read_only_checkout(gate: Container, workspace: Path) -> None:
    mount = (f"{workspace}:/workspace:ro",)
    assert "version" in said(gate.run("gate", "--version"))
    assert "10001" in said(gate.run("id", "-u"))
    assert "PASS" in said(gate.run("gate", "lint", "nvfp4", mounts=mount))
    assert "missing-scale" in said(gate.run("gate", "lint", "broken", mounts=mount), 1)


def test_a_model_is_judged_by_any_user(gate: Container, workspace: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    mounts = (f"{workspace}:/workspace:ro", f"{tmp_path}:/workspace/baselines")
    said(gate.run("gate", "eval", "original", "-o", "baselines/base.json", mounts=mounts))
    assert "PASS  fp8" in said(gate.run("gate", "check", "fp8", mounts=mounts))
    # One whom the image does not know, with a cache of its own.
    fresh = Container(gate.buildah, "localhost/gate:ci")
    assert "PASS  fp8" in said(fresh.run("gate", "check", "fp8", user=4242, mounts=mounts))


def test_only_the_runners_own_user_writes_its_command_files(
    gate: Container, tmp_path: Path
) -> None:
    commands = tmp_path / "output"
    commands.touch(mode=0o644)
    os.chown(commands, 4242, 4242)
    tmp_path.chmod(0o755)
    mount = (f"{tmp_path}:/commands",)
    write = ("sh", "-c", "echo status=pass >> /commands/output")
    assert "Permission denied" in said(gate.run(*write, mounts=mount), 2)
    said(gate.run(*write, user=4242, mounts=mount))
    assert commands.read_text() == "status=pass\n"


def test_on_a_base_with_its_own_torch_it_stays_and_a_bundle_comes_along(
    buildah: Buildah, tmp_path: Path, sentence_data: Path
) -> None:
    from gate import bundle
    from gate.cli.options import request

    (tmp_path / "ifeval.jsonl").write_text(
        '{"key": 1, "prompt": "Hello?", "instruction_id_list": ["punctuation:no_comma"], '
        '"kwargs": [{}]}\n'
    )
    settings = tmp_path / "quant-gate.yaml"
    settings.write_text("version: 1\nmetrics:\n  - task: ifeval\n    documents: ifeval.jsonl\n")
    bundle.pack(request("", settings), tmp_path / "bundle")
    buildah.build("localhost/vllm:ci", "vllm", build_context=f"bundle={tmp_path / 'bundle'}")
    container = Container(buildah, "localhost/vllm:ci")
    where = (
        "from importlib.metadata import version; from importlib.util import find_spec; "
        "print(version('torch'), find_spec('torch').origin)"
    )
    ours = said(container.run("/opt/quant-gate/bin/python", "-c", where))
    theirs = said(container.run("/usr/bin/python3", "-c", where))
    assert ours == theirs and f"/{DIST_PACKAGES}/torch" in ours
    kept = "/opt/quant-gate/bundle/quant-gate.yaml"
    proof = said(container.run("gate", "doctor", "--offline", "--settings", kept))
    assert "ok      bundle: /opt/quant-gate/bundle, " in proof
    assert "ok      task ifeval: ifeval.jsonl" in proof
    assert "ok      network: not used" in proof
