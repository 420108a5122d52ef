"""Where a perplexity's text comes from: a file, or a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gate.errors import BackendUnavailableError, SettingsError
from gate.offline import cached_files, cached_only_if_unreachable
from gate.settings import PerplexityMetric, PerplexityText


def read_text(text: PerplexityText, root: Path) -> str:
    """A perplexity's text: a file, or the rows of a data set's column with blank lines between.

    Args:
        text: Where it lies.
        root: Directory to which a file's path is relative.

    Raises:
        SettingsError: The file cannot be read, or the data set has no such column.
        BackendUnavailableError: The data set is neither here nor to be had.
    """
    if text.file is None:
        return _read_dataset(text)
    path = root / text.file
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the text {path} cannot be read: {error}", "Name a UTF-8 file in the settings."
        ) from error


def data_files(text: PerplexityText) -> tuple[Path, ...]:
    """A data set's files in the cache; it is fetched where it is not there.

    Raises:
        BackendUnavailableError: It is neither here nor to be had.
    """
    return cached_files(_dataset(text), f"text {text.label}")


def _read_dataset(text: PerplexityText) -> str:
    rows = _dataset(text)
    if text.column not in rows.column_names:
        raise SettingsError(
            f"data set {text.dataset} has no column {text.column}",
            f"Name one of: {', '.join(rows.column_names)}",
        )
    return "\n\n".join(str(row) for row in rows[text.column])


def _dataset(text: PerplexityText) -> Any:
    import datasets

    unavailable = BackendUnavailableError(
        f"data set {text.dataset} ({text.name or 'default'}, {text.split}) is not on this machine "
        "and the hub does not answer",
        "Name a local text instead: perplexity: {file: text.txt}",
    )
    try:
        with cached_only_if_unreachable():
            return datasets.load_dataset(str(text.dataset), text.name, split=text.split)
    except (OSError, ValueError) as error:
        raise unavailable from error


def fitting(
    metrics: Sequence[PerplexityMetric], context: int | None
) -> tuple[tuple[PerplexityMetric, ...], tuple[str, ...]]:
    """The perplexities that a model can be asked for, gating ones first; why others are left out.

    Args:
        context: Tokens that the model was made for; None where it does not say.
    """
    long = [
        metric
        for metric in metrics
        if metric.advisory and context is not None and metric.perplexity.window > context
    ]
    kept = sorted((m for m in metrics if m not in long), key=lambda metric: metric.advisory)
    return tuple(kept), tuple(
        f"perplexity on {metric.perplexity.label}: its windows of {metric.perplexity.window:,} "
        f"tokens are longer than the model's context of {context:,}"
        for metric in long
    )


def read_texts(metrics: Sequence[PerplexityMetric], root: Path) -> dict[str, str]:
    """Label to content of every text; see `read_text`.

    Raises:
        SettingsError: Two have the same label.
    """
    contents: dict[str, str] = {}
    for metric in metrics:
        text = metric.perplexity
        if text.label in contents:
            raise SettingsError(
                f"two perplexities are called {text.label}",
                "Give each its own file name; a text is measured once.",
            )
        contents[text.label] = read_text(text, root)
    return contents
