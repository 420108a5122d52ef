"""A repository with real history and real tiny checkpoints, and what GitHub would say about it.

The base commit holds settings, a baseline, checkpoints and the stored answers of the checkpoints
that the change brings, so that a verdict takes a second and no model.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import results
from checkpoints import build, edit_tensors

from gate import baseline, records
from gate.checkpoint import open_checkpoint
from gate.containers import CONTAINERS
from gate.records import Answer, EvalResult

NAME = "acme/models"
SETTINGS = """
version: 1
backend: replay
answers: answers.json
metrics:
  - task: ifeval
    metric: inst_level_strict_acc
    min_retention: 0.95
"""
DOCUMENTS = 200
SCALE = "model.layers.0.mlp.up_proj.weight_scale"


class Change(NamedTuple):
    """Two commits: what a pull request, a queue or a push is about."""

    base: str
    head: str


class Repository:
    """A repository at `root`, of which GitHub knows as `acme/models`.

    Args:
        root: Made here.
        checkpoints: Directories of the checkpoints that the base commit holds.
        lost: How many of the documents the change's checkpoints get wrong; ten are allowed.
        settled: Whether the base commit has settings; otherwise the change brings them.
    """

    def __init__(
        self,
        root: Path,
        checkpoints: Sequence[str] = ("quantized_model",),
        lost: int = 0,
        settled: bool = True,
    ) -> None:
        self.root = root
        root.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", f"https://github.com/{NAME}.git")
        if settled:
            (root / "quant-gate.yaml").write_text(SETTINGS)
        (root / "README.md").write_text("# Models\n")
        model = build(root.parent / f"{root.name}-next", layers=1)
        answers = _measured(model, [0.0] * lost + [1.0] * (DOCUMENTS - lost))
        records.write(root / "answers.json", answers)
        reference = {"weights_digest": "0" * 64, "format": None, "weight_bits": None}
        stored = _measured(model, [1.0] * DOCUMENTS, **reference)
        records.write(root / "baselines" / "base.json", stored)
        self.next = model
        for path in checkpoints:
            edit_tensors(_copy(model, root / path), _touch)
        self.base = self.commit("Models as they were")

    def git(self, *arguments: str) -> str:
        """What git prints, in an environment that is the same everywhere."""
        who = {
            f"GIT_{role}_{field}": value
            for role in ("AUTHOR", "COMMITTER")
            for field, value in (("NAME", "A"), ("EMAIL", "a@example.com"))
        }
        plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root, env=os.environ | who | plain, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        """Commit everything; the commit's name."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def change(
        self,
        sound: Sequence[str] = (),
        broken: Sequence[str] = (),
        files: Mapping[str, str] = MappingProxyType({}),
    ) -> Change:
        """A branch with new checkpoints, sound ones and ones without a scale, checked out."""
        self.git("switch", "--quiet", "--create", "change")
        for path in (*sound, *broken):
            _copy(self.next, self.root / path)
        for path in broken:
            edit_tensors(self.root / path, lambda tensors: tensors.pop(SCALE))
        for name, text in files.items():
            (self.root / name).write_text(text)
        return Change(self.base, self.commit("Change"))

    def merged(self, change: Change, moved: Sequence[str] = ()) -> Change:
        """What GitHub checks out for a pull request: the merge with a base that has moved on."""
        self.git("switch", "--quiet", "main")
        for path in moved:
            edit_tensors(self.root / path, _touch)
        base = self.commit("Meanwhile")
        self.git("switch", "--quiet", "--detach")
        self.git("merge", "--quiet", "--no-ff", "--no-edit", change.head)
        return Change(base, change.head)

    def write_event(self, payload: Mapping[str, Any]) -> Path:
        """The payload as a file beside the repository."""
        path = self.root.parent / f"{self.root.name}-event.json"
        path.write_text(json.dumps(payload))
        return path


def pull_request(
    change: Change, *, number: int = 7, fork: bool = False, action: str = "synchronize"
) -> dict[str, Any]:
    """The payload of `pull_request`."""
    head_repository = "stranger/models" if fork else NAME
    return {
        "action": action,
        "number": number,
        "pull_request": {
            "number": number,
            "state": "open",
            "labels": [],
            "user": {"login": "author"},
            "head": {
                "sha": change.head,
                "ref": "change",
                "repo": {"full_name": head_repository, "fork": fork},
            },
            "base": {"sha": change.base, "ref": "main", "repo": {"full_name": NAME}},
        },
        **_common("author"),
    }


def merge_group(change: Change) -> dict[str, Any]:
    """The payload of `merge_group`."""
    return {
        "action": "checks_requested",
        "merge_group": {
            "head_sha": change.head,
            "head_ref": f"refs/heads/gh-readonly-queue/main/pr-7-{change.base}",
            "base_sha": change.base,
            "base_ref": "refs/heads/main",
        },
        **_common("github-merge-queue[bot]"),
    }


def tag_push(change: Change, tag: str = "v1.0.0") -> dict[str, Any]:
    """The payload of `push` for a new tag."""
    return {
        "ref": f"refs/tags/{tag}",
        "before": "0" * 40,
        "after": change.head,
        "created": True,
        "deleted": False,
        "forced": False,
        "base_ref": None,
        "head_commit": {"id": change.head},
        **_common("maintainer"),
    }


def dispatch(ref: str = "refs/heads/main", **inputs: str) -> dict[str, Any]:
    """The payload of `workflow_dispatch`."""
    return {"ref": ref, "inputs": inputs, **_common("maintainer")}


def schedule() -> dict[str, Any]:
    """The payload of `schedule`."""
    return {"schedule": "17 2 * * *", **_common("maintainer")}


def workflow_run(change: Change, run_id: int = 99) -> dict[str, Any]:
    """The payload of `workflow_run` after a fork's run: GitHub names no pull request there."""
    run = {
        "id": run_id,
        "name": "quant-gate fork",
        "event": "pull_request",
        "status": "completed",
        "conclusion": "success",
        "run_attempt": 1,
        "head_sha": change.head,
        "head_branch": "change",
        "head_repository": {
            "full_name": "stranger/models",
            "owner": {"login": "stranger"},
            "fork": True,
        },
        "repository": {"full_name": NAME},
        "pull_requests": [],
        "html_url": f"https://github.com/{NAME}/actions/runs/{run_id}",
    }
    return {"action": "completed", "workflow_run": run, **_common("stranger")}


def _common(sender: str) -> dict[str, Any]:
    owner, _, name = NAME.partition("/")
    repository = {
        "full_name": NAME,
        "name": name,
        "owner": {"login": owner},
        "default_branch": "main",
        "private": False,
        "fork": False,
    }
    return {"repository": repository, "sender": {"login": sender}}


def _measured(path: Path, scores: Sequence[float], **changes: object) -> EvalResult:
    """A stored result of the checkpoint at `path`."""
    checkpoint = open_checkpoint(path, CONTAINERS)
    text = "A complete answer that ends where it should."
    answers = [Answer(doc_id=i, text=text, tokens=9, finish="stop") for i in range(len(scores))]
    stated: dict[str, object] = {
        "setups": (results.setup(n_documents=len(scores)),),
        "weights_digest": baseline.weights_digest(checkpoint),
        "config_digest": baseline.config_digest(checkpoint),
        "tokenizer_digest": baseline.tokenizer_digest(checkpoint),
        "chat_template_sha": baseline.template_sha(checkpoint),
        "answers": {"ifeval": answers},
        "format": "modelopt",
        "weight_bits": 8,
    }
    return results.result(results.task(scores), **(stated | changes))


def _copy(model: Path, path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(model, path)
    return path


def _touch(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """Other weights, as sound as before."""
    dtype, shape, data = tensors["model.norm.weight"]
    tensors["model.norm.weight"] = dtype, shape, bytes([data[0] ^ 1]) + data[1:]
