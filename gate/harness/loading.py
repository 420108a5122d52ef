"""lm-eval's task objects: found, judged safe, loaded with their data set, kept quiet."""

import contextlib
import functools
import importlib.util
import io
import logging
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gate.errors import BackendUnavailableError, CheckpointError, GateError, SettingsError
from gate.harness import gguf_tokenizer, own, task_files
from gate.offline import cached_only_if_unreachable
from gate.settings import TaskRun

SCORER_PACKAGES = re.compile(r"^(?:import|from) (langdetect|immutabledict|nltk)\b", re.MULTILINE)
"""What scorers import; some do so only when the first answer is scored."""

RANDOM_SEED = 0
OTHER_SEED = 1234
"""The seeds of the `lm_eval` command: Python's generator, and all others."""

MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError)
"""What lm-eval raises on a task file or document that it cannot use."""


def load_tokenizer(
    path: Path, trust_remote_code: bool = False, whole_file: str | None = None
) -> Any:
    """The tokenizer of a checkpoint's directory, loaded as lm-eval loads it.

    Args:
        path: The directory.
        trust_remote_code: Whether the checkpoint's own Python may run.
        whole_file: The file that describes it, where there is one; see `Checkpoint`.

    Raises:
        CheckpointError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        if whole_file is not None:
            return gguf_tokenizer.load(path, whole_file)
        return AutoTokenizer.from_pretrained(
            str(path), trust_remote_code=trust_remote_code, use_fast=True
        )
    except GateError:
        raise
    except Exception as error:  # the package tokenizers raises nothing narrower
        raise CheckpointError(
            f"the tokenizer of {path / (whole_file or '')} cannot be loaded: {first_line(error)}",
            "Copy the tokenizer files of the reference into the checkpoint.",
        ) from error


def task_file(run: TaskRun, root: Path, include_path: str | None) -> task_files.TaskFile:
    """The task's file, read without running anything of it.

    Raises:
        SettingsError: There is none, or it cannot be read.
    """
    if run.options.scorer is not None:
        return task_files.read(own.task_file(run.options.scorer), [])
    path = task_files.locate(run.task, root, include_path)
    if path is None:
        path = _indexed(run.task)
    return task_files.read(path, [root / include_path] if include_path else [])


def _indexed(name: str) -> Path:
    """Where lm-eval's own index, slow but complete, has a task.

    Raises:
        SettingsError: It has none, or several under this name.
    """
    from lm_eval.tasks import TaskManager

    entry = None
    if task_files.mentioned(name):
        with silence():
            manager = TaskManager()
        entry = manager.task_index.get(name)
    if entry is None:
        raise SettingsError(
            f"lm-eval has no task {name}",
            f"Choose one that it has, such as {', '.join(task_files.nearest(name)) or 'ifeval'}.",
        )
    if name not in manager.all_subtasks or entry.yaml_path is None:
        members = sorted(entry.tags) or sorted(_members(entry.cfg or {}))
        raise SettingsError(
            f"{name} is a group of tasks: {', '.join(members)}",
            "Name the tasks of it that you want, one entry each.",
        )
    return Path(entry.yaml_path)


def _members(config: dict[str, Any]) -> Iterator[str]:
    for member in config.get("task") or []:
        yield str(member.get("task", member.get("group"))) if isinstance(member, dict) else member


def refuse_unsafe(name: str, file: task_files.TaskFile) -> None:
    """Refuse a task that would run code of its own, before any of it is imported.

    Raises:
        SettingsError: Naming the task and the setting that allows it.
    """
    from lm_eval.api.registry import metric_registry

    if dangers := task_files.dangers(file, set(metric_registry)):
        raise SettingsError(
            f"task {name} ({file.path}) {' and '.join(dict.fromkeys(dangers))}",
            f"If you trust it, add {name} to allow_unsafe_tasks.",
        )


def require_scorer(task: task_files.TaskFile) -> None:
    """Make sure, before anything is generated, that the task's scorer can run.

    lm-eval's scorers import these packages late or, for sentence data, go to the network when
    they are imported; so their source is searched instead.

    Raises:
        BackendUnavailableError: A package or NLTK's sentence data is missing.
    """
    source = _scorer_source(task)
    needed = sorted(set(SCORER_PACKAGES.findall(source)))
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    name = task.config.get("task", task.path.name)
    if missing:
        raise BackendUnavailableError(
            f"task {name} is scored with {', '.join(missing)}, which is not installed",
            f"Run: pip install {' '.join(missing)}",
        )
    if "punkt_tab" in source and sentence_data() is None:
        raise BackendUnavailableError(
            f"task {name} is scored with NLTK's punkt_tab, which is not here",
            "Run: python -m nltk.downloader punkt_tab (or point NLTK_DATA at a copy)",
        )


def needs_sentence_data(task: task_files.TaskFile) -> bool:
    """Whether the task is scored with NLTK's sentence data."""
    return "punkt_tab" in _scorer_source(task)


def sentence_data() -> Path | None:
    """Where NLTK's sentence data lies: a directory, or the archive that NLTK downloads."""
    import nltk

    try:
        found = nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        return None
    archive = getattr(found, "zipfile", None)
    return Path(archive.filename if archive is not None else found.path)


def draws_lots(task: task_files.TaskFile) -> bool:
    """Whether the task's scorer uses Python's random numbers."""
    return bool(re.search(r"^import random\b", _scorer_source(task), re.MULTILINE))


def _scorer_source(task: task_files.TaskFile) -> str:
    """The code of lm-eval beside the functions that the task names."""
    directories = {f.file.parent for f in task.functions if f.is_lm_evals and f.file.exists()}
    return "\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for directory in sorted(directories)
        for path in sorted(directory.glob("*.py"))
    )


@functools.cache
def prepare() -> None:
    """Silence lm-eval, keep its scorers deterministic and its templates in a sandbox."""
    import jinja2
    import jinja2.sandbox
    import lm_eval.api.metrics
    import lm_eval.api.model
    import lm_eval.api.task
    import lm_eval.models.huggingface
    import lm_eval.utils

    # Its scorers log as errors what is none, such as an answer in no language; errors raise.
    logging.getLogger("lm_eval").setLevel(logging.CRITICAL)
    # Its bars have no switch of their own; progress is shown by the caller.
    for module in (lm_eval.api.model, lm_eval.api.task, lm_eval.models.huggingface):
        module.tqdm = functools.partial(_silent, module.tqdm)
    # A template of a task file could otherwise reach any Python object.
    sandbox = jinja2.sandbox.SandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    sandbox.filters.update(lm_eval.utils.env.filters)
    lm_eval.utils.env = sandbox
    with contextlib.suppress(ImportError):
        import langdetect

        langdetect.DetectorFactory.seed = 0


def _silent(bar: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return bar(*args, **{**options, "disable": True})


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the bars and prints of a library off the terminal; exceptions pass."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield


def seed() -> None:
    """As the `lm_eval` command does, so that nothing depends on what was run before."""
    import numpy as np
    import torch

    random.seed(RANDOM_SEED)
    np.random.seed(OTHER_SEED)
    torch.manual_seed(OTHER_SEED)


@contextlib.contextmanager
def malformed_is_settings_error(name: str) -> Iterator[None]:
    """What lm-eval raises on a task file that it cannot use is the settings' fault."""
    import jinja2

    try:
        yield
    except (*MALFORMED, jinja2.TemplateError) as error:
        raise SettingsError(
            f"task {name} cannot be used: {type(error).__name__}: {first_line(error)}",
            "Mend the task file or its documents.",
        ) from error


def load_task(name: str, path: Path, dataset: str | None, model_path: str) -> Any:
    """lm-eval's task object, its data set loaded."""
    from datasets.exceptions import DatasetGenerationError
    from lm_eval.tasks import TaskManager

    # Tasks that measure in tokens look for the tokenizer here, as the command line puts it.
    manager = TaskManager(include_defaults=False, metadata={"pretrained": model_path})
    try:
        with malformed_is_settings_error(name), cached_only_if_unreachable(), silence():
            # Only now: importing some of the packages draws, and so does lm-eval in loading.
            seed()
            (task,) = manager.load([str(path)])["tasks"].values()
    except ImportError as error:
        raise BackendUnavailableError(
            f"task {name} needs a package: {first_line(error)}",
            "Install it; lm-eval's extras name what its tasks need.",
        ) from error
    except (OSError, DatasetGenerationError) as error:
        raise BackendUnavailableError(
            f"task {name}: its data set {dataset or ''} cannot be loaded: {first_line(error)}",
            "Name a local copy with `documents: FILE.jsonl`, or run where the hub can be reached.",
        ) from error
    if getattr(task, "MULTIMODAL", False):
        raise SettingsError(f"task {name} asks about images or audio", "Choose a text task.")
    return task


def first_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
