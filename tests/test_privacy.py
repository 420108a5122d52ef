"""Prompts and answers of the user's own tasks stay out of reports unless they may be shown."""

from pathlib import Path

import pytest
import results

from gate import privacy
from gate.records import (
    Answer,
    CanaryAnswer,
    EvalResult,
    Flip,
    LintResult,
    Report,
    TaskSetup,
    Verdict,
)
from gate.settings import Settings, TaskMetric

SECRET = "the secret text"
TEXTS = {"prompt": SECRET, "baseline": SECRET, "candidate": SECRET}


def settings(task: str = "ifeval", publish: bool = False, **options: object) -> Settings:
    include = options.pop("include_path", None)
    metric = TaskMetric.model_validate({"task": task, "metric": "acc", **options})
    return Settings(metrics=(metric,), include_path=include, publish_text=publish)


def report(*setups: TaskSetup) -> Report:
    """A report that holds a text wherever one can be."""
    tasks = [setup.task for setup in setups]
    answer = Answer(doc_id=0, text=SECRET, tokens=1, finish="stop")
    evaluation: EvalResult = results.result(
        *(results.task([1.0], name=task) for task in tasks),
        setups=setups,
        answers=dict.fromkeys(tasks, (answer,)),
    )
    flips = [
        Flip(task=task, metric="acc", doc_id=0, gained=False, parts=("a:b",), **TEXTS)
        for task in tasks
    ]
    canary = [CanaryAnswer(task=task, doc_id=0, defect="empty", **TEXTS) for task in tasks]
    return Report(
        gate_version="0.1.0", checkpoint="m", revision=None, command="gate check m", settings={},
        lint=LintResult(format=None), size=None, evaluation=evaluation, baseline=None,
        verdict=Verdict(
            outcome="fail", reasons=("r",), fix=None, stage="canary", canary=tuple(canary)
        ),
        flips=tuple(flips), date="2026-11-21T11:00:00Z", duration_s=1.0,
    )  # fmt: skip


def setup(task: str = "ifeval", **changes: object) -> TaskSetup:
    return results.setup(task=task, **changes)


def test_a_published_task_keeps_its_texts(tmp_path: Path):
    kept = report(setup())
    assert privacy.without_texts(kept, settings(), tmp_path) == kept


@pytest.mark.parametrize("how", ["documents", "stored documents", "file", "include_path"])
def test_texts_of_an_own_task_are_left_out(how: str, tmp_path: Path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text("task: own\n")
    name = {"file": "tasks/own.yaml", "include_path": "own"}.get(how, "ifeval")
    options = {"documents": {"documents": "a.jsonl"}, "include_path": {"include_path": "tasks"}}
    asked = settings(name, **options.get(how, {}))
    digest = {"documents": "f" * 64} if how == "stored documents" else {}
    left = privacy.without_texts(report(setup(name, **digest)), asked, tmp_path)
    assert SECRET not in left.model_dump_json()
    assert left.private_tasks == (name,)
    assert [(flip.doc_id, flip.parts) for flip in left.flips] == [(0, ("a:b",))]
    assert [answer.defect for answer in left.verdict.canary] == ["empty"]
    shown = asked.model_copy(update={"publish_text": True})
    assert SECRET in privacy.without_texts(report(setup(name)), shown, tmp_path).model_dump_json()


def test_only_the_own_task_of_several_is_left_out(tmp_path: Path):
    (tmp_path / "own.yaml").write_text("task: own\n")
    both = Settings(
        metrics=(TaskMetric(task="ifeval"), TaskMetric(task="own.yaml")), include_path="."
    )
    left = privacy.without_texts(report(setup(), setup("own.yaml")), both, tmp_path)
    assert left.private_tasks == ("own.yaml",)
    assert left.evaluation is not None and set(left.evaluation.answers) == {"ifeval"}
    assert [flip.prompt for flip in left.flips] == [SECRET, None]
