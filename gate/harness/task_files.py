"""lm-eval's task files: found, read without running them, pointed at local documents."""

import difflib
import functools
import importlib.util
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gate.errors import BackendUnavailableError, SettingsError

TASK_LINE = re.compile(rb"""^["']?task["']?:[ \t]*["']?([^\s"'#\[{]+)""", re.MULTILINE)


@dataclass(frozen=True)
class Function:
    """A `!function` of a task file, not imported.

    Attributes:
        reference: `module.name`; a module beside the file comes before an installed one.
        directory: Of the file that names it.
    """

    reference: str
    directory: Path

    @property
    def file(self) -> Path:
        """Where lm-eval looks first."""
        module = self.reference.rpartition(".")[0]
        return (self.directory / f"{module.replace('.', '/')}.py").resolve()

    @property
    def is_lm_evals(self) -> bool:
        """Whether lm-eval's own file names lm-eval's own code.

        In another file even a function of lm-eval is not: some run what they are given.
        """
        if not self.directory.is_relative_to(package()):
            return False
        if self.file.exists():
            return self.file.is_relative_to(package())
        return self.reference.startswith("lm_eval.")


@dataclass(frozen=True)
class TaskFile:
    """A task as its file and what that includes describe it; no code of it has run.

    Attributes:
        config: Merged, the including file's keys over the included ones'.
        functions: Of all files.
        declared_unsafe: Whether any of the files says `unsafe_code`.
        files: This one and all that it includes.
    """

    path: Path
    config: Mapping[str, Any]
    functions: tuple[Function, ...]
    declared_unsafe: bool
    files: tuple[Path, ...]

    @property
    def is_lm_evals(self) -> bool:
        """Whether the file lies in lm-eval's own package."""
        return self.path.is_relative_to(package())


class _Loader(yaml.SafeLoader):
    """Safe, and `!function` stays a reference."""

    directory: Path

    def function(self, node: yaml.Node) -> Function:
        return Function(str(self.construct_scalar(node)), self.directory)  # type: ignore[arg-type]


_Loader.add_constructor("!function", _Loader.function)


@functools.cache
def package() -> Path:
    """lm-eval's directory, found without importing it."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise BackendUnavailableError(
            "lm-eval is not installed", "Run: pip install 'quant-gate[eval]'"
        )
    return Path(spec.origin).resolve().parent


def locate(task: str, root: Path, include_path: str | None) -> Path | None:
    """The file of a task named by path or by name; None if no file has that name.

    A name is searched as text, in a fourth of the time that lm-eval's own index of its
    thousands of files takes. Files of `include_path` come before lm-eval's, as they do there.

    Raises:
        SettingsError: A path that is no file.
    """
    if task.endswith((".yaml", ".yml")):
        path = (root / task).resolve()
        if not path.is_file():
            raise SettingsError(f"task file {path} does not exist", "Mend the path in `task`.")
        return path
    for directory in [root / include_path] if include_path else []:
        if not directory.is_dir():
            raise SettingsError(f"include_path {directory} is no directory", "Mend include_path.")
        if found := names(directory.resolve()).get(task):
            return found
    return names(package() / "tasks").get(task)


def mentioned(name: str) -> bool:
    """Whether any of lm-eval's files holds a name at all, as that of a group or otherwise."""
    files = (package() / "tasks").glob("**/*.yaml")
    return any(name.encode() in path.read_bytes() for path in files)


def nearest(name: str) -> list[str]:
    """The three of lm-eval's task names that are most like one."""
    return difflib.get_close_matches(name, names(package() / "tasks"), n=3, cutoff=0.3)


@functools.cache
def names(directory: Path) -> dict[str, Path]:
    """Task name to file, of a directory: the first in path order, as lm-eval decides."""
    found: dict[str, Path] = {}
    for path in sorted(directory.glob("**/*.yaml"), key=Path.as_posix):
        if match := TASK_LINE.search(path.read_bytes()):
            found.setdefault(match[1].decode(errors="replace"), path)
    return found


def read(path: Path, within: Collection[Path]) -> TaskFile:
    """Read a task file and what it includes.

    Args:
        within: Directories, beside the file's own and lm-eval's, from which it may include.

    Raises:
        SettingsError: No YAML mapping, an include that cannot be read, escapes or goes round.
    """
    roots = [path.resolve().parent, package(), *(directory.resolve() for directory in within)]
    files: list[tuple[Path, dict[str, Any]]] = []
    config = _merge(path.resolve(), roots, files)
    functions = tuple(function for _, own in files for function in _functions(own))
    unsafe = any(own.get("unsafe_code") not in {None, False} for _, own in files)
    return TaskFile(path.resolve(), config, functions, unsafe, tuple(path for path, _ in files))


def _merge(
    path: Path, roots: list[Path], files: list[tuple[Path, dict[str, Any]]]
) -> dict[str, Any]:
    """Depth first; `files` collects every file with its own keys."""
    own = _load(path)
    if any(path == seen for seen, _ in files):
        raise SettingsError(f"task file {path} is included twice", "Mend its `include`.")
    files.append((path, own))
    includes = own.pop("include", [])
    merged: dict[str, Any] = {}
    for include in includes if isinstance(includes, list) else [includes]:
        target = (path.parent / str(include)).resolve()
        if not any(target.is_relative_to(root) for root in roots):
            raise SettingsError(
                f"task file {path} includes {include}, which lies outside its directory",
                "Keep the files of a task together.",
            )
        merged |= {k: v for k, v in _merge(target, roots, files).items() if k != "task_list"}
    return merged | own


def _load(path: Path) -> dict[str, Any]:
    try:
        loader = _Loader(path.read_bytes())
        loader.directory = path.parent
        value = loader.get_single_data()
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"task file {path} cannot be read: {reason}", "Mend the file."
        ) from error
    if not isinstance(value, dict):
        raise SettingsError(f"task file {path} holds no mapping", "Mend the file.")
    return value


def _functions(value: object) -> Iterator[Function]:
    """Every `!function` in a value; YAML aliases are walked once each."""
    pending, seen = [value], set()
    while pending:
        item = pending.pop()
        if isinstance(item, Function):
            yield item
        elif isinstance(item, dict | list) and id(item) not in seen:
            seen.add(id(item))
            pending += [*item.keys(), *item.values()] if isinstance(item, dict) else item


def dangers(task: TaskFile, metrics: Collection[str]) -> list[str]:
    """What in a task would run code other than lm-eval's own, or the model's answers.

    lm-eval's own files may name a metric of the `evaluate` package and old loading options;
    in other files these fetch code.

    Args:
        metrics: Names that lm-eval computes itself.
    """
    config = task.config
    found = [f"runs {f.reference}" for f in task.functions if not f.is_lm_evals]
    if task.declared_unsafe:
        found.append("declares unsafe_code")
    if task.is_lm_evals:
        return found
    options = config.get("dataset_kwargs")
    if isinstance(options, dict) and options.get("trust_remote_code"):
        found.append("asks for trust_remote_code")
    if config.get("dataset_path") == "pandas":
        found.append("unpickles its documents")
    if config.get("use_prompt") is not None:
        found.append("loads a prompt by use_prompt")
    for entry in config.get("metric_list") or []:
        metric = entry.get("metric") if isinstance(entry, dict) else None
        if isinstance(metric, str) and (entry.get("hf_evaluate") or metric not in metrics):
            found.append(f"fetches the metric {metric}")
    return found
