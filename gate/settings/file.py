"""quant-gate.yaml from disk."""

import os
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path, PurePath
from typing import Any

import yaml
from pydantic import (
    ValidationError,
)

from gate.errors import SettingsError
from gate.settings import sets
from gate.settings.metrics import TaskMetric, WrittenFloat
from gate.settings.whole import (
    DEFAULT,
    DEFAULT_FILE,
    PULL_REQUEST_EVENTS,
    Settings,
)


def load(path: Path | None, threshold: Decimal | None = None) -> tuple[Settings, Path]:
    """The settings and the directory to which their paths are relative.

    Args:
        path: The file; None for quant-gate.yaml here, or the embedded default without one.
        threshold: Replaces `min_retention` of every gating metric, or `min_mean_retention`.

    Raises:
        SettingsError: The file is missing, no YAML, or says something wrong.
    """
    if path is None and Path(DEFAULT_FILE).is_file():
        path = Path(DEFAULT_FILE)
    settings = DEFAULT if path is None else read(path)
    if threshold is not None:
        settings = _with_threshold(settings, threshold)
    if settings.trust_remote_code and os.environ.get("GITHUB_EVENT_NAME") in PULL_REQUEST_EVENTS:
        raise SettingsError(
            "trust_remote_code is not taken from the settings of a pull request",
            "Pass --trust-remote-code in the workflow if the base branch wants it.",
        )
    return settings, path.absolute().parent if path else Path.cwd()


def require_trusted_server(settings: Settings) -> None:
    """Refuse a server that a pull request names: it would be sent the prompts and the key.

    Args:
        settings: Of the working tree.

    Raises:
        SettingsError: They ask for one, in a pull request's run.
    """
    if settings.backend == "server" and os.environ.get("GITHUB_EVENT_NAME") in PULL_REQUEST_EVENTS:
        raise SettingsError(
            "server is not taken from the settings of a pull request",
            "Take the settings from its base: gate check CHECKPOINT --policy-commit COMMIT",
        )


class _Loader(yaml.SafeLoader):
    """Plain YAML whose numbers remember their text: a limit is a decimal as written.

    Only `true` and `false` are truth values, as in YAML 1.2: `early_stop: off` is a word.
    """


def _written_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    number = loader.construct_yaml_float(node)
    try:
        Decimal(node.value)
    except InvalidOperation:  # YAML's own spellings, such as .inf
        return number
    written = WrittenFloat(number)
    written.text = node.value
    return written


_Loader.yaml_implicit_resolvers = {
    first: [found for found in resolvers if first in "tTfF" or not found[0].endswith(":bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:float", _written_float)


def read(path: Path) -> Settings:
    """A settings file as it is written.

    Raises:
        SettingsError: It is missing, no YAML, or says something wrong.
    """
    try:
        return parse(path.read_bytes(), path)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error}", "Name a readable file with --settings."
        ) from error


def parse(content: bytes, path: PurePath) -> Settings:
    """The settings in a file's content.

    Args:
        content: UTF-8.
        path: What messages call it.

    Raises:
        SettingsError: It is no YAML, or says something wrong.
    """
    try:
        value = yaml.load(content.decode("utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path} cannot be read: {error}", "Write the file in UTF-8."
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise SettingsError(f"{path} is not YAML: {error}", "Mend the file.") from error
    if not isinstance(value, Mapping):
        raise SettingsError(f"{path} holds no mapping", "Begin it with `version: 1`.")
    try:
        return Settings.model_validate(sets.expanded(value))
    except ValidationError as error:
        raise SettingsError(
            f"{path} {_first(error, value)}",
            "Mend the file; schemas/settings.schema.json describes it.",
        ) from error


def _first(error: ValidationError, value: Mapping[str, Any]) -> str:
    """The most telling violation, with its JSON pointer into `value`."""
    # A list whose entries are wrong counts as too short, which says nothing.
    vague = {"missing", "too_short"}
    worst = max(error.errors(), key=lambda item: (item["type"] not in vague, len(item["loc"])))
    where: list[str] = []
    node: Any = value
    for part in sets.as_written(value, worst["loc"]):
        inside = isinstance(node, list) or (isinstance(node, Mapping) and part in node)
        # What is neither a key nor absent is pydantic's name for a member of a union.
        if inside or (worst["type"] == "missing" and part == worst["loc"][-1]):
            where.append(str(part))
            node = node[part] if inside else None
    return f"at /{'/'.join(where)}: {worst['msg']}"


def _with_threshold(settings: Settings, threshold: Decimal) -> Settings:
    if not (threshold.is_finite() and 0 < threshold <= 10):
        raise SettingsError(
            f"--threshold {threshold} is not a share", "Give a number such as 0.95."
        )
    if settings.combine == "mean":
        return settings.model_copy(update={"min_mean_retention": threshold})
    if not any(metric.min_retention is not None for metric in settings.task_metrics):
        raise SettingsError(
            "--threshold has no effect: no metric in the settings has min_retention",
            "Add min_retention to the metric that should gate.",
        )
    metrics = tuple(
        metric.model_copy(update={"min_retention": threshold})
        if isinstance(metric, TaskMetric) and metric.min_retention is not None
        else metric
        for metric in settings.metrics
    )
    return settings.model_copy(update={"metrics": metrics})
