"""From scored documents to the results of a task."""

from collections.abc import Callable, Iterable

from gate.records import Part, SampleScore, ScoredDocument, TaskResult


def by_metric(
    task: str, documents: Iterable[ScoredDocument], higher_is_better: Callable[[str], bool]
) -> list[TaskResult]:
    """One result for each metric and answer filter, in document order.

    Args:
        task: Its name.
        documents: In any order.
        higher_is_better: Whether more of a metric is better.
    """
    samples: dict[tuple[str, str], list[SampleScore]] = {}
    parts: dict[tuple[str, str], list[tuple[Part, ...]]] = {}
    for document in sorted(documents, key=lambda document: document.doc_id):
        for points in document.points:
            parts.setdefault((points.metric, points.filter), []).append(points.parts)
            samples.setdefault((points.metric, points.filter), []).append(
                SampleScore(
                    doc_id=document.doc_id,
                    doc_hash=document.doc_hash,
                    prompt_hash=document.prompt_hash,
                    score=points.score,
                    weight=points.weight,
                )
            )
    return [
        TaskResult(
            task=task,
            metric=metric,
            filter=answer_filter,
            higher_is_better=higher_is_better(metric),
            samples=tuple(found),
            parts=tuple(parts[metric, answer_filter]) if any(parts[metric, answer_filter]) else (),
        )
        for (metric, answer_filter), found in samples.items()
    ]
