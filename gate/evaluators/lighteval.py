"""What LightEval saves with --save-details: one JSON of results, one Parquet of details a task.

Source: https://github.com/huggingface/lighteval (logging/evaluation_tracker.py,
logging/info_loggers.py), version 0.13.0.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from gate.errors import BackendUnavailableError, ImportedError
from gate.evaluators.logged import Logged, newest_results, parsed, points, unlike
from gate.records import SampleScore, TaskResult, TaskSetup

AGAIN = "Name the directory of --output-dir, written with --save-details."

STAMP = re.compile(r"results_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d{1,6})?)\.json")
MOST_PARENTS = 6
"""Directories above the results in which `details` is looked for: a model's name has slashes."""

MOST_DOCUMENTS = 1_000_000
MOST_BYTES = 8 * 2**30
"""Of one task's details, as they are in memory."""

ROWS = 256
"""That are held at a time: each has the tokens of a whole prompt."""

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError)
"""What reading something else raises; pyarrow's errors are among them."""


class Document(NamedTuple):
    """One row of the details.

    Attributes:
        hashes: Of the question, and of what the model was given.
        values: Metric to its value.
        asked: Token limit and stop strings, as lm-eval calls them.
    """

    id: str
    hashes: tuple[str, str]
    values: dict[str, Any]
    asked: dict[str, Any]


def read(path: Path) -> Logged:
    """The newest results in a directory, or those of one file, with every sample.

    Raises:
        ImportedError: Files are missing or are no such log, or no metric can be reproduced.
        BackendUnavailableError: pyarrow is not installed.
    """
    file = newest_results(path, AGAIN)
    results = parsed(file, AGAIN)
    setups, tasks, left_out = [], [], []
    try:
        details = _details_of(file)
        for name, config in results["config_tasks"].items():
            documents = _documents(details, name)
            kept, others = _results(results, name, documents)
            setups += [_setup(results, name, config, documents)] if kept else []
            tasks += kept
            left_out += others
        logged = _logged(results, file, tuple(setups), tuple(tasks), tuple(left_out))
    except MALFORMED as error:
        raise ImportedError(f"{file} is no results file of LightEval: {error!r}", AGAIN) from error
    if not tasks:
        why = f": {left_out[0]}" if left_out else ""
        raise ImportedError(f"{file} holds no metric that is a mean over documents{why}", AGAIN)
    return logged


def _details_of(results: Path) -> Path:
    """The directory that was written with these results: both carry the same date."""
    stamp = _stamp(results)
    for parent in list(results.absolute().parents)[:MOST_PARENTS]:
        if found := sorted((parent / "details").glob(f"**/{stamp}")):
            return found[0]
    raise ImportedError(f"{results} has no details beside it", AGAIN)


def _stamp(results: Path) -> str:
    named = STAMP.fullmatch(results.name)
    if named is None:
        raise ImportedError(f"{results} is not named results_DATE.json", AGAIN)
    return named[1]


def _documents(details: Path, task: str) -> list[Document]:
    """A task's documents in the order of their ids."""
    path = details / f"details_{task}_{details.name}.parquet"
    if path.parent != details or not path.is_file():
        raise ImportedError(f"{path} is missing: task {task} has no details", AGAIN)
    try:
        found = [_document(row) for row in _rows(path)]
    except MALFORMED as error:
        raise ImportedError(f"{path} is cut off or damaged: {error}", AGAIN) from error
    known = {document.id: document for document in found}
    if not found or len(known) < len(found):
        raise ImportedError(f"{path} holds a document twice, or none", AGAIN)
    return sorted(found, key=lambda document: (len(document.id), document.id))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Every row, without the answers and their log-probabilities."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise BackendUnavailableError(
            "LightEval's details are read with pyarrow, which is not installed",
            "Run: pip install 'quant-gate[eval]'",
        ) from error
    wanted = [f"doc.{field}" for field in ("id", "query", "choices", "gold_index", "specific")]
    wanted += [f"doc.{field}" for field in ("instruction", "generation_size", "stop_sequences")]
    wanted += ["metric", "model_response.input", "model_response.input_tokens"]
    try:
        with parquet.ParquetFile(path) as file:
            meta = file.metadata
            size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            if meta.num_rows > MOST_DOCUMENTS or size > MOST_BYTES:
                raise ValueError("it is larger than details are")
            for batch in file.iter_batches(batch_size=ROWS, columns=wanted):
                yield from batch.to_pylist()
    except ArrowException as error:
        raise ValueError(str(error)) from error


def _document(row: Mapping[str, Any]) -> Document:
    doc, response = row["doc"], row["model_response"]
    question = [doc[field] for field in ("query", "choices", "gold_index", "specific")]
    given = [doc["instruction"], response["input"], response["input_tokens"]]
    asked = {"max_gen_toks": doc["generation_size"], "until": doc["stop_sequences"] or []}
    return Document(
        str(doc["id"]), (_digest(question), _digest([question[0], given])), row["metric"], asked
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _results(
    results: Mapping[str, Any], task: str, documents: list[Document]
) -> tuple[list[TaskResult], list[str]]:
    """The metrics whose samples give the logged value; of the others, why not."""
    kept, left_out = [], []
    higher = dict(_directions(results["config_tasks"][task]["metrics"]))
    for metric in documents[0].values:
        earned = [points(document.values.get(metric)) for document in documents]
        scored = [
            SampleScore(
                doc_id=doc_id,
                doc_hash=document.hashes[0],
                prompt_hash=document.hashes[1],
                score=found[0],
                weight=found[1],
            )
            for doc_id, (document, found) in enumerate(zip(documents, earned, strict=True))
            if found is not None
        ]
        if len(scored) < len(documents):
            left_out.append(f"{task} {metric}: not every document has a score of its own")
            continue
        result = TaskResult(
            task=task,
            metric=metric,
            filter="none",
            higher_is_better=higher.get(metric, True),
            samples=tuple(scored),
        )
        if why := unlike(result, results["results"][task].get(metric), "LightEval"):
            left_out.append(why)
        else:
            kept.append(result)
    return kept, left_out


def _directions(metrics: Any) -> Iterator[tuple[str, bool]]:
    """Whether more of each metric is better; several that are computed together share an entry."""
    for metric in metrics:
        higher = metric["higher_is_better"]
        if isinstance(higher, dict):
            yield from ((name, bool(value)) for name, value in higher.items())
        else:
            yield str(metric["metric_name"]), bool(higher)


def _setup(
    results: Mapping[str, Any], task: str, config: Mapping[str, Any], documents: list[Document]
) -> TaskSetup:
    model = results["config_general"]["model_config"]
    generates = any(metric["category"] == "GENERATIVE" for metric in config["metrics"])
    chosen = {k: v for k, v in model["generation_parameters"].items() if v is not None}
    return TaskSetup(
        task=task,
        version=str(config["version"]),
        task_hash=_digest([document.hashes for document in documents]),
        n_documents=len(documents),
        output_type="generate_until" if generates else "multiple_choice",
        num_fewshot=config["num_fewshots"],
        # It does wherever the tokenizer has one; the prompts' hashes tell whether it did.
        apply_chat_template=model.get("override_chat_template") is not False,
        system_instruction=model.get("system_prompt") or None,
        generation_kwargs=chosen | documents[0].asked if generates else {},
    )


def _logged(
    results: Mapping[str, Any],
    file: Path,
    setups: tuple[TaskSetup, ...],
    tasks: tuple[TaskResult, ...],
    left_out: tuple[str, ...],
) -> Logged:
    general = results["config_general"]
    model = general["model_config"]
    day, _, time = _stamp(file).partition("T")
    batch = model.get("batch_size")
    return Logged(
        model=str(general["model_name"]),
        setups=setups,
        tasks=tasks,
        kernel="as LightEval ran it",
        device=str(model.get("device") or "not known"),
        dtype=str(model.get("dtype") or "not known").removeprefix("torch."),
        template_sha=None,
        batch_size=batch if isinstance(batch, int) and batch > 0 else 1,
        # Of an installed package it logs "?": only a checkout has a commit.
        versions={"lighteval": str(general.get("lighteval_sha") or "?")},
        # By that machine's clock; the zone is not logged.
        date=datetime.fromisoformat(f"{day}T{time.replace('-', ':')}")
        .replace(tzinfo=UTC)
        .isoformat(timespec="seconds"),
        duration_s=round(float(general.get("total_evaluation_time_secondes") or 0), 1),
        left_out=left_out,
    )
