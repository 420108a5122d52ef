"""Whose texts a report may show: those of a task of the user's own stay out of it.

A report becomes a comment and an artifact that others can read. An evaluation set that was
published is no longer one.
"""

from pathlib import Path

from gate.harness import task_files
from gate.records import Report, TaskSetup
from gate.settings import PACKAGED, Settings, TaskRun

NO_TEXTS = {"prompt": None, "baseline": None, "candidate": None}


def without_texts(report: Report, settings: Settings, root: Path) -> Report:
    """The report without prompts and answers of the user's own tasks, unless they may be shown.

    Args:
        root: Directory to which the settings' paths are relative.
    """
    if settings.publish_text or report.evaluation is None:
        return report
    own = own_tasks(settings, root, report.evaluation.setups)
    answers = {task: kept for task, kept in report.evaluation.answers.items() if task not in own}
    canary = tuple(
        answer.model_copy(update=NO_TEXTS) if answer.task in own else answer
        for answer in report.verdict.canary
    )
    flips = tuple(
        flip.model_copy(update=NO_TEXTS) if flip.task in own else flip for flip in report.flips
    )
    return report.model_copy(
        update={
            "evaluation": report.evaluation.model_copy(update={"answers": answers}),
            "verdict": report.verdict.model_copy(update={"canary": canary}),
            "flips": flips,
            "private_tasks": own,
        }
    )


def own_tasks(settings: Settings, root: Path, setups: tuple[TaskSetup, ...]) -> tuple[str, ...]:
    """Tasks with documents or a task file of the user's own, in the order in which they ran.

    Args:
        setups: How the tasks were asked; a stored result knows of documents that the settings no
            longer name.
    """
    runs = {run.task: run for run in settings.task_runs}
    return tuple(
        setup.task for setup in setups if _is_own(setup, runs.get(setup.task), settings, root)
    )


def _is_own(setup: TaskSetup, run: TaskRun | None, settings: Settings, root: Path) -> bool:
    if run is None:
        return setup.documents is not None
    named = run.options.documents
    if named is not None and named.startswith(PACKAGED):
        return False
    if setup.documents is not None or named is not None or run.task.endswith((".yaml", ".yml")):
        return True
    directory = root / settings.include_path if settings.include_path else None
    return directory is not None and run.task in task_files.names(directory.resolve())
