"""Begin with the gate: settings for the checkpoints of this repository, and a workflow."""

import glob
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gate import baseline, git, settings
from gate.checkpoint import Checkpoint, Directory, find_checkpoints, find_models, open_checkpoint
from gate.containers import CONTAINERS
from gate.errors import CheckpointError, SettingsError
from gate.formats import FORMATS
from gate.quantization import identify
from gate.records import write_text

TEMPLATE = "pull-request.yml"
WORKFLOW = Path(".github", "workflows", "quant-gate.yml")
MODEL_CARD = "README.md"
CARD_BYTES = 2**20
FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*$", re.DOTALL | re.MULTILINE)
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)
MOST_ENTRIES = 50
"""Checkpoints that get an entry of their own; more share one."""

HEAD = """\
# What quant-gate measures, on which checkpoints, and what they may lose.
# `gate check CHECKPOINT` judges by this file; `gate lint` takes only `ignore` from it.
version: 1

# Where a checkpoint's baseline comes from: the first entry whose path covers it counts.
# Paths are relative to this file; ** stands for any directories. A baseline is the stored result
# of the reference, the unquantized model, and is found in baselines/ by it.
checkpoints:
"""

METRICS = """\

# A metric with a limit decides; one without is shown.
metrics:
  # Instruction following, of which 95 % of what the reference reaches must be kept. Documents of
  # your own say more about your use: add `documents: FILE.jsonl`, one JSON object a line.
  - task: ifeval
    metric: inst_level_strict_acc
    min_retention: 0.95
  - task: ifeval
    metric: prompt_level_strict_acc
  # Perplexity, measured in minutes, ends a run early that has failed already. A text of your own:
  # `perplexity: {{file: FILE.txt}}`.
  - perplexity: {{dataset: Salesforce/wikitext, name: wikitext-2-raw-v1}}
    max_ratio: {ratio}
  # Long windows see what short ones cannot, such as a damaged KV cache.
  - perplexity: {{dataset: Salesforce/wikitext, name: wikitext-2-raw-v1, window: 8192, windows: 2}}

# A finding of `gate lint` that is meant to be, with its reason:
# ignore:
#   tokenizer-missing: "the server has its own tokenizer"
"""

BY_BITS = "by-weight-bits # at most 1.02 times the reference's at 8 bits, 1.15 at 4 to 7"
FEW_BITS = "1.5 # below 4 bits there is no usual limit: lower it to what your use allows"


class Written(NamedTuple):
    """What was written.

    Attributes:
        files: Relative to the directory.
        kept: Those that existed, and stay as they are.
        checkpoint: One that can be judged; None where none was found.
        reference: That of this checkpoint, where it is known.
    """

    directory: Path
    files: tuple[Path, ...]
    kept: tuple[Path, ...]
    checkpoint: str | None
    reference: str | None


class Reference(NamedTuple):
    """The unquantized model.

    Attributes:
        name: A directory of the repository; or org/name on the hub, without its commit.
    """

    name: str
    is_local: bool

    def __str__(self) -> str:
        """As the settings name it; on the hub only a commit says which."""
        return self.name if self.is_local else f"{self.name}@COMMIT"


class Model(NamedTuple):
    """A checkpoint of the repository.

    Attributes:
        path: Relative to the repository; `.` for itself.
        format: As in reports; None for an unquantized one.
        bits: Of a weight, where they are known.
        origin: The model from which it was made, as it says itself: a directory or org/name.
        config: What the same model has in every format; None where it cannot be told.
    """

    path: str
    format: str | None
    bits: int | None
    origin: str | None
    config: str | None


def init(place: Path, *, force: bool = False, github: bool | None = None) -> Written:
    """Write quant-gate.yaml and the workflow; what exists is kept.

    Args:
        place: A directory of the repository; both are written to its root.
        force: Write over what exists.
        github: Whether to write the workflow; None: where this is a git repository.

    Raises:
        SettingsError: Everything exists already, or the workflow has no repository.
    """
    directory, in_git = _root(place)
    if github and not in_git:
        raise SettingsError(
            f"{place} is not in a git repository, where a workflow would run",
            "Run git init first, or leave out --github.",
        )
    models = _models(directory)
    quantized = [model for model in models if model.format is not None]
    entries = [(model, _reference(model, models)) for model in quantized]
    text = _settings(entries)
    settings.parse(text.encode(), Path(settings.DEFAULT_FILE))
    texts = {Path(settings.DEFAULT_FILE): text}
    if in_git if github is None else github:
        texts[WORKFLOW] = workflow()
    kept = [path for path in texts if not force and os.path.lexists(directory / path)]
    if len(kept) == len(texts):
        raise SettingsError(
            f"{' and '.join(map(str, kept))} {'exists' if len(kept) == 1 else 'exist'} already",
            "Write anew with gate init --force; what is there is lost then.",
        )
    files = [path for path in texts if path not in kept]
    for path in files:
        write_text(directory / path, texts[path])
    first, reference = entries[0] if entries else (None, None)
    named = str(reference) if reference else None
    return Written(directory, tuple(files), tuple(kept), first and first.path, named)


def workflow() -> str:
    """The template for pull requests: an installed wheel holds it inside, a checkout beside it."""
    packaged = resources.files("gate") / "workflows" / TEMPLATE
    beside = Path(__file__).parent.parent / "workflows" / TEMPLATE
    return (packaged if packaged.is_file() else beside).read_text(encoding="utf-8")


def _root(place: Path) -> tuple[Path, bool]:
    """The repository's directory; the place itself where there is no repository."""
    try:
        return git.find(place).root, True
    except SettingsError:
        return place.absolute(), False


def _models(directory: Path) -> list[Model]:
    """The checkpoints below a directory, those that cannot be opened left out."""
    found = []
    for path in find_checkpoints(directory, CONTAINERS):
        files = find_models(Directory(path).names, CONTAINERS)[0]
        try:
            opened = open_checkpoint(path, CONTAINERS, only=files)
        except (CheckpointError, OSError):
            continue
        form = identify(opened, FORMATS)
        found.append(
            Model(
                path=path.relative_to(directory).as_posix(),
                format=form.name if form else None,
                bits=form.weight_bits(opened) if form else None,
                origin=_origin(opened),
                config=baseline.config_digest(opened) if opened.config else None,
            )
        )
    return found


def _origin(checkpoint: Checkpoint) -> str | None:
    """The model that config.json or the model card names as the one it was made from."""
    card = model_card(checkpoint.path / MODEL_CARD).get("base_model")
    for name in (
        checkpoint.config.get("_name_or_path"),
        *(card if isinstance(card, list) else [card]),
    ):
        if isinstance(name, str) and name.strip(". /") and len(name) <= 4096:
            return name
    return None


def model_card(path: Path) -> dict[str, Any]:
    """What stands between the two lines of dashes at the beginning of a model card.

    Source: https://huggingface.co/docs/hub/model-cards
    """
    try:
        with path.open("rb") as file:
            match = FRONT_MATTER.match(file.read(CARD_BYTES).decode("utf-8", "replace"))
        value = yaml.safe_load(match[1]) if match else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _reference(model: Model, models: Sequence[Model]) -> Reference | None:
    """The unquantized checkpoint beside it that it was made from, else the hub's name of it."""
    originals = {other.path: other for other in models if other.format is None}
    if model.origin is not None:
        for path in (model.origin, os.path.join(model.path, model.origin)):  # noqa: PTH118
            if os.path.normpath(path) in originals:
                return Reference(os.path.normpath(path), is_local=True)
    alike = [path for path, other in originals.items() if other.config == model.config]
    if len(alike) == 1 and model.config is not None:
        return Reference(alike[0], is_local=True)
    if model.origin is not None and HUB_NAME.fullmatch(model.origin):
        return Reference(model.origin, is_local=False)
    return None


def _settings(entries: Sequence[tuple[Model, Reference | None]]) -> str:
    """The settings file."""
    references = {reference for _, reference in entries}
    if len(entries) > MOST_ENTRIES or len(references) <= 1:
        rows = entry("**", next(iter(references)) if len(references) == 1 else None)
    else:
        rows = "".join(
            entry(glob.escape(model.path), reference, f" # {_described(model)}")
            for model, reference in entries
        )
    few = any(model.bits is None or model.bits < 4 for model, _ in entries)
    return f"{HEAD}{rows}{METRICS.format(ratio=FEW_BITS if few else BY_BITS)}"


def _described(model: Model) -> str:
    bits = f", {model.bits} bits" if model.bits else ""
    return f"{model.format}{bits}"


def entry(path: str, reference: Reference | None, comment: str = "") -> str:
    """One entry; a reference on the hub is left to be pinned."""
    lines = [f"  - path: {_scalar(path)}{comment}"]
    if reference is None:
        lines.append("    # reference: org/name@COMMIT, or a directory of this repository")
    elif reference.is_local:
        lines.append(f"    reference: {_scalar(reference.name)}")
    else:
        lines.append(f"    # reference: {reference} # as the checkpoint says; write a commit")
    return "\n".join(lines) + "\n"


def _scalar(text: str) -> str:
    """A string as YAML on one line."""
    return str(yaml.safe_dump(text, default_style='"', width=float("inf"))).rstrip("\n")
