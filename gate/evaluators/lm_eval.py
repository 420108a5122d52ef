"""What the `lm_eval` command logs with --log_samples: one JSON of results, one log a task.

Source: https://github.com/EleutherAI/lm-evaluation-harness (lm_eval/result_schema.py,
lm_eval/loggers/evaluation_tracker.py), version 0.4.13.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gate.errors import ImportedError
from gate.evaluators.logged import Logged, newest_results, parsed, points, unlike
from gate.records import SampleScore, TaskResult, TaskSetup

MAX_LINE_BYTES = 64 * 2**20

AGAIN = "Name the directory of --output_path, written with --log_samples."

PACKAGES = ("lm_eval", "transformers")
"""Whose versions a results file states."""

Found = dict[tuple[str, str], list[SampleScore]]
"""By metric and answer filter."""


def read(path: Path) -> Logged:
    """The newest results in a directory, or those of one file, with every sample.

    Raises:
        ImportedError: Files are missing or are no such log, or no metric can be reproduced.
    """
    file = newest_results(path, AGAIN)
    results = parsed(file, AGAIN)
    setups, tasks, left_out = [], [], []
    try:
        named = [name for name in results["configs"] if name in results["task_hashes"]]
        for name in named:
            setup = _setup(results, name)
            found = _samples(_log_of(file, name), setup)
            kept, others = _results(results, name, found)
            setups += [setup] if kept else []
            tasks += kept
            left_out += others
        logged = _logged(results, tuple(setups), tuple(tasks), tuple(left_out))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ImportedError(f"{file} is no results file of lm-eval: {error!r}", AGAIN) from error
    if not tasks:
        why = f": {left_out[0]}" if left_out else ""
        raise ImportedError(f"{file} holds no metric that is a mean over documents{why}", AGAIN)
    return logged


def _log_of(results: Path, task: str) -> Path:
    """The log that was written with these results: both carry the same date."""
    stamp = results.stem.removeprefix("results_")
    path = results.parent / f"samples_{task}_{stamp}.jsonl"
    if not path.is_file():
        raise ImportedError(f"{path} is missing: task {task} has no samples", AGAIN)
    return path


def _setup(results: Mapping[str, Any], task: str) -> TaskSetup:
    config = results["configs"][task]
    generates = config["output_type"] == "generate_until"
    return TaskSetup(
        task=task,
        version=str(results["versions"][task]),
        task_hash=results["task_hashes"][task],
        n_documents=results["n-samples"][task]["effective"],
        output_type=config["output_type"],
        num_fewshot=results["n-shot"][task],
        apply_chat_template=bool(results.get("chat_template")),
        fewshot_as_multiturn=bool(results.get("fewshot_as_multiturn")),
        system_instruction=results.get("system_instruction") or None,
        generation_kwargs=(config.get("generation_kwargs") or {}) if generates else {},
    )


def _samples(path: Path, setup: TaskSetup) -> Found:
    """Every document's score in every metric; a score is a number, or one for each part."""
    found: Found = {}
    seen: set[tuple[str, int]] = set()
    for number, sample in enumerate(_lines(path), 1):
        filter_name, doc_id = str(sample["filter"]), int(sample["doc_id"])
        if (filter_name, doc_id) in seen:
            raise ImportedError(f"{path} line {number}: document {doc_id} comes twice", AGAIN)
        seen.add((filter_name, doc_id))
        for metric in sample["metrics"]:
            earned = points(sample.get(metric))
            if earned is not None:
                score = SampleScore(
                    doc_id=doc_id,
                    doc_hash=sample["doc_hash"],
                    prompt_hash=sample["prompt_hash"],
                    score=earned[0],
                    weight=earned[1],
                )
                found.setdefault((metric, filter_name), []).append(score)
    whole = {key: scores for key, scores in found.items() if len(scores) == setup.n_documents}
    if found and not whole:
        raise ImportedError(f"{path} does not hold all {setup.n_documents} documents", AGAIN)
    return whole


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ImportedError(f"{path} is cut off or damaged: {error}", AGAIN) from error


def _results(
    results: Mapping[str, Any], task: str, found: Found
) -> tuple[list[TaskResult], list[str]]:
    """The metrics whose samples give the logged value; of the others, why not."""
    kept, left_out = [], []
    logged = results["results"][task]
    for (metric, filter_name), samples in found.items():
        value = logged.get(f"{metric},{filter_name}")
        result = TaskResult(
            task=task,
            metric=metric,
            filter=filter_name,
            higher_is_better=bool(results["higher_is_better"][task].get(metric, True)),
            samples=tuple(sorted(samples, key=lambda sample: sample.doc_id)),
        )
        if why := unlike(result, value, "lm-eval"):
            left_out.append(why)
        else:
            kept.append(result)
    return kept, left_out


def _logged(
    results: Mapping[str, Any],
    setups: tuple[TaskSetup, ...],
    tasks: tuple[TaskResult, ...],
    left_out: tuple[str, ...],
) -> Logged:
    config = results["config"]
    batch = str(config.get("batch_size") or "1")
    return Logged(
        model=str(results.get("model_name") or config.get("model_args") or config["model"]),
        setups=setups,
        tasks=tasks,
        kernel=f"as {config['model']} of lm-eval ran it",
        device=str(config.get("device") or "not known"),
        dtype=str(config.get("model_dtype") or "not known").removeprefix("torch."),
        template_sha=results.get("chat_template_sha") if results.get("chat_template") else None,
        batch_size=int(batch) if batch.isdigit() else 1,
        versions={name: str(results[f"{name}_version"]) for name in PACKAGES},
        date=datetime.fromtimestamp(float(results["date"]), UTC).isoformat(timespec="seconds"),
        duration_s=round(float(results.get("total_evaluation_time_seconds") or 0), 1),
        left_out=left_out,
    )
